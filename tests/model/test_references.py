import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpserve.model.errors import ModelError, NoVersionError, WeightsFileError
from mlpserve.model.folder import weights_path
from mlpserve.model.labels import set_label
from mlpserve.model.references import (
    Reference,
    find_weights,
    load_reference,
    parse_reference,
)

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
NUMBERS = st.integers(1, 10**18 - 1)
LABELS = NAMES.filter(lambda text: not text.isdecimal())
# Folders as people have them, with colons in them too; a path that ends in ".." names no folder.
FOLDERS = st.from_regex(r"/?([A-Za-z0-9: ]{1,9}/){0,3}[A-Za-z0-9: ]{1,9}", fullmatch=True)


def loaded(text: str, models: Path | None = None) -> tuple[str, int]:
    metadata = load_reference(parse_reference(text, models=models)).metadata
    return metadata.name, metadata.version


def refusal(text: str, models: Path | None = None) -> str:
    with pytest.raises(NoVersionError) as refused:
        load_reference(parse_reference(text, models=models))
    return str(refused.value)


@given(folder=FOLDERS, name=NAMES, which=st.none() | NUMBERS | LABELS)
def test_what_is_written_is_what_is_meant(folder: str, name: str, which: int | str | None) -> None:
    text = name if which is None else f"{name}:{which}"
    if isinstance(which, str):
        meant = Reference(Path(folder), name, label=which)
    else:
        meant = Reference(Path(folder), name, version=which)
    assert parse_reference(f"{folder}/{text}") == meant
    assert parse_reference(text, models=Path(folder)) == meant


def test_folder_that_is_not_named_is_the_current_one() -> None:
    assert parse_reference("digits:7") == Reference(Path(), "digits", 7)


@pytest.mark.parametrize("text", ["", ".", "/", "..", "models/..", ":1", "a b", "models/.hidden:1"])
def test_what_names_no_model_is_refused(text: str) -> None:
    assert refusal(text) == (
        f"model: expected MODELS/NAME, MODELS/NAME:VERSION or MODELS/NAME:LABEL, got {text!r}"
    )


def test_path_is_refused_where_the_folder_is_known(models: Path) -> None:
    assert refusal("models/tiny", models) == (
        "model: expected NAME, NAME:VERSION or NAME:LABEL, got 'models/tiny'"
    )


@pytest.mark.parametrize("which", ["", "0", "01", "-1", "a b", ".a", "1:2", "1" * 19, "a" * 65])
def test_what_is_neither_a_number_nor_a_label_is_refused(which: str) -> None:
    assert refusal(f"models/digits:{which}") == (
        "model: expected a version's number or a label after the colon, as in digits:1 or "
        f"digits:stable, or neither for the newest, got 'models/digits:{which}'"
    )


def test_version_is_found_by_its_number_and_the_newest_without(
    models: Path, tiny_models: None
) -> None:
    assert loaded(f"{models}/tiny") == loaded("tiny", models) == ("tiny", 2)
    assert loaded(f"{models}/tiny/") == ("tiny", 2)
    assert loaded(f"{models}/tiny:1") == loaded("tiny:1", models) == ("tiny", 1)


def test_model_that_is_not_there_is_said_with_those_that_are(
    models: Path, publish: Callable[..., None]
) -> None:
    assert refusal(f"{models}/tiny") == f"{models}: there is no such folder"
    models.mkdir()
    assert refusal(f"{models}/tiny") == f"{models}: has no model 'tiny'; it has none"
    for number in range(12):
        publish(f"m{number:02}", versions=1)
    assert refusal(f"{models}/tiny") == (
        f"{models}: has no model 'tiny'; it has m00, m01, m02, m03, m04, m05, m06, m07, m08, m09 "
        "and 2 more"
    )


def test_version_that_is_not_there_is_said_with_those_that_are(
    models: Path, tiny_models: None
) -> None:
    assert refusal(f"{models}/tiny:3") == f"{models}/tiny: has no version 3; it has 2, 1"


def test_version_is_found_by_its_label(models: Path, tiny_models: None) -> None:
    set_label(models, "tiny", "stable", 1)
    assert loaded(f"{models}/tiny:stable") == loaded("tiny:stable", models) == ("tiny", 1)
    assert refusal(f"{models}/tiny:canary") == (
        f"{models}/tiny: has no label 'canary'; it has stable"
    )


def test_label_of_a_version_that_was_deleted_means_no_other(
    models: Path, tiny_models: None
) -> None:
    for version in (1, 2):
        set_label(models, "tiny", "stable", version)
    shutil.rmtree(models / "tiny" / "2")
    assert refusal(f"{models}/tiny:stable") == (
        f"{models}/tiny: label 'stable' means version 2, which was deleted; roll it back, or "
        "promote another"
    )


def test_folder_of_a_version_is_answered_with_what_was_meant(
    models: Path, tiny_models: None
) -> None:
    assert refusal(f"{models}/tiny/2") == (
        f"{models}/tiny: has no model '2'; did you mean {models}/tiny:2?"
    )


def test_version_that_was_copied_to_another_number_is_refused(
    models: Path, tiny_models: None
) -> None:
    shutil.copytree(models / "tiny" / "2", models / "tiny" / "5")
    with pytest.raises(WeightsFileError) as refused:
        load_reference(parse_reference(f"{models}/tiny"))
    assert str(refused.value) == (
        f"{weights_path(models, 'tiny', 5)}: expected version 5 of 'tiny', but it says that it is "
        "version 2 of 'tiny'; publish versions, do not copy them"
    )


@pytest.mark.parametrize(
    "text",
    [
        *("tiny:1", "tiny:stable", "tiny/1", "tiny/1/weights.npz"),
        *("{models}/tiny:1", "{models}/tiny:stable", "{models}/tiny/1", "{models}/tiny/1/"),
        "{models}/tiny/1/weights.npz",
    ],
)
def test_weights_file_is_found_in_whichever_way_it_is_named(
    models: Path, tiny_models: None, text: str
) -> None:
    set_label(models, "tiny", "stable", 1)
    assert find_weights(text.format(models=models), models=models) == weights_path(
        models, "tiny", 1
    )
    assert find_weights("tiny", models=models) == weights_path(models, "tiny", 2)


def test_weights_file_is_found_elsewhere_and_under_another_name(
    models: Path, tiny_models: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(weights_path(models, "tiny", 1), tmp_path / "best.npz")
    monkeypatch.chdir(tmp_path)
    for text in ("best.npz", "./best.npz", str(tmp_path / "best.npz")):
        assert find_weights(text, models=models).samefile(tmp_path / "best.npz")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("tiny:9", "{models}/tiny: has no version 9; it has 2, 1"),
        ("tiny/9", "{models}/tiny: has no version 9; it has 2, 1"),
        ("{models}/tiny:beta", "{models}/tiny: has no label 'beta'; it has none"),
        ("nowhere.npz", "nowhere.npz: expected a weights file, but there is none"),
        ("other/1", "{models}: has no model 'other'; it has tiny"),
        ("{models}/other/1", "{models}/other: there is no such folder"),
        ("a b", "model: expected NAME, NAME:VERSION or NAME:LABEL, got 'a b'"),
        ("long" * 2000 + "/1", "long"),
    ],
)
def test_what_names_no_weights_file_is_said(
    models: Path, tiny_models: None, text: str, sentence: str
) -> None:
    with pytest.raises(ModelError) as refused:
        find_weights(text.format(models=models), models=models)
    assert str(refused.value).startswith(sentence.format(models=models))
