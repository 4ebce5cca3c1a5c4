"""All abuses of a server at once, beside honest clients: what those notice, and what is left of it.

.venv/bin/python benchmarks/serving_abuse.py --minutes 10
"""

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Final, Self

import numpy as np
import trustme

from harness.errors import BenchmarkError
from harness.noise import NoiseMeter
from harness.tables import markdown_table
from servers import honest
from servers.abuses import grpc_calls, grpc_messages, http_calls, operations
from servers.abuses.abuse import Abuse, Abusers, Plan, Target
from servers.honest import GrpcAsk, Honest, HttpAsk, Outcome
from servers.networks import publish_random
from servers.ports import free_ports
from servers.processes import Running, running

_EXIT_FAILED: Final = 1
_NETWORK: Final = (784, 800, 10)
_ABUSES: Final[tuple[type[Abuse], ...]] = (
    *grpc_calls.ABUSES,
    *grpc_messages.ABUSES,
    *http_calls.ABUSES,
    *operations.ABUSES,
)
# Calls a second of each honest client.
_RATES: Final[Mapping[str, float]] = {
    "our client, gRPC": 40,
    "HTTP, JSON": 20,
    "our client, gRPC over TLS": 10,
}
_MAX_QUIET_S: Final = 30.0
_DEFAULT_REST_S: Final = 60.0
_LOOK_S: Final = 0.25
_MEGABYTE: Final = 1e6
_ERROR_LEVELS: Final = frozenset({"ERROR", "CRITICAL", "error", "critical"})


@dataclass(frozen=True)
class Servers:
    """Two servers of the same models: one without TLS, one with.

    Attributes:
        all: By name.
        logs: Their logs.
        target: What abusers must know of them.
        ask: Makes what each honest client asks, by its name.
        expected: The probabilities that each must be answered with.
    """

    all: Mapping[str, Running]
    logs: Mapping[str, Path]
    target: Target
    ask: Mapping[str, GrpcAsk | HttpAsk]
    expected: "np.ndarray[tuple[int, ...], np.dtype[np.float32]]"


class Memory:
    """The most memory of each server, since this was made; to be used as a context."""

    def __init__(self, servers: Mapping[str, Running]) -> None:
        self._servers = servers
        self.peak_bytes: Counter[str] = Counter()
        self._is_over = Event()
        self._watcher = Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._watcher.join()

    def _watch(self) -> None:
        while not self._is_over.wait(_LOOK_S):
            for name, now_bytes in resident(self._servers).items():
                self.peak_bytes[name] = max(self.peak_bytes[name], now_bytes)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; return the exit code."""
    options = _parser().parse_args(arguments)
    chosen = [kind for kind in _ABUSES if not options.only or kind.__name__ in options.only]
    try:
        with tempfile.TemporaryDirectory() as folder, _servers(Path(folder)) as servers:
            _run(servers, chosen, options)
            logs = {name: log.read_text() for name, log in servers.logs.items()}
        _tell_logs(logs)
        if options.log:
            options.log.write_text("".join(logs.values()))
    except BenchmarkError as error:
        print(f"serving_abuse.py: {error}", file=sys.stderr)
        return _EXIT_FAILED
    return 0


def _run(servers: Servers, kinds: Sequence[type[Abuse]], options: argparse.Namespace) -> None:
    duration_s = 60 * options.minutes
    meter = NoiseMeter()
    meter.probe()
    alone = _asked(servers, min(_MAX_QUIET_S, duration_s / 4))
    before, used_s = resident(servers.all), _used_s(servers)
    plan = Plan(kinds, servers.target, options.seed, duration_s)
    with Memory(servers.all) as memory, Abusers(plan) as abusers:
        among = _asked(servers, duration_s)
        share = (_used_s(servers) - used_s) / duration_s
        statuses = abusers.statuses()
    after, rested_s = _rested(servers, before, options.rest)
    _tell_clients("alone", alone)
    _tell_clients(f"among all abuses, for {duration_s:.0f} s", among)
    rows = [
        (name, *(f"{each[name] / _MEGABYTE:.0f}" for each in (before, memory.peak_bytes, after)))
        for name in servers.all
    ]
    head = ("server, MB resident", "before", "peak", f"after {rested_s:.0f} s of rest")
    print(f"\n{markdown_table(head, rows)}\n")
    print(markdown_table(("abuse", "a second", "what came of it"), [*_abuse_rows(kinds, statuses)]))
    meter.probe()
    print(f"\nThe servers kept {share:.2f} processors busy. {meter.noise().sentences()}")


def _asked(servers: Servers, duration_s: float) -> dict[str, Outcome]:
    """Have all honest clients ask for a time."""
    with ExitStack() as started:
        clients = {
            name: started.enter_context(Honest(ask, _RATES[name], servers.expected))
            for name, ask in servers.ask.items()
        }
        for client in clients.values():
            client.wait_until_ready()
        Event().wait(duration_s)
        return {name: client.stop() for name, client in clients.items()}


def _rested(
    servers: Servers, before: Mapping[str, int], at_most_s: float
) -> tuple[dict[str, int], float]:
    """Wait until the servers take little more than before, or for long enough."""
    began_s = time.monotonic()
    while True:
        now, rested_s = resident(servers.all), time.monotonic() - began_s
        grown = max(now[name] - before[name] for name in now)
        if rested_s > at_most_s or grown < 0:
            return now, rested_s
        Event().wait(1)


def resident(servers: Mapping[str, Running]) -> dict[str, int]:
    """Return the memory of each server, of all its processes, in bytes."""
    return {name: server.resident_bytes() for name, server in servers.items()}


def _used_s(servers: Servers) -> float:
    return sum(server.cpu_s() for server in servers.all.values())


def _tell_clients(when: str, outcomes: Mapping[str, Outcome]) -> None:
    print(f"\nHonest clients {when}:\n")
    print(markdown_table(honest.HEAD, honest.rows(outcomes)))
    for name, outcome in outcomes.items():
        for failure, count in outcome.failures.most_common(5):
            print(f"{name}: {count} x {failure}")


def _abuse_rows(
    kinds: Sequence[type[Abuse]], statuses: Mapping[str, "Counter[str]"]
) -> Iterator[tuple[str, ...]]:
    for kind in kinds:
        found = ", ".join(f"{count:,} {name}" for name, count in statuses[kind.what].most_common())
        yield kind.what, f"{kind.per_s:g}", found or "-"


def _tell_logs(logs: Mapping[str, str]) -> None:
    print()
    for name, text in logs.items():
        lines = text.splitlines()
        levels = Counter(_level(line) for line in lines)
        print(f"{name}: {len(lines):,} lines of the log, {len(text) / _MEGABYTE:.1f} MB: {levels}")
        errors = [line for line in lines if _level(line) in _ERROR_LEVELS | {"no JSON"}]
        for line in errors[:5]:
            print(f"  {line[:500]!r}")


def _level(line: str) -> str:
    try:
        return str(json.loads(line)["level"])
    except (ValueError, KeyError, TypeError):
        return "no JSON"


@contextmanager
def _servers(folder: Path) -> Iterator[Servers]:
    """Run both servers, as users run them but for their ports and files."""
    models = folder / "models"
    network = publish_random(models, _NETWORK).network
    image = np.random.default_rng(1).integers(0, 256, (1, _NETWORK[0]), np.uint8)
    grpc_port = free_ports(5)
    http_port, metrics_port, tls_port, tls_http_port = range(grpc_port + 1, grpc_port + 5)
    authority = trustme.CA()
    certificate = _write_certificate(authority, folder)
    ca = authority.cert_pem.bytes()
    plain = ["--port", str(grpc_port), "--http-port", str(http_port)]
    tls = ["--port", str(tls_port), "--http-port", str(tls_http_port), "--workers", "1"]
    flags = {
        "default settings": [*plain, "--metrics-port", str(metrics_port)],
        "TLS, 1 worker": [*tls, *certificate],
    }
    over_tls = GrpcAsk(f"localhost:{tls_port}", image, ca)
    over_grpc = GrpcAsk(f"127.0.0.1:{grpc_port}", image)
    asked: tuple[GrpcAsk | HttpAsk, ...] = (over_grpc, HttpAsk(http_port, image), over_tls)
    ask = dict(zip(_RATES, asked, strict=True))
    logs = {name: folder / f"{number}.log" for number, name in enumerate(flags)}
    with ExitStack() as started:
        start = [sys.executable, "-m", "mlpserve.server", "--models", str(models)]
        command = [*start, "--log-format", "json"]
        asks = (over_grpc.try_once, over_tls.try_once)
        servers = {
            name: started.enter_context(running([*command, *more], logs[name], once))
            for (name, more), once in zip(flags.items(), asks, strict=True)
        }
        process_id = next(iter(servers.values())).process_id
        target = Target(models, grpc_port, http_port, metrics_port, tls_http_port, process_id)
        expected = network.probabilities(image.astype(np.float32) / 255)[0]
        yield Servers(servers, logs, target, ask, expected)


def _write_certificate(authority: trustme.CA, folder: Path) -> list[str]:
    """Write a certificate for this machine; return the flags that name it."""
    issued = authority.issue_cert("localhost")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    chain = b"".join(each.bytes() for each in issued.cert_chain_pems)
    (folder / "chain.pem").write_bytes(chain)
    return ["--tls-certificate", str(folder / "chain.pem"), "--tls-key", str(folder / "key.pem")]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="serving_abuse.py", description="Abuse a server in all ways, beside honest clients."
    )
    parser.add_argument("--minutes", type=float, default=10.0, metavar="M", help="default: 10")
    parser.add_argument(
        "--rest",
        type=float,
        default=_DEFAULT_REST_S,
        metavar="S",
        help="how long the servers rest before their memory is told; default: 60",
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="default: 1")
    parser.add_argument(
        "--log", type=Path, metavar="FILE", help="keep the servers' logs; default: not kept"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=[kind.__name__ for kind in _ABUSES],
        metavar="ABUSE",
        help="leave out all others; default: none is left out",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
