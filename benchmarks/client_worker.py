"""Ways to call a server through the client library, each measured for a while.

    python client_worker.py HOST:PORT SECONDS

A process of its own. Prints one JSON object: a way's name to its figures. It also runs with the
library of an earlier release, and leaves out what that one does not have.
"""

import asyncio
import json
import resource
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

import grpc
import numpy as np

import mlpserve.client
from mlpserve.client import Client
from mlpserve.v1 import prediction_pb2

_VALUES: Final = 784
_SIZES: Final = (1, 64, 1024)
_THREADS: Final = 8
_COROUTINES: Final = 64
_BATCHES: Final = 16  # of a stream, or of an array that is split
_IMAGES: Final = np.random.default_rng(1).integers(0, 256, (_BATCHES * 1024, _VALUES), np.uint8)
_PATH: Final = "/mlpserve.v1.PredictionService/Predict"

Figures = dict[str, float]
# Makes some requests, and returns the seconds that each took, or one sum of all.
Round = Callable[[], list[float]]


def main() -> None:
    """Measure all ways there are, and print what was found."""
    target, seconds = sys.argv[1], float(sys.argv[2])
    found: dict[str, Figures] = {}
    with Client(target) as client, grpc.insecure_channel(target) as channel:
        for size in _SIZES:
            ways = _blocking_ways(client, channel, size)
            # In turns, so that a slow moment is everybody's.
            for part in [_measured(ways, seconds / 3) for _ in range(3)]:
                for name, figures in part.items():
                    found.setdefault(f"{name}, {size}", {}).update(figures)
    if hasattr(mlpserve.client, "AsyncClient"):
        found |= asyncio.run(_asynchronous(target, seconds))
    print(json.dumps(found))


def _blocking_ways(client: Client, channel: grpc.Channel, size: int) -> dict[str, Round]:
    images, many = _IMAGES[:size], _IMAGES[: _BATCHES * size]
    batches = [many[start : start + size] for start in range(0, len(many), size)]
    batch = prediction_pb2.ImageBatch(
        count=size, data_type=prediction_pb2.DATA_TYPE_UINT8, data=images.tobytes()
    )
    request = prediction_pb2.PredictRequest(images=batch).SerializeToString()
    raw: Callable[..., bytes] = channel.unary_unary(_PATH)

    def threads(predict: Callable[[Any], object]) -> list[float]:
        def one(_: int) -> None:
            for batch in batches:
                predict(batch)

        with ThreadPoolExecutor(_THREADS) as pool:
            return _shared(_BATCHES * _THREADS, lambda: list(pool.map(one, range(_THREADS))))

    ways: dict[str, Round] = {
        "raw call": lambda: [_timed(lambda: raw(request, timeout=30)) for _ in batches],
        "predict": lambda: [_timed(lambda: client.predict(images)) for _ in batches],
        f"predict, {_THREADS} threads": partial(threads, client.predict),
        "predict_stream": lambda: _shared(_BATCHES, lambda: list(client.predict_stream(batches))),
    }
    if hasattr(client, "batching"):
        ways[f"batching, {_THREADS} threads"] = partial(threads, client.batching().predict)
    if size > 1:
        ways["predict, split"] = lambda: _shared(
            _BATCHES, lambda: client.predict(many, max_images_per_request=size)
        )
    return ways


async def _asynchronous(target: str, seconds: float) -> dict[str, Figures]:
    found: dict[str, Figures] = {}
    async with mlpserve.client.AsyncClient(target) as client, client.batching() as joined:
        for size in _SIZES:
            way = f"async predict_stream, {size}"
            found[way] = await _awaited(partial(_stream, client, size), _BATCHES, seconds)
            if size > 1:
                split = partial(
                    client.predict, _IMAGES[: _BATCHES * size], max_images_per_request=size
                )
                found[f"async predict, split, {size}"] = await _awaited(split, _BATCHES, seconds)
        for name, predict in (("predict", client.predict), ("batching", joined.predict)):
            way = f"async {name}, {_COROUTINES} coroutines, 1"
            calls = _BATCHES * _COROUTINES
            found[way] = await _awaited(partial(_all_at_once, predict), calls, seconds)
    return found


async def _stream(client: "mlpserve.client.AsyncClient", size: int) -> None:
    batches = (_IMAGES[start : start + size] for start in range(0, _BATCHES * size, size))
    async for _ in client.predict_stream(batches):
        pass


async def _all_at_once(predict: Callable[..., Awaitable[Any]]) -> None:
    async def one(number: int) -> None:
        for _ in range(_BATCHES):
            await predict(_IMAGES[number : number + 1])

    await asyncio.gather(*map(one, range(_COROUTINES)))


async def _awaited(work: Callable[[], Awaitable[object]], calls: int, seconds: float) -> Figures:
    await work()
    latencies: list[float] = []
    before, started = _used(), time.perf_counter()
    while time.perf_counter() - started < seconds:
        began = time.perf_counter()
        await work()
        latencies += [(time.perf_counter() - began) / calls] * calls
    return _figures(latencies, time.perf_counter() - started, before)


def _measured(ways: dict[str, Round], seconds: float) -> dict[str, Figures]:
    found = {}
    for name, work in ways.items():
        work()
        latencies: list[float] = []
        before, started = _used(), time.perf_counter()
        while time.perf_counter() - started < seconds:
            latencies += work()
        found[name] = _figures(latencies, time.perf_counter() - started, before)
    return found


def _figures(latencies: list[float], duration_s: float, before: tuple[float, int]) -> Figures:
    calls = len(latencies)
    cpu_s, faults = (now - then for now, then in zip(_used(), before, strict=True))
    return {
        "calls_per_s": calls / duration_s,
        "p50_s": statistics.median(latencies),
        "cpu_s": cpu_s / calls,
        "faults": faults / calls,
    }


def _used() -> tuple[float, int]:
    """Return the processor time and the page faults of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime, usage.ru_minflt


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _shared(calls: int, work: Callable[[], object]) -> list[float]:
    """Return the time of some calls that overlap, in equal shares."""
    return [_timed(work) / calls] * calls


if __name__ == "__main__":
    main()
