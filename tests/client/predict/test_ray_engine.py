"""The driver of ``--engine ray`` where the cluster comes to an end too early; no Ray is needed."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mlpserve.client import ClientError
from mlpserve.client.predict import ray_coordinator
from mlpserve.client.predict.files import ImageFile
from mlpserve.client.predict.ray_coordinator import Coordinator
from mlpserve.client.predict.ray_engine import taken
from mlpserve.client.predict.shards import Shard, cut
from mlpserve.client.predict.tally import ResultsError, Tally


@pytest.fixture
def shards(tmp_path: Path) -> list[Shard]:
    """Return five shards of a file each."""
    paths = [tmp_path / f"{number}.npy" for number in range(5)]
    for path in paths:
        np.save(path, np.zeros((2, 2, 3), np.uint8))
    return cut([ImageFile(path, path.name, path.name) for path in paths])


def coordinator(monkeypatch: pytest.MonkeyPatch, rows: Iterator[dict[str, Any]]) -> Coordinator:
    """Return a coordinator of whose shards Ray Data makes these rows."""
    found = SimpleNamespace(iter_rows=lambda: rows)
    monkeypatch.setattr(ray_coordinator, "dataset", lambda *_: found)
    return Coordinator([], SimpleNamespace(), 1, 1)  # type: ignore[arg-type] # nobody reads it


def row(number: int) -> dict[str, Any]:
    return {"number": number, "tally": json.dumps(asdict(Tally())), "problem": ""}


def nothing() -> None:
    """Let the job go on."""


def test_shards_are_handed_over_once_whatever_their_order(
    monkeypatch: pytest.MonkeyPatch, shards: list[Shard]
) -> None:
    made = coordinator(monkeypatch, map(row, (3, 1, 3, 0, 4, 2)))
    found = [shard for shard, _ in taken(made.take, shards, nothing)]
    assert found == [shards[number] for number in (3, 1, 0, 4, 2)]


def test_a_cluster_that_ends_without_all_shards_is_said_to_with_their_names(
    monkeypatch: pytest.MonkeyPatch, shards: list[Shard]
) -> None:
    made = coordinator(monkeypatch, map(row, (2,)))
    found = taken(made.take, shards, nothing)
    assert next(found)[0] is shards[2]
    names = ", ".join(shards[number].name for number in (0, 1, 3))
    expected = f"without 4 of 5 parts: {names}, ...; --resume does them"
    with pytest.raises(ClientError, match=expected):
        next(found)


def test_a_fault_of_ray_data_is_said(monkeypatch: pytest.MonkeyPatch, shards: list[Shard]) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        yield row(0)
        raise RuntimeError("first line\nthe plan failed\n")

    found = taken(coordinator(monkeypatch, rows()).take, shards, nothing)
    assert next(found)[0] is shards[0]
    with pytest.raises(ResultsError, match="the cluster cannot go on: the plan failed"):
        next(found)


def test_a_cluster_that_does_nothing_is_asked_whether_it_still_can(shards: list[Shard]) -> None:
    asked = 0

    def lost() -> None:
        nonlocal asked
        asked += 1
        if asked == 3:
            raise ClientError("no node is left")

    with pytest.raises(ClientError, match="no node is left"):
        next(taken(lambda: ([], False), shards, lost))
