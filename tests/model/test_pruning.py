import os
import shutil
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlpserve.model.errors import LabelsFileError, ModelsFolderError, NoVersionError
from mlpserve.model.folder import versions, weights_path
from mlpserve.model.labels import labels_path, roll_back, set_label
from mlpserve.model.pruning import TEMPORARY_AGE_S, Pruned, prune
from mlpserve.model.versions import load_checked, publish
from mlpserve.model.weights import Model, load_model

Publisher: TypeAlias = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def five(models: Path, model: Model) -> Path:
    """Publish five versions; return their folder."""
    for _ in range(5):
        publish(models, model)
    return models / "tiny"


def spoil(models: Path, version: int) -> None:
    weights_path(models, "tiny", version).write_bytes(b"spoilt")


def make_old(path: Path) -> None:
    moment_s = path.stat().st_mtime - TEMPORARY_AGE_S - 60
    os.utime(path, (moment_s, moment_s))


def test_newest_versions_are_kept_and_older_ones_deleted(models: Path, five: Path) -> None:
    assert prune(models, "tiny", keep=2) == Pruned((3, 2, 1), ())
    assert versions(models, "tiny") == [5, 4]
    assert sorted(path.name for path in five.iterdir()) == [".lock", "4", "5"]
    assert prune(models, "tiny", keep=2) == Pruned((), ())


def test_dry_run_says_the_same_and_deletes_nothing(models: Path, five: Path) -> None:
    (five / ".deleted-0123").mkdir()
    said = prune(models, "tiny", keep=2, dry_run=True)
    assert versions(models, "tiny") == [5, 4, 3, 2, 1]
    assert prune(models, "tiny", keep=2) == said == Pruned((3, 2, 1), (five / ".deleted-0123",))


def test_labelled_version_and_the_one_to_go_back_to_are_kept(models: Path, five: Path) -> None:
    for version in (1, 2, 3):
        set_label(models, "tiny", "stable", version)
    assert prune(models, "tiny", keep=1) == Pruned((4, 1), ())
    assert versions(models, "tiny") == [5, 3, 2]
    assert roll_back(models, "tiny", "stable") == 2


def test_versions_that_cannot_be_used_drive_out_none_that_can(models: Path, five: Path) -> None:
    for version in (5, 4, 2):
        spoil(models, version)
    assert prune(models, "tiny", keep=1) == Pruned((2, 1), ())
    assert versions(models, "tiny") == [5, 4, 3]


def test_nothing_is_deleted_where_fewer_can_be_used_than_are_to_be_kept(
    models: Path, five: Path
) -> None:
    for version in (5, 4, 3):
        spoil(models, version)
    assert prune(models, "tiny", keep=3) == Pruned((), ())
    for version in (2, 1):
        spoil(models, version)
    assert prune(models, "tiny", keep=1) == Pruned((), ())


@settings(max_examples=30)
@given(
    keep=st.integers(1, 6),
    labels=st.lists(st.tuples(st.sampled_from(["stable", "canary"]), st.integers(1, 5))),
    broken=st.sets(st.integers(1, 5)),
)
def test_what_is_kept_is_what_is_promised(
    keep: int, labels: list[tuple[str, int]], broken: set[int], model: Model
) -> None:
    with TemporaryDirectory() as name:
        models = Path(name)
        for _ in range(5):
            publish(models, model)
        meant = {label: [v for other, v in labels if other == label] for label, _ in labels}
        for label, version in labels:
            set_label(models, "tiny", label, version)
        for version in broken:
            spoil(models, version)
        pruned = prune(models, "tiny", keep=keep)
        left = versions(models, "tiny")
        usable = [version for version in (5, 4, 3, 2, 1) if version not in broken]
        assert sorted((*left, *pruned.versions)) == [1, 2, 3, 4, 5]
        assert set(usable[:keep]) <= set(left)
        for numbers in meant.values():
            assert numbers[-1] in left
            earlier = [number for number in numbers if number != numbers[-1]]
            assert not earlier or earlier[-1] in left
        if len(usable) >= keep:
            protected = {number for numbers in meant.values() for number in numbers}
            assert all(v >= usable[keep - 1] or v in protected for v in left)
        else:
            assert left == [5, 4, 3, 2, 1]


def test_what_killed_trainers_left_is_deleted_after_a_day_and_what_deletions_left_at_once(
    models: Path, five: Path
) -> None:
    old, new, file = (five / f".unfinished-{name}" for name in ("old", "new", "file"))
    for folder in (old, new):
        folder.mkdir()
        (folder / "weights.npz").write_text("half")
    file.write_text("labels")
    half = five / ".deleted-0123"
    shutil.copytree(five / "1", half)
    (five / ".notes").write_text("nobody's")
    for path in (old, file, five / ".notes"):
        make_old(path)
    assert prune(models, "tiny", keep=5) == Pruned((), (half, file, old))
    assert sorted(path.name for path in five.iterdir() if path.name.startswith(".")) == [
        ".lock",
        ".notes",
        ".unfinished-new",
    ]


def test_link_is_deleted_and_what_it_leads_to_is_not(
    models: Path, five: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    (five / "1").rename(elsewhere)
    (five / "1").symlink_to(elsewhere)
    (five / ".deleted-0123").symlink_to(elsewhere)
    assert prune(models, "tiny", keep=4).versions == (1,)
    assert not os.path.lexists(five / "1")
    assert not os.path.lexists(five / ".deleted-0123")
    assert load_model(elsewhere / "weights.npz").metadata.version == 1


def test_who_has_loaded_a_version_keeps_it(models: Path, five: Path) -> None:
    loaded = load_model(weights_path(models, "tiny", 1))
    before = [parameter.copy() for parameter in loaded.network.parameters]
    prune(models, "tiny", keep=1)
    for one, other in zip(before, loaded.network.parameters, strict=True):
        np.testing.assert_array_equal(one, other)


def test_number_of_a_deleted_version_is_not_given_again(
    models: Path, five: Path, model: Model
) -> None:
    prune(models, "tiny", keep=1)
    assert publish(models, model).metadata.version == 6


@pytest.mark.exhaustive
def test_kill_at_any_moment_leaves_no_half_version(
    models: Path, tmp_path: Path, model: Model, publisher: Publisher
) -> None:
    for _ in range(2):
        publish(models, model)
    output = publisher("die-pruning", tmp_path / "moments", models).communicate(timeout=120)[0]
    left = []
    for moment in range(1, int(output) + 1):
        folder = tmp_path / "moments" / str(moment)
        left.append(versions(folder, "tiny"))
        for version in left[-1]:
            load_checked(folder, "tiny", version)
        prune(folder, "tiny", keep=1)
        # What was left behind is gone as well.
        assert sorted(path.name for path in (folder / "tiny").iterdir()) == [".lock", "2"]
    assert left.count([2, 1]) > 50
    assert left.count([2]) > 3


def test_damaged_labels_keep_everything(models: Path, five: Path) -> None:
    labels_path(models, "tiny").write_text("{")
    with pytest.raises(LabelsFileError):
        prune(models, "tiny", keep=1)
    assert versions(models, "tiny") == [5, 4, 3, 2, 1]


def test_model_that_is_not_there_is_said(models: Path, five: Path) -> None:
    with pytest.raises(NoVersionError, match="has no model 'other'; it has tiny"):
        prune(models, "other", keep=1)


def test_unwritable_folder_is_refused_and_left_as_it_is(
    public_folder: Path, model: Model, as_ordinary_user: Callable[[], AbstractContextManager[None]]
) -> None:
    for _ in range(2):
        publish(public_folder, model)
    with as_ordinary_user(), pytest.raises(ModelsFolderError) as refused:
        prune(public_folder, "tiny", keep=1)
    assert str(refused.value) == f"{public_folder}/tiny: cannot be written to: Permission denied"
    assert versions(public_folder, "tiny") == [2, 1]
