"""Versions come, go, break and are exchanged while clients ask, and no client notices."""

import os
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from itertools import count, cycle, groupby
from pathlib import Path
from threading import Condition, Event, Thread
from typing import Any, Final, NamedTuple

import grpc
import numpy as np
import pytest

from mlpserve.model.folder import WEIGHTS_FILE_NAME, weights_path
from mlpserve.model.labels import roll_back, set_label
from mlpserve.model.metadata import Metadata
from mlpserve.model.network import Layer, Network
from mlpserve.model.versions import publish
from mlpserve.model.weights import Model
from mlpserve.v1 import prediction_pb2, prediction_pb2_grpc

TIMEOUT_S: Final = 60.0
CLIENTS: Final = 4
CHANNELS: Final = 3  # of each client; each may lead to another worker
IMAGES: Final = np.random.default_rng(1).integers(0, 256, (5, 6), np.uint8)
# As our client has it.
RETRYING: Final = [
    (
        "grpc.service_config",
        '{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 5, "initialBackoff": '
        '"0.1s", "maxBackoff": "1s", "backoffMultiplier": 3, "retryableStatusCodes": '
        '["UNAVAILABLE"]}}]}',
    ),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]

RunServer = Callable[..., AbstractContextManager[Any]]


class Asked(NamedTuple):
    """What clients ask for."""

    name: str
    label: str = ""


STABLE = Asked("labelled")  # the default label is "stable"
CANARY = Asked("labelled", "canary")
NEWEST = Asked("plain")
ALL = (STABLE, CANARY, NEWEST)


def network(name: str, version: int) -> Network:
    """Return the network of a version, of 6-4-3, each another one."""
    rng = np.random.default_rng([len(name), version])

    def layer(fan_in: int, fan_out: int, activation: str) -> Layer:
        weights = rng.normal(size=(fan_in, fan_out)).astype(np.float32)
        return Layer(weights, rng.normal(size=fan_out).astype(np.float32), activation)

    return Network((layer(6, 4, "tanh"), layer(4, 3, "softmax")))


def expected(name: str, version: int) -> "np.ndarray[Any, np.dtype[np.float32]]":
    return network(name, version).probabilities(IMAGES.astype(np.float32) / 255)


class Client:
    """Asks in turn for all that there is to ask, over several connections, until it is stopped.

    Attributes:
        seen: The versions that answered, by what was asked, in their order.
        failures: The calls that failed, and the answers that were wrong.
    """

    def __init__(self, address: str, changed: Condition, options: list[tuple[str, Any]]) -> None:
        self.seen: dict[Asked, list[int]] = {asked: [] for asked in ALL}
        self.failures: list[str] = []
        self._changed = changed
        self._stopping = Event()
        self._channels = [
            grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1), *options])
            for _ in range(CHANNELS)
        ]
        self._expected: dict[tuple[str, int], Any] = {}
        self._thread = Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()
        for channel in self._channels:
            channel.close()

    def _run(self) -> None:
        stubs = cycle([prediction_pb2_grpc.PredictionServiceStub(each) for each in self._channels])
        for asked in cycle(ALL):
            if self._stopping.is_set():
                break
            # Not always the same connection for the same question.
            for _ in range(2):
                self._ask(next(stubs), asked)

    def _ask(self, stub: prediction_pb2_grpc.PredictionServiceStub, asked: Asked) -> None:
        batch = prediction_pb2.ImageBatch(
            count=len(IMAGES), data_type=prediction_pb2.DATA_TYPE_UINT8, data=IMAGES.tobytes()
        )
        request = prediction_pb2.PredictRequest(
            model_name=asked.name, model_label=asked.label, images=batch
        )
        try:
            response = stub.Predict(request, timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            self.failures.append(f"{asked}: {error}")
            return
        if not self._is_right(response):
            self.failures.append(f"{asked}: not what version {response.model_version} says")
        with self._changed:
            self.seen[asked].append(response.model_version)
            self._changed.notify_all()

    def _is_right(self, response: prediction_pb2.PredictResponse) -> bool:
        key = (response.model_name, response.model_version)
        if key not in self._expected:
            self._expected[key] = expected(*key)
        found = np.frombuffer(response.probabilities, "<f4").reshape(len(IMAGES), -1)
        return np.allclose(found, self._expected[key], rtol=0, atol=1e-5)


class Load:
    """Clients that ask all the time."""

    def __init__(self, address: str, options: list[tuple[str, Any]]) -> None:
        self._changed = Condition()
        self.clients = [Client(address, self._changed, options) for _ in range(CLIENTS)]

    @property
    def calls(self) -> int:
        return sum(len(seen) for client in self.clients for seen in client.seen.values())

    @property
    def failures(self) -> list[str]:
        return [failure for client in self.clients for failure in client.failures]

    def wait_for(self, asked: Asked, version: int) -> None:
        """Wait until every client has got an answer of this version."""

        def all_see() -> bool:
            return all(client.seen[asked][-1:] == [version] for client in self.clients)

        with self._changed:
            assert self._changed.wait_for(all_see, TIMEOUT_S), (asked, version, self.failures[:3])

    def stop(self) -> None:
        for client in self.clients:
            client.stop()


class Changes:
    """Changes what is in a models folder, step by step, and waits until clients see each change.

    Attributes:
        meant: The versions that were to answer each question, one after another.
        counts: How often each kind of change was made.
    """

    def __init__(self, models: Path, metadata: Metadata) -> None:
        self._models = models
        self._metadata = metadata
        self._damages = cycle([cut_short, flip_a_bit, write_nonsense])
        self.counts: Counter[str] = Counter()
        for name in ("labelled", "plain"):
            self.publish(name)
        for label in ("stable", "canary"):
            set_label(models, "labelled", label, 1)
        self.meant: dict[Asked, list[int]] = {asked: [1] for asked in ALL}

    def publish(self, name: str) -> int:
        """Publish another version, and return its number."""
        version = self._newest(name) + 1
        metadata = replace(self._metadata, name=name, version=version)
        published = publish(self._models, Model(network(name, version), metadata))
        assert published.metadata.version == version
        self.counts["published"] += 1
        return version

    def publish_broken(self, name: str) -> int:
        """Let a version with a damaged file appear in one step, and return its number."""
        version = self._newest(name) + 1
        hidden = self._models / name / ".hidden"
        shutil.copytree(self._folder(name, version - 1), hidden)
        next(self._damages)(hidden / WEIGHTS_FILE_NAME)
        hidden.rename(self._folder(name, version))
        self.counts["published broken"] += 1
        return version

    def damage(self, name: str, version: int) -> None:
        """Damage the file of a version that is served."""
        next(self._damages)(weights_path(self._models, name, version))
        self.counts["damaged"] += 1

    def delete(self, name: str, version: int) -> None:
        """Delete a version."""
        shutil.rmtree(self._folder(name, version))
        self.counts["deleted"] += 1

    def label(self, label: str, version: int) -> None:
        """Have a label mean a version."""
        set_label(self._models, "labelled", label, version)
        self.counts["labelled"] += 1

    def roll_back(self, label: str) -> int:
        """Roll a label back, and return what it means now."""
        self.counts["rolled back"] += 1
        return roll_back(self._models, "labelled", label)

    def mean(self, load: "Load", asked: Asked, version: int) -> None:
        """Wait until all clients are answered by this version."""
        self.meant[asked].append(version)
        load.wait_for(asked, version)

    def _newest(self, name: str) -> int:
        numbers = [int(path.name) for path in (self._models / name).glob("[1-9]*")]
        return max(numbers, default=0)

    def _folder(self, name: str, version: int) -> Path:
        return weights_path(self._models, name, version).parent


def cut_short(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def write_nonsense(path: Path) -> None:
    path.write_bytes(b"\x80\x04nonsense")


def change_everything_once(changes: Changes, load: Load, address: str) -> None:
    """Publish, label, promote, roll back, damage and delete versions of two models."""
    before = changes.meant[STABLE][-1]
    new = changes.publish("labelled")
    changes.label("canary", new)
    changes.mean(load, CANARY, new)
    changes.label("stable", new)
    changes.mean(load, STABLE, new)
    assert changes.roll_back("stable") == before
    changes.mean(load, STABLE, before)
    changes.label("stable", new)
    changes.mean(load, STABLE, new)

    broken = changes.publish_broken("labelled")
    changes.label("stable", broken)  # in vain: it goes on meaning what it meant
    wait_until(lambda: broken in quarantined(address, "labelled"))
    assert changes.roll_back("stable") == new
    changes.damage("labelled", new)  # in vain: it is served from a copy
    changes.delete("labelled", before)
    wait_until(lambda: before not in served(address, "labelled"))

    last = changes.meant[NEWEST][-1]
    newest = changes.publish("plain")
    changes.mean(load, NEWEST, newest)
    broken = changes.publish_broken("plain")
    wait_until(lambda: broken in quarantined(address, "plain"))
    changes.delete("plain", newest)
    changes.mean(load, NEWEST, last)
    changes.mean(load, NEWEST, changes.publish("plain"))
    changes.delete("plain", last)


def described(address: str, name: str) -> prediction_pb2.Model:
    options = [("grpc.use_local_subchannel_pool", 1), *RETRYING]
    with grpc.insecure_channel(address, options) as channel:
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        request = prediction_pb2.GetModelRequest(model_name=name)
        return stub.GetModel(request, timeout=TIMEOUT_S, wait_for_ready=True).model


def served(address: str, name: str) -> list[int]:
    return [version.version for version in described(address, name).versions]


def quarantined(address: str, name: str) -> list[int]:
    return [version.version for version in described(address, name).quarantined_versions]


def wait_until(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + TIMEOUT_S
    while not holds():
        assert time.monotonic() < deadline_s


@contextmanager
def load_on(address: str, options: list[tuple[str, Any]]) -> Iterator[Load]:
    load = Load(address, options)
    try:
        yield load
    finally:
        load.stop()


def open_files(server: Any) -> int:
    """Return how many files the processes of a server have open together."""
    return sum(
        len(list(Path(f"/proc/{process_id}/fd").iterdir()))
        for process_id in (server.process.pid, *server.workers())
    )


def report(load: Load, changes: Changes, more: str = "") -> None:
    versions = {(asked.name, version) for asked in ALL for version in changes.meant[asked]}
    made = ", ".join(f"{number} {kind}" for kind, number in changes.counts.items())
    sys.stdout.write(
        f"{load.calls} calls of {CLIENTS} clients over {CLIENTS * CHANNELS} connections, "
        f"{len(load.failures)} failures{more}; versions that answered: "
        f"{len(versions)}; changes: {made}\n"
    )


def assert_nobody_noticed(load: Load, changes: Changes) -> None:
    assert load.failures == []
    for client in load.clients:
        for asked, seen in client.seen.items():
            # No version appears and vanishes: each comes when it is meant to, and once.
            assert [version for version, _ in groupby(seen)] == changes.meant[asked]


@pytest.mark.exhaustive
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("duration_s", [0.0, 60.0], ids=["once", "a minute"])
def test_no_request_fails_and_no_version_flickers_whatever_happens_to_the_models(
    run_server: RunServer, models: Path, metadata: Metadata, duration_s: float
) -> None:
    changes = Changes(models, metadata)
    with run_server("--workers", "2") as server:
        with load_on(server.address, []) as load:
            for asked in ALL:
                load.wait_for(asked, 1)
            change_everything_once(changes, load, server.address)
            before = open_files(server)
            end_s = time.monotonic() + duration_s
            for _ in count():
                change_everything_once(changes, load, server.address)
                if time.monotonic() > end_s:
                    break
            after = open_files(server)
        server.stop()
    report(load, changes, f", open files of all processes {before} and later {after}")
    assert_nobody_noticed(load, changes)
    # What is not served any more is given back; connections of ours may be under way.
    assert after - before < 10


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.exhaustive
@pytest.mark.parametrize("duration_s", [0.0, 60.0], ids=["once", "a minute"])
def test_killed_workers_cost_a_retry_and_no_more(
    run_server: RunServer, models: Path, metadata: Metadata, duration_s: float
) -> None:
    changes = Changes(models, metadata)
    with run_server("--workers", "2") as server:
        with (
            load_on(server.address, RETRYING) as load,
            killing_workers(server) as killed,
        ):
            end_s = time.monotonic() + duration_s
            for _ in count():
                change_everything_once(changes, load, server.address)
                if killed and time.monotonic() > end_s:
                    break
        server.stop()
    report(load, changes, f", {len(killed)} workers killed")
    assert_nobody_noticed(load, changes)


@contextmanager
def killing_workers(server: Any) -> Iterator[list[int]]:
    """Kill one worker after another, each once both are there, while the block runs."""
    killed: list[int] = []
    stopping = Event()
    rng = np.random.default_rng(2)

    def kill() -> None:
        while not stopping.wait(rng.uniform(0.5, 2)):
            workers = server.workers()
            if len(workers) == 2 and server.listeners() == 2:
                killed.append(workers[rng.integers(2)])
                os.kill(killed[-1], signal.SIGKILL)

    thread = Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        stopping.set()
        thread.join()
