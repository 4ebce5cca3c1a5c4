import itertools

import numpy as np
import pytest

from contenders import model_of
from mlpserve.model.compiled import CompiledModel
from mlpserve.model.metadata import Metadata
from mlpserve.trainer.comparison.speed import BATCH_SIZES, measure


class Machine:
    """A clock that goes on only while a network works: as long as its hidden layer is wide."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, second_per_unit: float) -> None:
        self.now_s = 0.0
        self.turns: list[int] = []
        self.batches: set[tuple[int, str]] = set()
        classify = CompiledModel.classify

        def slow(model: CompiledModel, batches: list[np.ndarray], workspace: object) -> object:
            hidden = model.metadata.layer_sizes[1]
            self.turns.append(hidden)
            self.batches.add((len(batches[0]), batches[0].dtype.name))
            self.now_s += hidden * second_per_unit
            return classify(model, batches, workspace)  # type: ignore[arg-type] # as it came

        monkeypatch.setattr(CompiledModel, "classify", slow)

    def clock(self) -> float:
        return self.now_s


@pytest.mark.parametrize(("second_per_unit", "rounds"), [(0.0001, 101), (0.002, 31), (0.1, 5)])
def test_speeds_are_those_of_the_clock_and_slow_networks_have_fewer_rounds(
    metadata: Metadata, monkeypatch: pytest.MonkeyPatch, second_per_unit: float, rounds: int
) -> None:
    machine = Machine(monkeypatch, second_per_unit=second_per_unit)
    models = [model_of(metadata.training, hidden=hidden) for hidden in (2, 8)]
    images = np.zeros((3, 4, 4), np.uint8)
    small, large = measure(models, images, machine.clock)
    assert (small.batch, large.batch) == BATCH_SIZES == (1, 1024)
    assert small.images_per_s == pytest.approx((0.5 / second_per_unit, 0.125 / second_per_unit))
    assert large.images_per_s == pytest.approx([1024 * each for each in small.images_per_s])
    assert [small.ratio, large.ratio] == pytest.approx([0.25, 0.25])
    assert small.rounds == large.rounds == rounds
    assert machine.batches == {(1, "uint8"), (1024, "uint8")}
    # In turn, and who is first changes: 2 8 8 2 2 8 ...
    timed = machine.turns[4 : 4 + 2 * rounds]
    assert [first == second for first, second in itertools.pairwise(timed)][1::2] == [True] * (
        rounds - 1
    )


def test_images_of_floats_are_timed_as_floats(
    metadata: Metadata, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch, second_per_unit=1)
    models = [model_of(metadata.training) for _ in range(2)]
    measure(models, np.zeros((2000, 16), np.int32), machine.clock)
    assert machine.batches == {(1, "float32"), (1024, "float32")}
