import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mlpserve.model.digests import DIGEST_FILE_NAME
from mlpserve.model.errors import SyncError
from mlpserve.model.folder import WEIGHTS_FILE_NAME, model_names, versions, weights_path
from mlpserve.model.labels import LABELS_FILE_NAME, read_labels, set_label
from mlpserve.model.sync.local_copy import default_folder
from mlpserve.model.sync.synchronizer import Synchronizer
from mlpserve.model.versions import load_version


def folder_contents(models: Path) -> dict[str, bytes]:
    """Return all files that readers of a models folder look at."""
    return {
        str(path.relative_to(models)): path.read_bytes()
        for path in models.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def test_the_copy_is_the_store(
    synchronizer: Synchronizer, models: Path, publish: Callable[..., None]
) -> None:
    publish("other", versions=1)
    set_label(models, "tiny", "stable", 1)
    assert synchronizer.difference is not None
    assert synchronizer.sync()
    assert synchronizer.difference is None
    assert folder_contents(synchronizer.copy.folder) == folder_contents(models)
    assert load_version(synchronizer.copy.folder, "tiny", 2).metadata.version == 2
    assert synchronizer.failure is None
    assert synchronizer.problems == {}


def test_nothing_is_copied_twice(synchronizer: Synchronizer, models: Path, cache: Path) -> None:
    set_label(models, "tiny", "stable", 1)
    synchronizer.sync()
    copied = weights_path(synchronizer.copy.folder, "tiny", 1).stat()
    assert not synchronizer.sync()
    assert not Synchronizer(f"file://{models}", cache).sync()
    assert weights_path(synchronizer.copy.folder, "tiny", 1).stat() == copied


def test_the_copy_follows_versions_and_labels(
    synchronizer: Synchronizer, models: Path, publish: Callable[..., None]
) -> None:
    set_label(models, "tiny", "stable", 1)
    synchronizer.sync()
    publish("tiny", versions=1)
    set_label(models, "tiny", "stable", 3)
    assert synchronizer.sync()
    assert folder_contents(synchronizer.copy.folder) == folder_contents(models)
    shutil.rmtree(models / "tiny" / "1")
    (models / "tiny" / LABELS_FILE_NAME).unlink()
    assert synchronizer.sync()
    assert versions(synchronizer.copy.folder, "tiny") == [3, 2]
    assert read_labels(synchronizer.copy.folder, "tiny") == {}


def test_a_model_that_is_gone_leaves_nothing(
    synchronizer: Synchronizer, models: Path, publish: Callable[..., None]
) -> None:
    publish("other", versions=1)
    set_label(models, "other", "stable", 1)
    synchronizer.sync()
    shutil.rmtree(models / "other")
    assert synchronizer.sync()
    assert model_names(synchronizer.copy.folder) == ["tiny"]
    assert not (synchronizer.copy.folder / "other").exists()


def test_a_version_with_the_digest_of_another_file_is_not_copied_and_keeps_no_other(
    synchronizer: Synchronizer, models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    digest = models / "tiny" / "2" / DIGEST_FILE_NAME
    right = digest.read_text()
    digest.write_text("0" * 64 + right[64:])
    assert synchronizer.sync()
    assert versions(synchronizer.copy.folder, "tiny") == [1]
    (reason,) = synchronizer.problems.values()
    assert f"file://{models}/tiny/2/weights.npz: expected the SHA-256 0000" in reason
    assert reason in str(synchronizer.difference)
    for _ in range(5):
        assert not synchronizer.sync()
    assert [reason in record.message for record in caplog.records].count(True) == 1
    digest.write_text(right)
    assert synchronizer.sync()
    assert versions(synchronizer.copy.folder, "tiny") == [2, 1]
    assert synchronizer.problems == {}


def test_a_version_without_a_digest_is_copied(synchronizer: Synchronizer, models: Path) -> None:
    (models / "tiny" / "1" / DIGEST_FILE_NAME).unlink()
    synchronizer.sync()
    assert load_version(synchronizer.copy.folder, "tiny", 1).metadata.version == 1


def test_a_digest_that_comes_later_is_copied_too(synchronizer: Synchronizer, models: Path) -> None:
    digest = models / "tiny" / "1" / DIGEST_FILE_NAME
    text = digest.read_bytes()
    digest.unlink()
    synchronizer.sync()
    digest.write_bytes(text)
    assert synchronizer.sync()
    assert (synchronizer.copy.folder / "tiny" / "1" / DIGEST_FILE_NAME).read_bytes() == text


def test_a_version_that_was_replaced_is_replaced(synchronizer: Synchronizer, models: Path) -> None:
    synchronizer.sync()
    for name in (WEIGHTS_FILE_NAME, DIGEST_FILE_NAME):
        (models / "tiny" / "1" / name).unlink()
    shutil.copy(weights_path(models, "tiny", 2), weights_path(models, "tiny", 1))
    assert synchronizer.sync()
    assert folder_contents(synchronizer.copy.folder) == folder_contents(models)


def test_a_folder_without_weights_is_no_version_yet(
    synchronizer: Synchronizer, models: Path
) -> None:
    (models / "tiny" / "3").mkdir()
    shutil.copy(models / "tiny" / "2" / DIGEST_FILE_NAME, models / "tiny" / "3")
    synchronizer.sync()
    assert versions(synchronizer.copy.folder, "tiny") == [2, 1]


def test_a_copy_that_was_cut_off_on_our_disk_is_made_anew(
    synchronizer: Synchronizer, models: Path
) -> None:
    synchronizer.sync()
    copy = weights_path(synchronizer.copy.folder, "tiny", 1)
    copy.write_bytes(copy.read_bytes()[:100])
    assert synchronizer.sync()
    assert folder_contents(synchronizer.copy.folder) == folder_contents(models)


def test_weights_over_the_limit_are_not_copied(
    models: Path, tiny_models: None, cache: Path
) -> None:
    size_bytes = weights_path(models, "tiny", 1).stat().st_size
    with weights_path(models, "tiny", 2).open("ab") as file:
        file.truncate(2**40)
    synchronizer = Synchronizer(f"file://{models}", cache, max_weights_bytes=size_bytes)
    synchronizer.sync()
    assert versions(cache, "tiny") == [1]
    (reason,) = synchronizer.problems.values()
    assert reason.endswith(f"expected at most {size_bytes} bytes, got {2**40}")


def test_damaged_labels_leave_those_that_were_there(
    synchronizer: Synchronizer, models: Path
) -> None:
    set_label(models, "tiny", "stable", 1)
    synchronizer.sync()
    (models / "tiny" / LABELS_FILE_NAME).write_text('{"format_version": 1, "lab')
    assert not synchronizer.sync()
    assert read_labels(synchronizer.copy.folder, "tiny")["stable"].version == 1
    (reason,) = synchronizer.problems.values()
    assert reason.startswith(f"file://{models}/tiny/labels.json: ")
    set_label_anew(models)
    assert synchronizer.sync()
    assert read_labels(synchronizer.copy.folder, "tiny")["stable"].version == 2


def set_label_anew(models: Path) -> None:
    (models / "tiny" / LABELS_FILE_NAME).unlink()
    set_label(models, "tiny", "stable", 2)


def test_a_store_that_is_away_takes_nothing_away(
    synchronizer: Synchronizer, models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    synchronizer.sync()
    before = folder_contents(synchronizer.copy.folder)
    models.rename(models.with_name("away"))
    for _ in range(3):
        assert not synchronizer.sync()
    assert folder_contents(synchronizer.copy.folder) == before
    assert synchronizer.failure is not None
    assert caplog.text.count("cannot be listed") == 1
    models.with_name("away").rename(models)
    assert not synchronizer.sync()
    assert synchronizer.failure is None
    assert caplog.text.count("is there again") == 1


def test_a_store_that_is_empty_of_a_sudden_takes_nothing_away(
    synchronizer: Synchronizer, models: Path
) -> None:
    synchronizer.sync()
    before = folder_contents(synchronizer.copy.folder)
    shutil.rmtree(models / "tiny")
    assert not synchronizer.sync()
    assert folder_contents(synchronizer.copy.folder) == before
    assert synchronizer.failure is not None
    assert "must be a mistake" in synchronizer.failure


def test_a_store_that_is_away_at_first_is_waited_for(
    models: Path, cache: Path, publish: Callable[..., None]
) -> None:
    synchronizer = Synchronizer(f"file://{models}", cache)
    assert not synchronizer.sync()
    publish("tiny", versions=1)
    assert synchronizer.sync()
    assert versions(cache, "tiny") == [1]


def test_an_empty_store_is_waited_for(models: Path, cache: Path) -> None:
    models.mkdir()
    synchronizer = Synchronizer(f"file://{models}", cache)
    assert not synchronizer.sync()
    assert synchronizer.failure is None


def test_what_was_left_unfinished_is_removed(synchronizer: Synchronizer) -> None:
    left = synchronizer.copy.folder / ".unfinished-0123456789abcdef"
    left.mkdir()
    (left / WEIGHTS_FILE_NAME).write_bytes(b"half")
    synchronizer.sync()
    assert not left.exists()


def test_a_folder_that_is_no_copy_is_refused_and_left_alone(
    models: Path, tiny_models: None, tmp_path: Path
) -> None:
    before = folder_contents(models)
    with pytest.raises(SyncError, match="FOLDER: expected an empty folder, or one made by this"):
        Synchronizer(f"file://{tmp_path / 'others'}", models)
    assert folder_contents(models) == before


def test_a_folder_that_is_the_copy_of_another_store_is_refused(
    synchronizer: Synchronizer, tmp_path: Path, cache: Path
) -> None:
    with pytest.raises(SyncError, match="holds copies of file://.*; name another folder"):
        Synchronizer(f"file://{tmp_path / 'others'}", cache)


def test_each_store_has_a_folder_of_its_own_in_the_users_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "of the user"))
    folders = {default_folder(f"file://{tmp_path / name}") for name in ("a", "b", "a")}
    assert len(folders) == 2
    if sys.platform == "linux":
        assert all(folder.is_relative_to(tmp_path / "of the user") for folder in folders)


def test_a_folder_that_cannot_be_made_is_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SyncError, match="FOLDER: .*/file/cache cannot be used: Not a directory"):
        Synchronizer(f"file://{tmp_path}", tmp_path / "file" / "cache")
