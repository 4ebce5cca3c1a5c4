import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpserve.model.errors import NoVersionError
from mlpserve.model.folder import versions
from mlpserve.model.labels import (
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

LABELS = st.sampled_from(["canary", "stable", "v1.2"])
VERSIONS = st.integers(1, 5)
# What a person may do with labels: set one, go back, take one away, delete a version.
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), LABELS, VERSIONS),
        st.tuples(st.just("roll back"), LABELS, st.none()),
        st.tuples(st.just("remove"), LABELS, st.none()),
        st.tuples(st.just("delete"), st.none(), VERSIONS),
    ),
    max_size=30,
)


def add_versions(models: Path, *numbers: int) -> None:
    for number in numbers:
        (models / "tiny" / str(number)).mkdir(parents=True)


def refusal(call: Callable[..., object], *arguments: object) -> str:
    with pytest.raises(NoVersionError) as refused:
        call(*arguments)
    return str(refused.value)


@pytest.mark.parametrize("text", ["stable", "a", "A-b_c.d", "v1", "1.0", "1-2", "a" * 64])
def test_word_is_a_label(text: str) -> None:
    assert is_label(text)


@pytest.mark.parametrize(
    "text", ["", "1", "0042", ".hidden", "-a", "a b", "a/b", "..", "a:b", "ä", "a\n", "a" * 65]
)
def test_what_could_be_a_version_or_a_path_is_no_label(models: Path, text: str) -> None:
    assert not is_label(text)
    add_versions(models, 1)
    assert refusal(set_label, models, "tiny", text, 1) == (
        "label: expected 1 to 64 letters, digits, '.', '_' or '-', a letter or digit first, and "
        f"not only digits, got {text!r}"
    )
    assert not labels_path(models, "tiny").exists()


def test_label_means_what_it_was_set_to_and_keeps_what_it_meant(models: Path) -> None:
    add_versions(models, 1, 2, 3)
    assert read_labels(models, "tiny") == {}
    assert set_label(models, "tiny", "stable", 1) == Label(1)
    assert set_label(models, "tiny", "stable", 2) == Label(2, (1,))
    assert set_label(models, "tiny", "stable", 3) == Label(3, (1, 2))
    assert set_label(models, "tiny", "canary", 3) == Label(3)
    assert read_labels(models, "tiny") == {"canary": Label(3), "stable": Label(3, (1, 2))}
    assert labels_path(models, "tiny").read_text() == (
        '{"format_version": 1, "labels": {"canary": {"version": 3, "history": []}, '
        '"stable": {"version": 3, "history": [1, 2]}}}\n'
    )


def test_label_that_is_set_to_what_it_means_is_left_as_it_is(models: Path) -> None:
    add_versions(models, 1, 2)
    set_label(models, "tiny", "stable", 1)
    set_label(models, "tiny", "stable", 2)
    written = labels_path(models, "tiny").stat()
    assert set_label(models, "tiny", "stable", 2) == Label(2, (1,))
    assert labels_path(models, "tiny").stat().st_ino == written.st_ino


def test_version_that_a_label_means_again_stands_in_its_history_once(models: Path) -> None:
    add_versions(models, 1, 2, 3)
    for version in (1, 2, 3, 1):
        set_label(models, "tiny", "stable", version)
    assert read_labels(models, "tiny") == {"stable": Label(1, (2, 3))}


def test_rolling_back_goes_further_back_each_time_and_then_says_that_there_is_nothing(
    models: Path,
) -> None:
    add_versions(models, 1, 2, 3)
    for version in (1, 2, 3):
        set_label(models, "tiny", "stable", version)
    assert roll_back(models, "tiny", "stable") == 2
    assert read_labels(models, "tiny") == {"stable": Label(2, (1,))}
    assert roll_back(models, "tiny", "stable") == 1
    assert refusal(roll_back, models, "tiny", "stable") == (
        f"{models}/tiny: label 'stable' means version 1, and none that it meant before is still "
        "there; name one to promote"
    )
    assert read_labels(models, "tiny") == {"stable": Label(1)}


def test_rolling_back_passes_over_versions_that_were_deleted(models: Path) -> None:
    add_versions(models, 1, 2, 3)
    for version in (1, 2, 3):
        set_label(models, "tiny", "stable", version)
    (models / "tiny" / "2").rmdir()
    assert roll_back(models, "tiny", "stable") == 1
    assert read_labels(models, "tiny") == {"stable": Label(1)}


def test_number_that_a_label_knows_is_not_given_to_another_version(
    models: Path, model: Model
) -> None:
    add_versions(models, 1, 2, 3)
    for label, version in (("canary", 2), ("stable", 3), ("stable", 1)):
        set_label(models, "tiny", label, version)
    for version in versions(models, "tiny"):
        shutil.rmtree(models / "tiny" / str(version))
    assert publish(models, model).metadata.version == 4


def test_damaged_labels_keep_nobody_from_publishing(models: Path, model: Model) -> None:
    publish(models, model)
    labels_path(models, "tiny").write_text("{")
    assert publish(models, model).metadata.version == 2


def test_label_is_removed_with_its_history(models: Path) -> None:
    add_versions(models, 1, 2)
    for label in ("stable", "canary"):
        set_label(models, "tiny", label, 1)
    remove_label(models, "tiny", "stable")
    assert read_labels(models, "tiny") == {"canary": Label(1)}
    assert set_label(models, "tiny", "stable", 2) == Label(2)


@given(steps=STEPS)
def test_labels_are_those_of_a_model_that_remembers_every_step(
    steps: list[tuple[str, Any, Any]],
) -> None:
    with TemporaryDirectory() as name:
        models, there = Path(name), {1, 2, 3, 4, 5}
        add_versions(models, *there)
        expected: dict[str, list[int]] = {}  # what each meant, the present one last
        for action, label, version in steps:
            if action == "delete":
                if version in there:
                    there.remove(version)
                    (models / "tiny" / str(version)).rmdir()
            else:
                _do(models, action, label, version)
                _remember(expected, there, action, label, version)
            assert read_labels(models, "tiny") == {
                label: Label(meant[-1], tuple(meant[:-1])) for label, meant in expected.items()
            }


def _do(models: Path, action: str, label: str, version: int) -> None:
    try:
        if action == "set":
            set_label(models, "tiny", label, version)
        else:
            (roll_back if action == "roll back" else remove_label)(models, "tiny", label)
    except NoVersionError:
        pass  # and then nothing has changed, which the test sees


def _remember(
    expected: dict[str, list[int]], there: set[int], action: str, label: str, version: int
) -> None:
    meant = expected.get(label, [])
    if action == "set" and version in there:
        expected[label] = [number for number in meant if number != version] + [version]
    elif action == "remove":
        expected.pop(label, None)
    elif action == "roll back":
        left = [number for number in meant[:-1] if number in there]
        if left:
            expected[label] = meant[: meant.index(left[-1]) + 1]


def test_version_or_model_that_is_not_there_cannot_be_labelled(models: Path) -> None:
    assert refusal(set_label, models, "tiny", "stable", 1) == f"{models}: there is no such folder"
    add_versions(models, 1, 3)
    assert refusal(set_label, models, "other", "stable", 1) == (
        f"{models}: has no model 'other'; it has tiny"
    )
    assert refusal(set_label, models, "../tiny", "stable", 1) == (
        f"{models}: has no model '../tiny'; it has tiny"
    )
    assert refusal(set_label, models, "tiny", "stable", 2) == (
        f"{models}/tiny: has no version 2; it has 3, 1"
    )
    assert read_labels(models, "tiny") == {}


@pytest.mark.parametrize("change", [roll_back, remove_label])
def test_label_that_is_not_there_is_said_with_those_that_are(
    models: Path, change: Callable[..., object]
) -> None:
    add_versions(models, 1)
    assert refusal(change, models, "tiny", "beta") == (
        f"{models}/tiny: has no label 'beta'; it has none"
    )
    for label in ("stable", "canary"):
        set_label(models, "tiny", label, 1)
    assert refusal(change, models, "tiny", "beta") == (
        f"{models}/tiny: has no label 'beta'; it has canary, stable"
    )


@pytest.mark.parametrize("name", ["unknown", "", "..", "../models/tiny", "a\0", "a" * 300])
def test_unknown_model_has_no_labels(models: Path, name: str) -> None:
    add_versions(models, 1)
    set_label(models, "tiny", "stable", 1)
    assert read_labels(models, name) == {}


def test_number_and_length_of_what_is_kept_are_limited(models: Path) -> None:
    add_versions(models, *range(1, MAX_HISTORY + 4))
    for version in range(1, MAX_HISTORY + 4):
        set_label(models, "tiny", "stable", version)
    assert read_labels(models, "tiny")["stable"] == Label(
        MAX_HISTORY + 3, tuple(range(3, MAX_HISTORY + 3))
    )
    for number in range(1, MAX_LABELS):
        set_label(models, "tiny", f"label-{number}", 1)
    assert refusal(set_label, models, "tiny", "label-100", 1) == (
        f"{models}/tiny: has 100 labels already; remove one"
    )
    set_label(models, "tiny", "label-1", 2)
    assert len(read_labels(models, "tiny")) == MAX_LABELS
