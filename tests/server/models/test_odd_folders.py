"""Models folders as they should not be: away, unreadable, full of what is no version."""

import shutil
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from mlpserve.model.digests import DIGEST_FILE_NAME
from mlpserve.model.folder import weights_path
from mlpserve.model.labels import labels_path, set_label
from mlpserve.model.versions import publish as publish_model
from mlpserve.model.weights import Model

Publish = Callable[..., None]
ServeFolder = Callable[..., Any]


def test_a_models_folder_that_goes_away_takes_nothing_with_it(
    models: Path, publish: Publish, serve_folder: ServeFolder, caplog: pytest.LogCaptureFixture
) -> None:
    publish("digits", versions=2)
    local = serve_folder(models)
    away = models.with_name("away")
    models.rename(away)
    assert local.reloaded() == {"digits": [2, 1]}
    assert "cannot be read: No such file or directory; what was known of it" in caplog.text
    models.write_text("a file in its place")
    assert local.reloaded() == {"digits": [2, 1]}
    models.unlink()
    away.rename(models)
    publish("digits", versions=1)
    assert local.reloaded() == {"digits": [3, 2]}


def test_a_volume_that_is_not_mounted_takes_nothing_with_it(
    models: Path, publish: Publish, serve_folder: ServeFolder, caplog: pytest.LogCaptureFixture
) -> None:
    publish("digits", versions=2)
    publish("letters", versions=1)
    local = serve_folder(models)
    volume = models.with_name("volume")
    models.rename(volume)
    models.mkdir()
    for _ in range(3):
        assert local.reloaded() == {"digits": [2, 1], "letters": [1]}
    assert local.registry.is_ready
    assert caplog.text.count("has no model any more, of 2, which must be a mistake") == 1
    models.rmdir()
    volume.rename(models)
    publish("digits", versions=1)
    assert local.reloaded() == {"digits": [3, 2], "letters": [1]}


def test_whoever_means_it_can_have_nothing_served(
    models: Path, publish: Publish, serve_folder: ServeFolder
) -> None:
    publish("digits", versions=1)
    publish("letters", versions=1)
    local = serve_folder(models)
    shutil.rmtree(models / "letters")
    assert local.reloaded() == {"digits": [1]}
    shutil.rmtree(models / "digits" / "1")  # its folder is left
    assert local.reloaded() == {}
    publish("digits", versions=1)
    assert local.reloaded() == {"digits": [1]}
    local.controller.unload("digits")
    assert local.reloaded() == {}


def test_a_folder_that_cannot_be_read_takes_nothing_with_it(
    public_folder: Path,
    model: Model,
    serve_folder: ServeFolder,
    as_ordinary_user: Callable[[], AbstractContextManager[None]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    publish_model(public_folder, model)
    with as_ordinary_user():
        local = serve_folder(public_folder)
    for unreadable in (public_folder / "tiny", public_folder):
        unreadable.chmod(0)
        with as_ordinary_user():
            assert local.reloaded() == {"tiny": [1]}
            assert local.reloaded() == {"tiny": [1]}
        unreadable.chmod(0o755)
        assert caplog.text.count(f"{unreadable}: cannot be read: Permission denied") == 1


def test_a_file_without_the_right_to_read_it_is_served_once_there_is_the_right(
    public_folder: Path,
    model: Model,
    serve_folder: ServeFolder,
    as_ordinary_user: Callable[[], AbstractContextManager[None]],
) -> None:
    publish_model(public_folder, model)
    weights = weights_path(public_folder, "tiny", 1)
    for private in (weights.with_name(DIGEST_FILE_NAME), weights, weights.parent):
        mode = private.stat().st_mode
        private.chmod(0)
        with as_ordinary_user():
            local = serve_folder(public_folder)
            assert local.served == {"tiny": []}
        assert "cannot be read: Permission denied" in local.registry.models["tiny"].quarantined[1]
        private.chmod(mode)
        with as_ordinary_user():
            assert local.reloaded() == {"tiny": [1]}


def test_damaged_labels_mean_what_they_meant(
    models: Path, publish: Publish, serve_folder: ServeFolder, caplog: pytest.LogCaptureFixture
) -> None:
    publish("digits", versions=3)
    set_label(models, "digits", "stable", 1)
    local = serve_folder(models)
    labels_path(models, "digits").write_text("{")
    publish("digits", versions=1)
    assert local.reloaded() == {"digits": [4, 3, 1]}
    assert local.registry.find("digits", 0).metadata.version == 1
    assert str(labels_path(models, "digits")) in caplog.text


def test_what_is_no_model_and_no_version_is_passed_over(
    models: Path, publish: Publish, serve_folder: ServeFolder
) -> None:
    publish("digits", versions=1)
    for name in (".hidden", "-dash", "with space", "ünïcode", "x" * 65):
        shutil.copytree(models / "digits", models / name)
    for name in ("01", "-1", "1.0", "2x", ".unfinished-0", "9" * 19, "٣"):
        shutil.copytree(models / "digits" / "1", models / "digits" / name)
    (models / "file").write_text("no folder")
    (models / "digits" / "7").write_text("no folder")
    (models / "loop").symlink_to(models / "loop")
    (models / "digits" / "8").symlink_to(models / "digits" / "8")
    assert serve_folder(models, versions="all").served == {"digits": [1]}


def test_a_thousand_broken_versions_are_no_trouble(
    models: Path, publish: Publish, serve_folder: ServeFolder
) -> None:
    publish("digits", versions=1)
    for number in range(2, 1002):
        (models / "digits" / str(number)).mkdir()
    set_label(models, "digits", "stable", 1)
    local = serve_folder(models)
    assert local.served == {"digits": [1]}
    assert len(local.registry.models["digits"].quarantined) == 1000
    assert local.controller.reload() is False


def test_a_folder_that_is_missing_at_the_start_is_waited_for_in_silence(
    models: Path, publish: Publish, serve_folder: ServeFolder, caplog: pytest.LogCaptureFixture
) -> None:
    local = serve_folder(models)
    local.controller.reload()
    assert caplog.text == ""
    publish("digits", versions=1)
    assert local.reloaded() == {"digits": [1]}


def test_a_reason_is_one_line_of_bounded_length_whatever_is_in_the_file(
    models: Path, publish: Publish, serve_folder: ServeFolder
) -> None:
    publish("digits", versions=1)
    path = weights_path(models, "digits", 1)
    (path.parent / DIGEST_FILE_NAME).unlink()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x\n" * 2000 + "\udce4.npy".encode("utf-8", "replace").decode(), b"none")
    (reason,) = serve_folder(models).registry.models["digits"].quarantined.values()
    assert len(reason) <= 500
    assert "\n" not in reason
