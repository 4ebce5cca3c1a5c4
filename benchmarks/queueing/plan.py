"""Plan of a service: what a load needs by what a request was measured to cost."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from harness.errors import BenchmarkError
from harness.tables import section_of
from servers.protocols import Mlpserve

LOADS: Final = (10_000, 1_000_000, 100_000_000)  # images a second
_UTILISATION: Final = 0.6  # of a worker: beyond it, answers wait for each other
_PROCESSORS_OF_A_SERVER: Final = 8
_MIN_SERVERS: Final = 2  # one may be lost, or replaced
_PRICE: Final = 0.04  # of a processor and an hour, an assumption
_HOURS_OF_A_MONTH: Final = 730
_BITS: Final = 8
# What a packet carries besides its content, and what HTTP/2 adds to a small request: frames, and
# headers of which HPACK leaves an index each.
_PACKET_BYTES, _PACKET_OVERHEAD, _REQUEST_OVERHEAD = 1448, 66, 60


@dataclass(frozen=True)
class Cost:
    """What one request costs.

    Attributes:
        images: That it has.
        cpu_s: Processor time of the server.
        sent_bytes: The message of the request.
        answered_bytes: That of the answer.
    """

    images: int
    cpu_s: float
    sent_bytes: int
    answered_bytes: int

    def traffic_bytes(self) -> int:
        """Return what goes over the network for it, in both directions."""
        return sum(map(_with_packets, (self.sent_bytes, self.answered_bytes)))


def _with_packets(content: int) -> int:
    content += _REQUEST_OVERHEAD
    return content + math.ceil(content / _PACKET_BYTES) * _PACKET_OVERHEAD


_SECTION: Final = "serving results"
_MEASURED: Final = re.compile(
    r"^\*\*([\d-]+), (\d+) image\(s\) a request\.\*\*|"
    r"^\| 32 +\| mlpserve, 1 worker +\|.*\| (\d+) \([\d-]+\) +\|$",
    re.MULTILINE,
)


def published_costs(document: str) -> dict[str, list[Cost]]:
    """Return the costs of requests by the tables of benchmarks/README.md, one worker, 32 at a time.

    Args:
        document: Its text.

    Raises:
        BenchmarkError: It has no such tables.
    """
    found: dict[str, list[Cost]] = {}
    network, images = "", 0
    for match in _MEASURED.finditer(section_of(document, _SECTION)):
        if match[1]:
            network, images = match[1], int(match[2])
        else:
            found.setdefault(network, []).append(_cost(images, int(match[3])))
    if not found:
        raise BenchmarkError("benchmarks/README.md: expected tables of serving with 32 at a time")
    return found


def _cost(images: int, microseconds: int) -> Cost:
    request = Mlpserve().request(np.zeros((images, 784), np.uint8))
    # Ten probabilities of four bytes, a label, and what names the version.
    return Cost(images, microseconds / 1e6, len(request), images * (10 * 4 + 1) + 20)


def plan_rows(costs: Mapping[str, Sequence[Cost]]) -> list[tuple[str, ...]]:
    """Return the rows of the plan; those of a load together.

    Args:
        costs: By the name of the network.
    """
    return [
        _row(load, name, cost)
        for load in LOADS
        for name, requests in costs.items()
        for cost in requests
    ]


def _row(load: int, name: str, cost: Cost) -> tuple[str, ...]:
    requests_per_s = load / cost.images
    processors = requests_per_s * cost.cpu_s / _UTILISATION
    servers = max(_MIN_SERVERS, math.ceil(processors / _PROCESSORS_OF_A_SERVER) + 1)
    paid = servers * _PROCESSORS_OF_A_SERVER
    if processors < _PROCESSORS_OF_A_SERVER:  # smaller servers will do
        paid = _MIN_SERVERS * max(1, math.ceil(processors))
    gigabits = requests_per_s * cost.traffic_bytes() * _BITS / 1e9
    return (
        f"{load:,}",
        name,
        f"{cost.images:,}",
        f"{processors:,.0f}" if processors >= _PROCESSORS_OF_A_SERVER else f"{processors:.1f}",
        f"{servers:,} x {paid // servers}",
        f"{gigabits:,.1f}",
        f"{paid * _PRICE * _HOURS_OF_A_MONTH:,.0f}",
    )


HEAD: Final = (
    "images a second",
    "network",
    "images a request",
    "processors",
    "servers x processors",
    "Gbit/s",
    "USD a month",
)
