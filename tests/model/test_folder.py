import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from mlpserve.model.errors import ModelsFolderError
from mlpserve.model.folder import model_names, versions
from mlpserve.model.versions import publish
from mlpserve.model.weights import Model

# The parent of several servers imports these; it is to stay small.
WITHOUT_NUMPY = ("atomic_files", "digests", "folder", "labels", "locks")


@pytest.mark.parametrize("module", WITHOUT_NUMPY)
def test_looking_at_a_folder_needs_no_numpy(module: str) -> None:
    program = f"import sys, mlpserve.model.{module}; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_only_folders_with_a_version_are_models(models: Path, model: Model) -> None:
    publish(models, model)
    (models / "empty").mkdir()
    (models / ".hidden" / "1").mkdir(parents=True)
    (models / "a b" / "1").mkdir(parents=True)
    (models / "file").write_text("a file")
    assert model_names(models) == ["tiny"]


@pytest.mark.parametrize("name", ["unknown", "", ".", "..", "../models/tiny", "a\0", "a" * 300])
def test_unknown_name_has_no_versions(models: Path, model: Model, name: str) -> None:
    publish(models, model)
    (models / "7").mkdir()
    assert versions(models, name) == []


def test_models_folder_that_is_missing_is_said(models: Path) -> None:
    with pytest.raises(ModelsFolderError) as refused:
        model_names(models)
    assert str(refused.value) == f"{models}: cannot be read: No such file or directory"


@pytest.mark.parametrize("mode", [0o000, 0o444], ids=["unreadable", "not to be entered"])
def test_models_folder_without_permission_is_refused(
    public_folder: Path,
    model: Model,
    as_ordinary_user: Callable[[], AbstractContextManager[None]],
    mode: int,
) -> None:
    models = public_folder / "models"
    publish(models, model)
    models.chmod(mode)
    try:
        with as_ordinary_user(), pytest.raises(ModelsFolderError) as refused:
            versions(models, model_names(models)[0])
        assert str(refused.value).endswith("cannot be read: Permission denied")
    finally:
        models.chmod(0o755)
