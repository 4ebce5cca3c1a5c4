import subprocess
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import TypeAlias

import pytest

from mlpserve.model.errors import WeightsFileError
from mlpserve.model.folder import versions
from mlpserve.model.labels import read_labels
from mlpserve.model.versions import load_checked, publish
from mlpserve.model.weights import Model

Publisher: TypeAlias = Callable[..., subprocess.Popen[str]]
StartTogether: TypeAlias = Callable[[list[subprocess.Popen[str]]], None]

KEPT = 3
PAUSE_S = 0.001  # in which others have a processor


def numbers_said(processes: list[subprocess.Popen[str]]) -> list[int]:
    """Return all numbers that processes have said, when they have ended well."""
    said = []
    for process in processes:
        said += [int(line) for line in process.communicate(timeout=240)[0].split()]
        assert process.returncode == 0
    return said


def usable_version(models: Path) -> int:
    """Return the newest version, which can be used unless it is an old one already."""
    newest = versions(models, "tiny")[0]
    try:
        return load_checked(models, "tiny", newest).metadata.version
    except WeightsFileError:
        assert newest not in versions(models, "tiny")[:KEPT]
        return newest


@pytest.mark.parametrize("count", [25, pytest.param(250, marks=pytest.mark.exhaustive)])
def test_no_version_is_lost_or_doubled_while_others_publish_label_and_prune(
    models: Path,
    model: Model,
    weights_file: Path,
    publisher: Publisher,
    start_together: StartTogether,
    *,
    count: int,
) -> None:
    publish(models, model)
    trainers = [publisher("publish", models, weights_file, count) for _ in range(2)]
    labellers = [publisher("label", models, f"p{number}", 20) for number in range(2)]
    pruners = [publisher("prune", models, KEPT, count // 2) for _ in range(2)]
    start_together([*trainers, *labellers, *pruners])
    seen = set()
    while any(process.poll() is None for process in trainers):
        seen.add(usable_version(models))
        Event().wait(PAUSE_S)
    published, pruned = numbers_said(trainers), numbers_said(pruners)
    assert numbers_said(labellers) == []

    newest = 2 * count + 1
    assert sorted(published) == list(range(2, newest + 1))
    assert sorted([*pruned, *versions(models, "tiny")]) == list(range(1, newest + 1))
    assert versions(models, "tiny")[:KEPT] == [newest, newest - 1, newest - 2]
    assert {label.version for label in read_labels(models, "tiny").values()} == {1}
    assert len(read_labels(models, "tiny")) == 40
    for version in versions(models, "tiny"):
        load_checked(models, "tiny", version)
    assert sorted(path.name for path in (models / "tiny").iterdir() if path.is_dir()) == sorted(
        map(str, versions(models, "tiny"))
    )
    assert len(seen) > 1
