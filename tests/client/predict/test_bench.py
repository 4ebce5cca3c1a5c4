"""The command that measures a running server."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import pytest

from mlpserve.client import AsyncClient
from mlpserve.client.predict.load import Caller
from mlpserve.client.testing import FakeServer
from mlpserve.server.server import Server
from warm_parent import WarmParent

Done = subprocess.CompletedProcess[str]
QUICK = ("--seconds", "0.2", "--images", "1,8", "--concurrency", "2", "--load", "50")


@pytest.fixture
def bench(warm_client: WarmParent) -> Callable[..., Done]:
    """Return a function that runs the command."""

    def run(*arguments: str) -> Done:
        command = [sys.executable, "-m", "mlpserve.client", "bench", *arguments]
        return warm_client.run(command, timeout_s=60)

    return run


def test_a_table_shows_each_size_of_call_in_both_loops(
    bench: Callable[..., Done], server: Server
) -> None:
    done = bench("--target", server.address, *QUICK)
    assert done.returncode == 0, done.stderr
    title, _, headings, *rows = done.stdout.splitlines()
    assert title.startswith(f"tiny version 2 at {server.address}, over 1 connection(s); ")
    assert headings.split()[:5] == ["images", "loop", "load", "calls", "failed"]
    assert [row.split()[:2] for row in rows] == [
        *(["1", "closed"], ["1", "open"], ["8", "closed"], ["8", "open"])
    ]


def test_json_says_the_same(bench: Callable[..., Done], server: Server) -> None:
    done = bench("--target", server.address, "--output", "json", "--connections", "2", *QUICK)
    found = json.loads(done.stdout)
    assert (found["model"], found["version"], found["input_shape"]) == ("tiny", 2, [2, 3])
    closed, opened, *_ = found["results"]
    assert (closed["concurrency"], closed["failed"], opened["failed"]) == (2, 0, 0)
    assert opened["rate_per_s"] == pytest.approx(closed["calls_per_s"] / 2)
    for result in found["results"]:
        latencies = list(result["latency_ms"].values())
        assert latencies == sorted(latencies)
        assert result["calls"] > 0
        assert result["images_per_s"] == pytest.approx(result["calls_per_s"] * result["images"])


def test_a_stall_is_counted_by_all_calls_that_were_due_meanwhile() -> None:
    """The fault that is called coordinated omission."""
    stall_s, rate_per_s = 0.5, 100.0

    async def measured(fake: FakeServer, loop: str) -> dict[str, float]:
        async with AsyncClient(fake.target) as client:
            await client.predict(np.zeros((1, 4), np.uint8))
            caller = Caller([client], np.zeros((1, 4), np.uint8), model="", version=0)
            if loop == "closed":
                ends = asyncio.create_task(caller.closed(1, 1.0))
            else:
                ends = asyncio.create_task(caller.open(rate_per_s, 1.0))
            await asyncio.sleep(0.5)  # also beyond the warm-up
            block(stall_s)
            return (await ends).latency_ms

    def block(duration_s: float) -> None:
        """Keep the program from sending and receiving, as a stalled network would."""
        ends_s = time.monotonic() + duration_s
        while time.monotonic() < ends_s:
            pass

    with FakeServer() as fake:
        closed = asyncio.run(measured(fake, "closed"))
        opened = asyncio.run(measured(fake, "open"))
    # One call of hundreds in the one, half of all in the other: each waited a while of it.
    assert closed["p90"] < 100 < closed["max"]
    assert opened["p90"] > 300


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--images", "0"), "expected a number above 0, got '0'"),
        (("--concurrency", "1,,2"), "invalid list of numbers value: '1,,2'"),
        (("--seconds", "inf"), "expected a number above 0, got 'inf'"),
        (("--rate", "nan"), "expected a number above 0, got 'nan'"),
    ],
)
def test_a_flag_out_of_its_range_is_named(
    bench: Callable[..., Done], arguments: tuple[str, str], message: str
) -> None:
    done = bench(*arguments)
    assert done.returncode == 2
    assert f"argument {arguments[0]}: {message}" in done.stderr


def test_where_no_server_is_the_error_is_a_line(bench: Callable[..., Done]) -> None:
    done = bench("--target", "127.0.0.1:9", "--timeout", "0.5")
    assert done.returncode == 1
    assert done.stderr.startswith("mlpserve-predict bench: 127.0.0.1:9: ")
    assert len(done.stderr.splitlines()) == 1


def test_calls_that_fail_are_counted_and_one_is_shown(
    bench: Callable[..., Done], server: Server
) -> None:
    quick = ("--seconds", "0.1", "--concurrency", "1", "--load", "50")  # of nothing
    done = bench("--target", server.address, "--images", "65", "--output", "json", *quick)
    assert done.returncode == 0, done.stderr
    [found] = json.loads(done.stdout)["results"]
    assert found["calls"] == 0
    assert found["failed"] > 0
    assert found["latency_ms"]["p50"] is None
    assert done.stderr.startswith(f"calls of 65 images failed, as this: {server.address}: INVALID")
