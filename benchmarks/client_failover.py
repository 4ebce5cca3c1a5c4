"""What callers notice as servers behind a name are killed, added and silently cut off, under load.

    python benchmarks/client_failover.py

Prints a table: failed calls, the longest call, and seconds until all servers that are left have
their even share. It takes about a minute and a half.
"""

import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread
from typing import Final, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from fake_dns import FakeDns
from forgetful_proxy import ForgetfulProxy
from harness.errors import BenchmarkError
from harness.tables import markdown_table
from mlpserve.client import Client, ClientError
from mlpserve.model.inputs import InputSpec
from mlpserve.model.metadata import Metadata, Training
from mlpserve.model.network import Layer, Network
from mlpserve.model.versions import publish
from mlpserve.model.weights import Model

IMAGE: Final = np.zeros((1, 4), np.uint8)
CALLERS: Final = 4
PAUSE_S: Final = 0.01  # of a caller between two calls
WINDOW_S: Final = 1.0
STEP_S: Final = 0.25
TOLERANCE: Final = 0.3  # of an even share; chance alone moves one by a tenth
SETTLED_S: Final = 4.0
# Longer than it may take: half a minute for what is added.
AFTER_KILL_S: Final = 8.0
AFTER_ADDING_S: Final = 33.0
AFTER_CUT_S: Final = 12.0


class Call(NamedTuple):
    """A call: when it ended, the server that answered it or the error, how long it took."""

    ended_s: float
    server: str
    error: str
    took_s: float


@dataclass(frozen=True)
class Outcome:
    """What became of the calls after an event.

    Attributes:
        event: What was done.
        calls: How many ended after it.
        failed: How many of those failed.
        longest_s: The longest of them.
        even_after_s: Seconds until the servers that are to answer had even shares, and no other
            had any; None where that never was.
    """

    event: str
    calls: int
    failed: int
    longest_s: float
    even_after_s: float | None

    def row(self) -> list[str]:
        """Return the cells of the table."""
        even = "never" if self.even_after_s is None else f"{self.even_after_s:.1f} s"
        return [
            *(self.event, f"{self.calls:,}", str(self.failed)),
            *(f"{self.longest_s:.1f} s", even),
        ]


class Load:
    """Callers with a client each, who call until they are stopped."""

    def __init__(self, target: str) -> None:
        self.calls: list[Call] = []
        self._stopping = Event()
        self._callers = [Thread(target=self._call, args=(target,)) for _ in range(CALLERS)]
        for caller in self._callers:
            caller.start()

    def stop(self) -> None:
        """Wait until the calls that are under way have ended."""
        self._stopping.set()
        for caller in self._callers:
            caller.join()

    def _call(self, target: str) -> None:
        with Client(target) as client:
            while not self._stopping.wait(PAUSE_S):
                began_s, server, error = time.monotonic(), "", ""
                try:
                    server = client.predict(IMAGE).model_name
                except ClientError as failure:
                    error = str(failure)
                now_s = time.monotonic()
                self.calls.append(Call(now_s, server, error, now_s - began_s))


def outcome(event: str, calls: Sequence[Call], began_s: float, servers: set[str]) -> Outcome:
    """Return what became of the calls that ended after an event."""
    after = [call for call in calls if call.ended_s >= began_s]
    return Outcome(
        event=event,
        calls=len(after),
        failed=sum(bool(call.error) for call in after),
        longest_s=max(call.took_s for call in after),
        even_after_s=_even_after_s(after, began_s, servers),
    )


def _even_after_s(calls: Sequence[Call], began_s: float, servers: set[str]) -> float | None:
    """Return the seconds until a window after which all windows are even; None without one."""
    last_s = calls[-1].ended_s - WINDOW_S
    found: float | None = None
    start_s = began_s
    while start_s <= last_s:
        window = [call for call in calls if start_s <= call.ended_s < start_s + WINDOW_S]
        if not _is_even(Counter(call.server for call in window), servers):
            found = None
        elif found is None:
            found = start_s - began_s
        start_s += STEP_S
    return found


def _is_even(shares: Counter[str], servers: set[str]) -> bool:
    even = shares.total() / len(servers)
    return set(shares) == servers and all(
        abs(count - even) <= TOLERANCE * even for count in shares.values()
    )


def publish_tiny(folder: Path, name: str) -> None:
    """Publish a network by whose name the answers of its server are known."""
    network = Network((Layer(np.eye(4, 2, dtype=np.float32), np.zeros(2, np.float32), "softmax"),))
    training = Training(
        recipe="none",
        hyperparameters={},
        seed=0,
        data_name="none",
        data_digest="sha256:0",
        train_accuracy=0.5,
        test_accuracy=0.5,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        library_versions={},
    )
    metadata = Metadata(
        name=name,
        version=1,
        layer_sizes=network.layer_sizes,
        activations=network.activations,
        input=InputSpec((2, 2)),
        class_labels=("no", "yes"),
        training=training,
    )
    publish(folder / name, Model(network, metadata))


@contextmanager
def serving(folder: Path, name: str, address: str) -> Iterator["subprocess.Popen[str]"]:
    """Run a server as its users do."""
    publish_tiny(folder, name)
    host, _, port = address.rpartition(":")
    command = [sys.executable, "-m", "mlpserve.server", "--models", str(folder / name)]
    with subprocess.Popen(
        [*command, "--host", host, "--port", port], stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            line = process.stderr.readline() if process.stderr else ""
            if "ready: " not in line:
                raise BenchmarkError(f"the server did not start: {line}")
            yield process
        finally:
            process.kill()


def measure(note: Callable[[str], None] = print) -> list[Outcome]:
    """Return what became of the calls after each event."""
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        port, hidden = _free_port("127.0.0.1"), _free_port("127.0.0.1")
        killed = opened.enter_context(serving(folder, "a", f"127.0.0.1:{port}"))
        opened.enter_context(serving(folder, "b", f"127.0.0.2:{port}"))
        opened.enter_context(serving(folder, "c", f"127.0.0.1:{hidden}"))
        proxy = opened.enter_context(ForgetfulProxy(hidden, ("127.0.0.3", port)))
        dns = opened.enter_context(FakeDns("127.0.0.1", "127.0.0.2", "127.0.0.3"))
        load = Load(dns.target(port))
        opened.callback(load.stop)
        found = []

        def watch(event: str, act: Callable[[], object], wait_s: float, servers: str) -> None:
            note(event)
            began_s = time.monotonic()
            act()
            Event().wait(wait_s)
            found.append(outcome(event, list(load.calls), began_s, set(servers)))

        def add() -> None:
            opened.enter_context(serving(folder, "d", f"127.0.0.4:{port}"))
            dns.addresses = (*dns.addresses, "127.0.0.4")

        def kill() -> None:
            killed.kill()
            dns.addresses = dns.addresses[1:]  # as what watches over servers does

        watch("three servers start", lambda: None, SETTLED_S, "abc")
        watch("one is killed", kill, AFTER_KILL_S, "bc")
        watch("one is added", add, AFTER_ADDING_S, "bcd")
        watch("one is silently cut off", proxy.cut_off, AFTER_CUT_S, "bd")
        load.stop()
    return found


def _free_port(host: str) -> int:
    with socket.create_server((host, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def main() -> None:
    """Measure, and print the table."""
    outcomes = measure(lambda event: print(event, file=sys.stderr))
    headings = ["event", "calls", "failed", "longest call", "even after"]
    print(markdown_table(headings, [each.row() for each in outcomes]))


if __name__ == "__main__":
    main()
