"""Measures all servers, in turns, in every setting."""

import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from harness.errors import BenchmarkError
from harness.rounds import interleave, run_process
from mlpserve.model.weights import Model
from servers.load import Load, run_load
from servers.networks import publish_random
from servers.participants import ECHO, PARTICIPANTS, Participant
from servers.ports import free_ports
from servers.processes import Running, running
from servers.protocols import Images

_IN_PROCESS: Final = Path(__file__).parent / "programs" / "in_process.py"
_SAMPLE_IMAGES: Final = 64
_TOLERANCE: Final = 1e-4
_SEED: Final = 5
_PORTS_EACH: Final = 3  # some peers cannot be kept from opening a second one
_WARM_UP_ROUNDS: Final = 2
_IN_PROCESS_S: Final = 0.5
_TIMEOUT_S: Final = 60


@dataclass(frozen=True)
class Cell:
    """One setting: a network, the images of a request, and the requests at a time.

    These are ``calls`` on each of ``concurrency`` connections.
    """

    network: tuple[int, ...]
    batch: int
    concurrency: int
    calls: int = 1

    @property
    def at_a_time(self) -> str:
        """Return the requests at a time as text: "32", or "8 x 8" where connections carry 8."""
        return str(self.concurrency) if self.calls == 1 else f"{self.concurrency} x {self.calls}"


@dataclass(frozen=True)
class Measurement:
    """What one server did in one setting in one round.

    Attributes:
        images_per_s: Classified images a second.
        p50_s: The median time to an answer.
        p99_s: The time in which 99 of 100 answers came.
        cpu_s: Processor time of the server, for each request.
    """

    images_per_s: float
    p50_s: float
    p99_s: float
    cpu_s: float


@dataclass(frozen=True)
class Start:
    """How a server started: seconds to its first answer, resident bytes after it."""

    start_s: float
    memory_bytes: int


@dataclass(frozen=True)
class Found:
    """Everything that was measured.

    Attributes:
        cells: For each setting and participant its rounds.
        starts: For each network and participant how it started.
        in_process: Images a second of the forward pass alone, by network, batch and threads.
    """

    cells: Mapping[tuple[Cell, str], Sequence[Measurement]]
    starts: Mapping[tuple[tuple[int, ...], str], Start]
    in_process: Mapping[tuple[tuple[int, ...], int, int], Sequence[float]]


@dataclass(frozen=True)
class Contest:
    """What is to be measured.

    Attributes:
        names: The keys of the participants.
        networks: Layer sizes of each.
        batches: Images a request.
        concurrencies: Connections, and the requests that each carries at a time.
        repeats: Rounds.
        seconds: So long each measurement takes, about.
        before_each: Called before each measurement.
        say: Takes a line of progress.
    """

    names: Sequence[str]
    networks: Sequence[tuple[int, ...]]
    batches: Sequence[int]
    concurrencies: Sequence[tuple[int, int]]
    repeats: int
    seconds: float
    before_each: Callable[[], None]
    say: Callable[[str], None]

    def run(self) -> Found:
        """Measure everything.

        Raises:
            BenchmarkError: A server does not start, fails, or answers something else.
        """
        found = Found({}, {}, {})
        for network in self.networks:
            with tempfile.TemporaryDirectory() as folder:
                part = self._measure_network(network, Path(folder))
            found = Found(
                {**found.cells, **part.cells},
                {**found.starts, **part.starts},
                {**found.in_process, **part.in_process},
            )
        return found

    def _measure_network(self, network: tuple[int, ...], folder: Path) -> Found:
        models = folder / "models"
        model = publish_random(models, network)
        in_process = self._in_process(network, models)
        cells: dict[tuple[Cell, str], Sequence[Measurement]] = {}
        with ExitStack() as stack:
            servers = {
                name: stack.enter_context(started(name, models, folder, model))
                for name in self.names
            }
            for batch, (connections, calls) in product(self.batches, self.concurrencies):
                cell = Cell(network, batch, connections, calls)
                measured = interleave(
                    list(servers),
                    self.repeats,
                    lambda name, _, cell=cell: self._measure(cell, name, servers[name]),  # type: ignore[misc]
                )
                cells.update({(cell, name): rounds for name, rounds in measured.items()})
        starts = {(network, name): server.start for name, server in servers.items()}
        return Found(cells, starts, in_process)

    def _in_process(
        self, network: tuple[int, ...], models: Path
    ) -> dict[tuple[tuple[int, ...], int, int], list[float]]:
        def measure(setting: tuple[int, int], _: int) -> float:
            self.before_each()
            batch, threads = setting
            return forward(models, batch, threads).images_per_s

        measured = interleave(list(product(self.batches, (1, 2))), self.repeats, measure)
        return {(network, *setting): rates for setting, rates in measured.items()}

    def _measure(self, cell: Cell, name: str, server: "Server") -> Measurement:
        self.before_each()
        found = server.measure(cell, self.seconds)
        sizes = "-".join(map(str, cell.network))
        self.say(
            f"{sizes}, {cell.batch} images, {cell.at_a_time} at a time, "
            f"{PARTICIPANTS[name].title}: {found.images_per_s:.0f} images/s"
        )
        return found


class Server:
    """A participant that runs, and answers rightly.

    Args:
        participant: Who it is.
        port: Where it serves.
        process: What runs.
    """

    def __init__(self, participant: Participant, port: int, process: Running) -> None:
        self.process = process
        self.start = Start(process.start_s, process.memory_bytes)
        self._participant = participant
        self._port = port
        self._prepared: dict[tuple[int, int], tuple[bytes, int]] = {}

    def measure(self, cell: Cell, seconds: float) -> Measurement:
        """Wake it, and load it for about so long."""
        at_once = cell.concurrency * cell.calls
        with self.process.awake():
            warm_up = self.load(cell, _WARM_UP_ROUNDS * at_once)
            rate = warm_up.requests / warm_up.duration_s
            cpu_before_s = self.process.cpu_s()
            load = self.load(cell, max(int(rate * seconds), 2 * at_once))
            cpu_s = self.process.cpu_s() - cpu_before_s
        return Measurement(
            images_per_s=load.requests * cell.batch / load.duration_s,
            p50_s=load.p50_s,
            p99_s=load.p99_s,
            cpu_s=cpu_s / load.requests,
        )

    def load(self, cell: Cell, requests: int) -> Load:
        """Send it so many requests."""
        protocol = self._participant.protocol
        key = (cell.network[0], cell.batch)
        if key not in self._prepared:
            request = protocol.request(_images(*reversed(key)))
            expected = protocol.body_bytes(protocol.ask(self._port, request))
            self._prepared[key] = (protocol.body(request), expected)
        body, expected = self._prepared[key]
        return run_load(
            f"http://127.0.0.1:{self._port}{protocol.path}",
            body,
            protocol.load_options,
            concurrency=cell.concurrency if protocol.multiplexes else cell.concurrency * cell.calls,
            requests=requests,
            expected_bytes=expected,
            calls=cell.calls if protocol.multiplexes else 1,
        )


class Forward(NamedTuple):
    """The forward pass alone: images a second, and the processor time of each."""

    images_per_s: float
    cpu_s_per_image: float


def forward(models: Path, batch: int, threads: int) -> Forward:
    """Measure the forward pass alone, on so many threads."""
    arguments = [str(models), str(batch), str(threads), str(_IN_PROCESS_S)]
    command = [sys.executable, str(_IN_PROCESS), *arguments]
    return Forward(**run_process(command, threads=1, timeout_s=_TIMEOUT_S))


@contextmanager
def started(name: str, models: Path, folder: Path, model: Model) -> Iterator[Server]:
    """Start a participant on a port of its own, and compare a sample of its answers."""
    participant, port = PARTICIPANTS[name], free_ports(_PORTS_EACH)
    images = _images(_SAMPLE_IMAGES, model.network.layer_sizes[0])
    request = participant.protocol.request(images)
    command = participant.command(models, port)
    with running(
        command, folder / f"{name}.log", lambda: participant.protocol.ask(port, request)
    ) as process:
        if name != ECHO:
            _check(participant, participant.protocol.ask(port, request), images, model)
        with process.awake():  # and asleep from then on, until its turn
            server = Server(participant, port, process)
        yield server


def _check(participant: Participant, response: bytes, images: Images, model: Model) -> None:
    expected = model.network.probabilities(model.metadata.input.scale(images))
    found = np.frombuffer(participant.protocol.probabilities(response), "<f4")
    # Written so that a NaN, which compares false, is refused as well.
    if found.size != expected.size or not (
        np.abs(found.reshape(expected.shape) - expected).max() < _TOLERANCE
    ):
        raise BenchmarkError(f"{participant.title} answers something else")


def _images(count: int, values: int) -> Images:
    return np.random.default_rng(_SEED).integers(0, 256, (count, values), np.uint8)
