import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest

from mlpserve.model.errors import ModelsFolderError, WeightsFileError
from mlpserve.model.folder import LOCK_FILE_NAME, model_names, versions, weights_path
from mlpserve.model.pruning import prune
from mlpserve.model.versions import load_version, prepare, publish
from mlpserve.model.weights import Model, golden_samples, load_model

FileSizeLimit: TypeAlias = Callable[[int], AbstractContextManager[None]]
Publisher: TypeAlias = Callable[..., subprocess.Popen[str]]
StartTogether: TypeAlias = Callable[[list[subprocess.Popen[str]]], None]

NUMBER_FILE_NAME = "number.txt"  # as the publisher calls it
VERSION_1 = ["tiny", "tiny/.lock", "tiny/1", "tiny/1/weights.npz", "tiny/1/weights.npz.sha256"]
STRANGERS = (".unfinished-0a1b", "007", "v1", "0", "-1", "1.0", " 1", "\u0661", "1" * 19, "1" * 40)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


def called(model: Model, name: str) -> Model:
    return Model(model.network, replace(model.metadata, name=name))


def add_version(models: Path, version: int) -> None:
    (models / "tiny" / str(version)).mkdir(parents=True)


def everything_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def assert_whole(models: Path, number: int) -> None:
    """Assert that a version that the publisher wrote is complete and knows its number."""
    path = weights_path(models, "tiny", number)
    assert load_version(models, "tiny", number).metadata.version == number
    assert path.with_name(NUMBER_FILE_NAME).read_text() == str(number)
    assert everything_in(path.parent) == [NUMBER_FILE_NAME, "weights.npz", "weights.npz.sha256"]


@contextmanager
def umask(mask: int) -> Iterator[None]:
    own = os.umask(mask)
    try:
        yield
    finally:
        os.umask(own)


def test_versions_are_numbered_from_1(models: Path, model: Model) -> None:
    assert [publish(models, model).metadata.version for _ in range(3)] == [1, 2, 3]
    assert versions(models, "tiny") == [3, 2, 1]


def test_newest_version_is_the_highest_plus_1_across_gaps(models: Path, model: Model) -> None:
    add_version(models, 2)
    add_version(models, 10)
    assert publish(models, model).metadata.version == 11
    assert versions(models, "tiny") == [11, 10, 2]


def test_each_name_has_numbers_of_its_own(models: Path, model: Model) -> None:
    publish(models, model)
    assert publish(models, called(model, "other")).metadata.version == 1
    assert model_names(models) == ["other", "tiny"]


def test_what_was_published_is_what_the_file_holds(models: Path, model: Model) -> None:
    published = publish(models, model)
    loaded = load_model(weights_path(models, "tiny", 1))
    assert published.metadata == loaded.metadata == model.metadata
    for one, other, original in zip(
        published.network.parameters,
        loaded.network.parameters,
        model.network.parameters,
        strict=True,
    ):
        assert one.tobytes() == other.tobytes() == original.tobytes()


def test_file_names_the_number_of_its_folder(models: Path, model: Model) -> None:
    for _ in range(2):
        publish(models, Model(model.network, replace(model.metadata, version=77)))
    assert [
        load_model(weights_path(models, "tiny", number)).metadata.version for number in (1, 2)
    ] == [1, 2]


def test_published_folder_holds_the_weights_and_their_digest_and_nothing_else(
    models: Path, model: Model
) -> None:
    publish(models, model)
    assert everything_in(models) == VERSION_1


def test_strangers_are_no_versions(models: Path, model: Model) -> None:
    add_version(models, 4)
    for name in STRANGERS:
        (models / "tiny" / name).mkdir()
    (models / "tiny" / "9").write_text("a file")
    assert versions(models, "tiny") == [4]
    assert publish(models, model).metadata.version == 5


def test_file_under_the_next_number_is_passed_over(models: Path, model: Model) -> None:
    (models / "tiny").mkdir(parents=True)
    (models / "tiny" / "1").write_text("a file")
    assert publish(models, model).metadata.version == 2
    assert versions(models, "tiny") == [2]


def test_after_the_largest_number_nothing_is_published(models: Path, model: Model) -> None:
    add_version(models, 10**18 - 1)
    with pytest.raises(ModelsFolderError, match=r"no number is left after 9{18}; use another name"):
        publish(models, model)
    assert versions(models, "tiny") == [10**18 - 1]


def test_prepared_folder_is_empty_and_can_be_prepared_again(models: Path) -> None:
    prepare(models, "tiny")
    prepare(models, "tiny")
    assert everything_in(models) == ["tiny"]
    assert versions(models, "tiny") == []


@pytest.mark.parametrize("place", [".", "models", "models/tiny"])
def test_file_in_place_of_a_folder_is_refused(tmp_path: Path, model: Model, place: str) -> None:
    root = tmp_path / "root"
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    (root / place).write_text("a file")
    models = root / "models"
    for write in (lambda: prepare(models, "tiny"), lambda: publish(models, model)):
        with pytest.raises(ModelsFolderError) as refused:
            write()
        assert str(refused.value).startswith(f"{models / 'tiny'}: cannot be written to: ")
    assert (root / place).read_text() == "a file"


def test_unwritable_folder_is_refused(
    public_folder: Path,
    model: Model,
    as_ordinary_user: Callable[[], AbstractContextManager[None]],
) -> None:
    folder = public_folder / "tiny"
    folder.mkdir()
    folder.chmod(0o555)
    message = f"{folder}: cannot be written to: Permission denied"
    for write in (lambda: prepare(public_folder, "tiny"), lambda: publish(public_folder, model)):
        with as_ordinary_user(), pytest.raises(ModelsFolderError) as refused:
            write()
        assert str(refused.value) == message
    assert everything_in(public_folder) == ["tiny"]


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077], ids=oct)
def test_rights_of_what_is_published_follow_the_umask(
    models: Path, model: Model, mask: int
) -> None:
    with umask(mask):
        publish(models, model, attachments=lambda _: {"notes": b""})
    path = weights_path(models, "tiny", 1)
    for file in (path, path.with_name("weights.npz.sha256"), path.with_name("notes")):
        assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~mask
    for folder in path.parents[:3]:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o777 & ~mask


def test_version_is_on_disk_when_publish_returns(
    models: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    fsync = os.fsync

    def recording_fsync(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", recording_fsync)
    publish(models, model, attachments=lambda _: {"notes": b""})
    path = weights_path(models, "tiny", 1)
    # The names of both folders, the files, their names, and at last the name of the version.
    files = (path, path.with_name("weights.npz.sha256"), path.with_name("notes"))
    places = (models.parent, models, *files, path.parent, path.parent.parent)
    expected = [place.stat().st_ino for place in places]
    assert synced == expected


@pytest.mark.parametrize("missing_bytes", [1, 100, 1000, 2000, None])
def test_full_disk_is_refused_and_leaves_nothing(
    models: Path,
    model: Model,
    weights_file: Path,
    file_size_limit: FileSizeLimit,
    missing_bytes: int | None,
) -> None:
    size = weights_file.stat().st_size
    publish(models, model)
    with (
        file_size_limit(0 if missing_bytes is None else size - missing_bytes),
        pytest.raises(ModelsFolderError, match="cannot be written to: File too large"),
    ):
        publish(models, model)
    assert everything_in(models) == VERSION_1
    assert publish(models, model).metadata.version == 2


def test_disk_that_is_full_for_an_attachment_is_refused_and_leaves_nothing(
    models: Path, model: Model, weights_file: Path, file_size_limit: FileSizeLimit
) -> None:
    size = weights_file.stat().st_size
    with (
        file_size_limit(size),
        pytest.raises(ModelsFolderError, match="cannot be written to: File too large"),
    ):
        publish(models, model, attachments=lambda _: {"notes": bytes(size + 1)})
    assert everything_in(models) == ["tiny"]


def test_network_that_does_not_give_its_golden_samples_is_refused_and_leaves_nothing(
    models: Path, model: Model
) -> None:
    images = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)
    golden = golden_samples(model.network, model.metadata.input, images)
    other = model.network.with_parameters([array / 2 for array in model.network.parameters])
    with pytest.raises(
        WeightsFileError, match="^not published: golden samples of tiny:1: expected"
    ):
        publish(models, Model(other, model.metadata, golden))
    assert everything_in(models) == ["tiny"]
    published = publish(models, Model(model.network, model.metadata, golden))
    assert published.golden is not None
    np.testing.assert_array_equal(published.golden.images, images)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300], ids=["NaN", "infinity", "no float32"])
def test_network_that_could_not_be_loaded_is_refused_and_leaves_nothing(
    models: Path, model: Model, value: float
) -> None:
    parameters = [array.astype(np.float64) for array in model.network.parameters]
    parameters[2][1, 1] = value
    broken = Model(model.network.with_parameters(parameters), model.metadata)
    with pytest.raises(WeightsFileError, match="entry 'W2': expected finite values"):
        publish(models, broken)
    assert everything_in(models) == ["tiny"]


def test_number_of_a_version_that_was_published_and_pruned_meanwhile_is_not_given_again(
    models: Path, model: Model
) -> None:
    tried = []

    def overtaken(numbered: Model) -> dict[str, bytes]:
        tried.append(numbered.metadata.version)
        if len(tried) == 1:
            for _ in range(3):
                publish(models, model)
            assert prune(models, "tiny", keep=1).versions == (2, 1)
        return {}

    published = publish(models, model, attachments=overtaken)
    assert (tried, published.metadata.version) == ([1, 4], 4)
    assert versions(models, "tiny") == [4, 3]


@pytest.mark.exhaustive
def test_each_of_many_publishers_gets_numbers_of_its_own(
    models: Path, weights_file: Path, publisher: Publisher, start_together: StartTogether
) -> None:
    count, each = 6, 10
    publishers = [publisher("publish", models, weights_file, each) for _ in range(count)]
    start_together(publishers)
    outputs = []
    for process in publishers:
        outputs += [int(line) for line in process.communicate(timeout=240)[0].split()]
        assert process.returncode == 0

    numbers = list(range(1, count * each + 1))
    assert sorted(outputs) == numbers
    assert versions(models, "tiny") == numbers[::-1]
    assert {path.name for path in (models / "tiny").iterdir()} == {
        LOCK_FILE_NAME,
        *map(str, numbers),
    }
    for number in numbers:
        assert_whole(models, number)


def test_kill_at_any_moment_leaves_no_half_version(
    tmp_path: Path, model: Model, weights_file: Path, publisher: Publisher
) -> None:
    output = publisher("die-publishing", tmp_path, weights_file).communicate(timeout=240)[0]
    last = int(output)
    left = []
    for moment in range(1, last + 1):
        models = tmp_path / str(moment)
        left.append(versions(models, "tiny"))
        assert left[-1] in ([], [1])
        for number in left[-1]:
            assert_whole(models, number)
        assert publish(models, model).metadata.version == len(left[-1]) + 1
    # It was killed before the version was there and after it, and at last not at all.
    assert left.count([]) > 50
    assert left.count([1]) > 3
    assert left[-1] == [1]
