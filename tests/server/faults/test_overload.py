"""Twice as many calls as a server can answer: it answers as many as ever, and refuses the rest."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fault_table import NoteFault
from mlpserve.model.network import Layer, Network
from mlpserve.model.versions import publish as publish_model
from mlpserve.model.weights import Model
from open_load import Offered, OpenLoad, share_of

RunServer = Callable[..., AbstractContextManager[Any]]

WIDTH = 1500  # so that a server can be overloaded by a client that shares the machine with it
DEADLINE_S = 0.5
ROWS = 64
MAX_ROUNDS = 4
# Of the peak. On the public API calls wait in grpcio's pool first, and some expire there.
MIN_SHARE = {"--fast-lane": 0.85, "--no-fast-lane": 0.5}


@pytest.fixture
def slow_network(models: Path, model: Model) -> Network:
    """Return a network that takes a millisecond or so for a few images, and is published."""
    rng = np.random.default_rng(5)

    def layer(fan_in: int, fan_out: int, activation: str) -> Layer:
        weights = rng.normal(size=(fan_in, fan_out), scale=fan_in**-0.5).astype(np.float32)
        return Layer(weights, np.zeros(fan_out, np.float32), activation)

    network = Network(
        (layer(6, WIDTH, "tanh"), layer(WIDTH, WIDTH, "tanh"), layer(WIDTH, 3, "softmax"))
    )
    metadata = replace(
        model.metadata,
        layer_sizes=(6, WIDTH, WIDTH, 3),
        activations=("tanh", "tanh", "softmax"),
    )
    publish_model(models, Model(network, metadata))
    return network


def overloaded(load: OpenLoad, over_s: float) -> tuple[Offered, float]:
    """Return what became of twice as many calls a second as can be answered, and of how many."""
    peak_per_s = load.peak_per_s(over_s=2)
    return load.offer(per_s=2 * peak_per_s, over_s=over_s, deadline_s=DEADLINE_S), peak_per_s


def best_of(
    most: int, least: float, measure: Callable[[], tuple[Offered, float]]
) -> tuple[Offered, float]:
    """Measure until at least so much of the peak is answered, or so many times."""
    over, peak_per_s = measure()
    if most == 1 or over.answered_per_s > least * peak_per_s:
        return over, peak_per_s
    return best_of(most - 1, least, measure)


@pytest.mark.alone
@pytest.mark.parametrize("adapter", ["--fast-lane", "--no-fast-lane"])
def test_twice_the_load_costs_a_sixth_of_what_can_be_answered_and_half_on_the_public_api(
    run_server: RunServer,
    slow_network: Network,
    note_fault: NoteFault,
    request: pytest.FixtureRequest,
    *,
    adapter: str,
) -> None:
    over_s = 60 if request.config.getoption("--fault-table") else 5
    images = np.random.default_rng(6).integers(0, 256, (ROWS, 6), np.uint8)
    expected = slow_network.probabilities(images.astype(np.float32) / 255)
    with run_server("--workers", "1", adapter) as server:
        load = OpenLoad(server.address, images, expected)
        # A machine that does other things as well makes a round worse, and never better.
        least = MIN_SHARE[adapter]
        over, peak_per_s = best_of(MAX_ROUNDS, least, lambda: overloaded(load, over_s))
        after = load.offer(per_s=peak_per_s / 4, over_s=1, deadline_s=DEADLINE_S)
        load.close()
        server.stop()
    share = over.answered_per_s / peak_per_s
    refused_s = share_of(over.refused_s, 0.5)
    note_fault(
        f"twice the load that it can bear, for {over_s} s, each call with {DEADLINE_S} s; "
        f"`{adapter}`",
        over.figures,
        f"{share:.0%} of the peak of {peak_per_s * ROWS:,.0f} images/s is answered, the rest "
        f"refused, half of it within {1000 * refused_s:.0f} ms; answers take "
        f"{1000 * share_of(over.answered_s, 0.5):.0f} ms, p99 "
        f"{1000 * share_of(over.answered_s, 0.99):.0f} ms; all is well right after",
    )
    assert over.figures.wrong == 0
    assert share > least
    assert over.figures.lost < 0.3 * over.figures.sent
    assert share_of(over.answered_s, 0.99) < 2 * DEADLINE_S
    assert (after.figures.failed, after.figures.wrong, after.figures.lost) == (0, 0, 0)
