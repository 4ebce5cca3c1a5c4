import json
import os
import stat
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpserve.model.errors import LabelsFileError, ModelsFolderError
from mlpserve.model.labels import (
    MAX_FILE_BYTES,
    MAX_HISTORY,
    MAX_LABELS,
    Label,
    is_label,
    labels_path,
    read_labels,
    remove_label,
    roll_back,
    set_label,
)
from mlpserve.model.versions import publish
from mlpserve.model.weights import Model

FileSizeLimit: TypeAlias = Callable[[int], AbstractContextManager[None]]
Publisher: TypeAlias = Callable[..., subprocess.Popen[str]]
StartTogether: TypeAlias = Callable[[list[subprocess.Popen[str]]], None]

STABLE = {"version": 2, "history": [1]}


def add_versions(models: Path, *numbers: int) -> None:
    for number in numbers:
        (models / "tiny" / str(number)).mkdir(parents=True)


def write(models: Path, content: str) -> Path:
    path = labels_path(models, "tiny")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def document(**labels: Any) -> str:
    return json.dumps({"format_version": 1, "labels": labels})


def test_largest_labels_that_may_be_set_can_be_read(models: Path) -> None:
    largest = 10**18 - 1
    history = range(largest - MAX_HISTORY, largest)
    labels = {f"{number:a>64}": {"version": largest, "history": [*history]} for number in range(99)}
    write(models, document(**labels))
    add_versions(models, largest)
    set_label(models, "tiny", "a" * 64, largest)
    assert len(read_labels(models, "tiny")) == MAX_LABELS


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "document: expected JSON, but Expecting value: line 1 column 1 (char 0)"),
        (document(stable=STABLE)[:-1], "document: expected JSON, but Expecting ',' delimiter: "),
        ("[" * 100_000, "document: expected JSON, but "),
        ("[]", "document: expected an object, got list"),
        ("{}", "document: the field 'format_version' is missing"),
        ('{"format_version": 2}', "document.format_version: expected from 1 to 1, got 2"),
        ('{"format_version": 1}', "document: the field 'labels' is missing"),
        ('{"format_version": 1, "labels": []}', "document.labels: expected dict, got list"),
        (document(stable=2), "document.labels.stable: expected dict, got int"),
        (document(stable={}), "document.labels.stable: the field 'version' is missing"),
        (document(stable={"version": 2}), "document.labels.stable: the field 'history' is missing"),
        (
            document(stable={"version": "2", "history": []}),
            "document.labels.stable.version: expected int, got str",
        ),
        (
            document(stable={"version": True, "history": []}),
            "document.labels.stable.version: expected int, got bool",
        ),
        (
            document(stable={"version": 0, "history": []}),
            "document.labels.stable.version: expected from 1 to 999999999999999999, got 0",
        ),
        (
            document(stable={"version": 10**18, "history": []}),
            "document.labels.stable.version: expected from 1 to 999999999999999999, got 1000000000",
        ),
        (
            document(stable={"version": 2, "history": [1.5]}),
            "document.labels.stable.history: expected int, got float",
        ),
        (
            document(stable={"version": 2, "history": [-1]}),
            "document.labels.stable.history: expected numbers of versions",
        ),
        (
            document(stable={"version": 2, "history": [1, 1]}),
            "document.labels.stable.history: expected at most 100 versions, each once, and not ",
        ),
        (
            document(stable={"version": 2, "history": [1, 2]}),
            "document.labels.stable.history: expected at most 100 versions, each once, and not ",
        ),
        (
            document(stable={"version": 200, "history": [*range(1, 102)]}),
            "document.labels.stable.history: expected at most 100 versions, each once, and not ",
        ),
        (document(**{"../x": STABLE}), "document.labels: expected no label called '../x'"),
        (document(**{"7": STABLE}), "document.labels: expected no label called '7'"),
        (
            document(**{f"a{number}": STABLE for number in range(101)}),
            "document.labels: expected at most 100, got 101",
        ),
        (document(stable=STABLE) + " " * MAX_FILE_BYTES, "expected at most 1048576 bytes, got "),
    ],
)
def test_damaged_file_is_refused_and_left_as_it_is(
    models: Path, content: str, problem: str
) -> None:
    add_versions(models, 1, 2)
    path = write(models, content)
    for call in (
        lambda: read_labels(models, "tiny"),
        lambda: set_label(models, "tiny", "stable", 1),
        lambda: remove_label(models, "tiny", "stable"),
        lambda: roll_back(models, "tiny", "stable"),
    ):
        with pytest.raises(LabelsFileError) as refused:
            call()
        assert str(refused.value).startswith(f"{path}: {problem}")
        assert str(refused.value).endswith("; mend it, or delete it and set the labels anew")
    assert path.read_text() == content


@given(content=st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
def test_no_content_whatever_is_an_error_of_another_kind(content: bytes) -> None:
    with TemporaryDirectory() as name:
        path = write(Path(name), "")
        path.write_bytes(content)
        with pytest.raises(LabelsFileError):
            read_labels(Path(name), "tiny")


@given(at=st.integers(0, 200), bit=st.integers(0, 7))
def test_changed_bit_is_refused_or_gives_labels_that_may_be(at: int, bit: int) -> None:
    content = bytearray(document(stable=STABLE, canary={"version": 3, "history": []}).encode())
    content[at % len(content)] ^= 1 << bit
    with TemporaryDirectory() as name:
        write(Path(name), "").write_bytes(content)
        try:
            labels = read_labels(Path(name), "tiny")
        except LabelsFileError:
            return
    assert all(is_label(text) and label.version > 0 for text, label in labels.items())


def test_fields_of_later_releases_are_ignored(models: Path) -> None:
    text = json.loads(document(stable={**STABLE, "by": "me"})) | {"comment": "hello"}
    write(models, json.dumps(text))
    assert read_labels(models, "tiny") == {"stable": Label(2, (1,))}


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_what_is_no_file_is_refused_and_not_waited_for(
    models: Path, make: Callable[[Path], None]
) -> None:
    path = write(models, "")
    path.unlink()
    make(path)
    with pytest.raises(LabelsFileError, match="expected a file, got a folder, a pipe or a device"):
        read_labels(models, "tiny")


def test_file_without_permission_is_refused(
    public_folder: Path, as_ordinary_user: Callable[[], AbstractContextManager[None]]
) -> None:
    path = write(public_folder, document(stable=STABLE))
    path.chmod(0)
    with as_ordinary_user(), pytest.raises(LabelsFileError) as refused:
        read_labels(public_folder, "tiny")
    assert str(refused.value) == f"{path}: cannot be read: Permission denied"


def test_unwritable_folder_is_refused(
    public_folder: Path, as_ordinary_user: Callable[[], AbstractContextManager[None]]
) -> None:
    add_versions(public_folder, 1, 2)
    message = f"{public_folder}/tiny: cannot be written to: Permission denied"
    for _ in range(2):  # without a lock file, and with one
        with as_ordinary_user(), pytest.raises(ModelsFolderError) as refused:
            set_label(public_folder, "tiny", "stable", 2)
        assert str(refused.value) == message
        set_label(public_folder, "tiny", "stable", 1)
    assert read_labels(public_folder, "tiny") == {"stable": Label(1)}


def test_folder_that_may_not_be_looked_at_is_refused(
    public_folder: Path, as_ordinary_user: Callable[[], AbstractContextManager[None]]
) -> None:
    models = public_folder / "models"
    add_versions(models, 1)
    models.chmod(0)
    with as_ordinary_user(), pytest.raises(ModelsFolderError) as refused:
        set_label(models, "tiny", "stable", 1)
    assert str(refused.value) == f"{models}/tiny: cannot be read: Permission denied"


def test_lock_file_of_another_user_is_no_obstacle(
    public_folder: Path, as_ordinary_user: Callable[[], AbstractContextManager[None]]
) -> None:
    add_versions(public_folder, 1, 2)
    (public_folder / "tiny").chmod(0o777)
    set_label(public_folder, "tiny", "stable", 1)
    with as_ordinary_user():
        set_label(public_folder, "tiny", "stable", 2)
    assert read_labels(public_folder, "tiny") == {"stable": Label(2, (1,))}


@pytest.mark.parametrize("size_bytes", [0, 1, 50])
def test_full_disk_is_refused_and_leaves_what_was_there(
    models: Path, file_size_limit: FileSizeLimit, size_bytes: int
) -> None:
    add_versions(models, 1, 2)
    set_label(models, "tiny", "stable", 1)
    before = sorted(path.name for path in (models / "tiny").iterdir())
    with (
        file_size_limit(size_bytes),
        pytest.raises(ModelsFolderError, match="tiny: cannot be written to: File too large"),
    ):
        set_label(models, "tiny", "stable", 2)
    assert read_labels(models, "tiny") == {"stable": Label(1)}
    assert sorted(path.name for path in (models / "tiny").iterdir()) == before


def test_whoever_reads_versions_may_read_labels(models: Path) -> None:
    add_versions(models, 1)
    own = os.umask(0o022)
    try:
        set_label(models, "tiny", "stable", 1)
    finally:
        os.umask(own)
    assert stat.S_IMODE(labels_path(models, "tiny").stat().st_mode) == 0o644


@pytest.mark.exhaustive
def test_of_many_changes_at_once_none_is_lost_and_none_is_seen_half(
    models: Path, publisher: Publisher, start_together: StartTogether
) -> None:
    count, each = 6, 16
    add_versions(models, 1)
    processes = [publisher("label", models, f"p{number}", each) for number in range(count)]
    start_together(processes)
    seen: set[str] = set()
    while any(process.poll() is None for process in processes):
        labels = set(read_labels(models, "tiny"))
        assert seen <= labels
        seen = labels
    for process in processes:
        process.communicate(timeout=240)
        assert process.returncode == 0
    assert set(read_labels(models, "tiny")) == {
        f"p{process}-{number}" for process in range(count) for number in range(each)
    }


def test_kill_at_any_moment_leaves_the_label_as_it_was_or_as_it_is_to_be(
    tmp_path: Path, models: Path, model: Model, publisher: Publisher
) -> None:
    for _ in range(3):
        publish(models, model)
    set_label(models, "tiny", "stable", 1)
    output = publisher("die-labelling", tmp_path / "moments", models).communicate(timeout=240)[0]
    left = []
    for moment in range(1, int(output) + 1):
        folder = tmp_path / "moments" / str(moment)
        left.append(read_labels(folder, "tiny")["stable"])
        assert left[-1] in (Label(1), Label(2, (1,)))
        # Nothing that was left behind is in anybody's way.
        assert set_label(folder, "tiny", "stable", 3).version == 3
    assert left.count(Label(1)) > 30
    assert left.count(Label(2, (1,))) > 3
