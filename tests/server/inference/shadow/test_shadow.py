"""A second version that classifies what the default version has answered."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mlpserve.model.compiled import CompiledModel, Images, Workspace
from mlpserve.model.weights import Model
from mlpserve.server.inference.registry import Registry, ServedModel
from mlpserve.server.inference.shadow import Shadow
from mlpserve.server.telemetry.counters import Counters
from mlpserve.server.telemetry.statistics import ShadowCounts, ShadowPair, shadow_counts

TIMEOUT_S = 60.0
PAIR = ShadowPair("tiny", 1, 2)
Rows = npt.NDArray[np.uint8]


def compiled(model: Model, version: int, **changes: Any) -> CompiledModel:
    return CompiledModel(
        replace(model, metadata=replace(model.metadata, version=version, **changes))
    )


@dataclass(frozen=True)
class Fixed:
    """What is served, and stays."""

    current: Registry


def served(stable: CompiledModel, canary: CompiledModel) -> Fixed:
    model = ServedModel((canary, stable), {"canary": 2}, default_version=1)
    return Fixed(Registry({"tiny": model}))


def labels(model: CompiledModel, rows: Images) -> npt.NDArray[np.int32]:
    return model.classify([rows], Workspace()).labels.copy()


def counted(counters: Counters) -> ShadowCounts:
    return shadow_counts(counters.snapshot()).get(PAIR, ShadowCounts())


def wait_for(counters: Counters, holds: Callable[[ShadowCounts], bool]) -> ShadowCounts:
    deadline_s = time.monotonic() + TIMEOUT_S
    while not holds(counts := counted(counters)):
        assert time.monotonic() < deadline_s, counts
    return counts


@pytest.fixture
def counters() -> Counters:
    return Counters()


@pytest.fixture
def run(counters: Counters) -> Iterator[Callable[..., Shadow]]:
    """Return a function that starts a shadow."""
    started: list[Shadow] = []

    def start(stable: CompiledModel, canary: CompiledModel, **options: Any) -> Shadow:
        shadow = Shadow(served(stable, canary), "canary", counters, counters.snapshot, **options)
        shadow.start()
        started.append(shadow)
        return shadow

    yield start
    for shadow in started:
        shadow.stop()


def test_all_images_are_compared_in_batches_of_any_size_and_both_types(
    run: Callable[..., Shadow],
    counters: Counters,
    stable: CompiledModel,
    canary: CompiledModel,
    rows: Rows,
) -> None:
    shadow = run(stable, canary)
    expected = int(np.count_nonzero(labels(stable, rows) == labels(canary, rows)))
    assert 0 < expected < len(rows)
    cuts = [0, 1, 2, 5, 70, 71, 135, 136, 300]
    floats = (rows / np.float32(255)).astype(np.float32)
    for images in (rows, floats):
        batches = [images[start:end] for start, end in pairwise(cuts)]
        shadow.offer(stable, [(batch, labels(stable, batch).tobytes()) for batch in batches])
    counts = wait_for(counters, lambda counts: counts.compared == 600)
    assert counts == ShadowCounts(compared=600, agreeing=2 * expected)


def test_what_another_version_answers_is_not_compared(
    run: Callable[..., Shadow],
    counters: Counters,
    stable: CompiledModel,
    canary: CompiledModel,
    rows: Rows,
) -> None:
    shadow = run(stable, canary)
    shadow.offer(canary, [(rows, labels(canary, rows).tobytes())])
    shadow.offer(stable, [(rows[:1], labels(stable, rows[:1]).tobytes())])
    assert wait_for(counters, lambda counts: counts.compared > 0).compared == 1


def test_each_image_is_compared_or_dropped_and_the_queue_is_bounded(
    run: Callable[..., Shadow],
    counters: Counters,
    stable: CompiledModel,
    canary: CompiledModel,
    rows: Rows,
) -> None:
    shadow = run(stable, canary, max_queue_bytes=600)
    for _ in range(2000):
        shadow.offer(stable, [(rows[:50], bytes(200))])
    counts = wait_for(counters, lambda counts: counts.compared + counts.dropped == 100_000)
    assert counts.dropped > 0
    assert counts.compared > 0


def test_a_batch_larger_than_the_queue_is_compared_where_nothing_waits(
    run: Callable[..., Shadow],
    counters: Counters,
    stable: CompiledModel,
    canary: CompiledModel,
    rows: Rows,
) -> None:
    shadow = run(stable, canary, max_queue_bytes=10)
    shadow.offer(stable, [(rows, labels(stable, rows).tobytes())])
    assert wait_for(counters, lambda counts: counts.compared > 0).compared == 300


class Failing(CompiledModel):
    """A version that breaks whenever it is asked."""

    def classify(self, *_: object) -> Any:
        raise RuntimeError("broken")


def test_a_shadow_that_fails_is_counted_and_logged_once(
    run: Callable[..., Shadow],
    counters: Counters,
    model: Model,
    rows: Rows,
    caplog: pytest.LogCaptureFixture,
) -> None:
    stable = compiled(model, 1)
    broken = Failing(replace(model, metadata=replace(model.metadata, version=2)))
    shadow = run(stable, broken)
    for count in (100, 200):
        shadow.offer(stable, [(rows[:100], bytes(400))])
        wait_for(counters, lambda counts, count=count: counts.failed == count)  # type: ignore[misc]
    assert counted(counters) == ShadowCounts(failed=200)
    assert caplog.text.count("the shadow tiny canary (version 2 beside 1) cannot classify") == 1


def test_classes_are_compared_by_their_names(
    run: Callable[..., Shadow],
    counters: Counters,
    model: Model,
    stable: CompiledModel,
    rows: Rows,
) -> None:
    first, second, third = model.metadata.class_labels
    renamed = compiled(model, 2, class_labels=(second, first, third))
    shadow = run(stable, renamed)
    found = labels(stable, rows)
    shadow.offer(stable, [(rows, found.tobytes())])
    counts = wait_for(counters, lambda counts: counts.compared == 300)
    assert counts.agreeing == np.count_nonzero(found == 2)


def test_versions_that_take_different_images_are_not_compared(
    counters: Counters, model: Model, stable: CompiledModel, rows: Rows
) -> None:
    wide = compiled(model, 2, input=replace(model.metadata.input, shape=(6,)))
    shadow = Shadow(served(stable, wide), "canary", counters, counters.snapshot)
    shadow.offer(stable, [(rows, bytes(1200))])
    shadow.start()
    shadow.stop()
    assert counted(counters) == ShadowCounts()
