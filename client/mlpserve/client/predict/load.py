"""Load on a server, in a closed or an open loop, and what it measured.

In a closed loop, so many callers each send the next call when the last one is answered: a server
that stalls is asked less, and its stall counts as one slow call. In an open loop, calls are due at
a fixed rate whatever becomes of those before, and each is timed from when it was due, not from when
it could be sent. So what waits behind a stall is counted as waiting.
Source: Tene, How NOT to Measure Latency, on coordinated omission.
"""

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mlpserve.client import AsyncClient, ClientError

QUANTILES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
_WARM_UP_S: Final = 0.3
_MS_PER_S: Final = 1000


@dataclass(frozen=True)
class Result:
    """What one load measured.

    Attributes:
        images: So many in each call.
        loop: ``closed`` or ``open``.
        concurrency: Of a closed loop, the callers; else 0.
        rate_per_s: Of an open loop, the calls that were due a second; else 0.
        calls: So many were answered.
        failed: So many were not; their times are not among the latencies.
        calls_per_s: Answered calls a second, until the last was.
        images_per_s: The same in images.
        latency_ms: By the quantile's name, in milliseconds.
        client_cpu: The share of one core that this program took. Near 1, it is the limit.
    """

    images: int
    loop: str
    concurrency: int
    rate_per_s: float
    calls: int
    failed: int
    calls_per_s: float
    images_per_s: float
    latency_ms: dict[str, float]
    client_cpu: float

    def row(self) -> tuple[str, ...]:
        """Return the cells of the table."""
        load = f"{self.concurrency} at once" if self.concurrency else f"{self.rate_per_s:,.0f}/s"
        return (
            *(f"{self.images:,}", self.loop, load, f"{self.calls:,}", f"{self.failed:,}"),
            *(f"{self.calls_per_s:,.0f}", f"{self.images_per_s:,.0f}"),
            *(f"{self.latency_ms[name]:,.2f}" for name in QUANTILES),
            f"{self.client_cpu:.0%}",
        )


class Caller:
    """Makes calls of so many images, in turn over several connections, and times them.

    Args:
        clients: One for each connection.
        images: Of each call.
        model: The model that is asked.
        version: The version that is asked.

    Attributes:
        failure: How the last call failed that did.
    """

    def __init__(
        self,
        clients: Sequence[AsyncClient],
        images: npt.NDArray[np.uint8],
        *,
        model: str,
        version: int,
    ) -> None:
        self._clients = clients
        self._images = images
        self._asked: dict[str, Any] = {"model": model, "version": version}
        self._latencies_s: list[float] = []
        self._failed = 0
        self.failure: ClientError | None = None

    async def closed(self, concurrency: int, duration_s: float) -> Result:
        """Return what so many callers measure, each of which waits for its answer."""
        await self._callers(concurrency, _WARM_UP_S)
        self._latencies_s, self._failed = [], 0
        cpu_s, started_s = time.process_time(), time.perf_counter()
        await self._callers(concurrency, duration_s)
        return self._result(started_s, cpu_s, concurrency=concurrency)

    async def open(self, rate_per_s: float, duration_s: float) -> Result:
        """Return what calls measure that are due at a rate."""
        self._latencies_s, self._failed = [], 0
        cpu_s, started_s = time.process_time(), time.perf_counter()
        calls = []
        for number in range(max(1, round(rate_per_s * duration_s))):
            due_s = started_s + number / rate_per_s
            # Also where it is late: or answers would find no time to be read.
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
            calls.append(asyncio.create_task(self._call(number, due_s)))
        await asyncio.gather(*calls)
        return self._result(started_s, cpu_s, rate_per_s=rate_per_s)

    async def _callers(self, concurrency: int, duration_s: float) -> None:
        ends_s = time.perf_counter() + duration_s

        async def call_until_then(number: int) -> None:
            while (now_s := time.perf_counter()) < ends_s:
                await self._call(number, now_s)

        await asyncio.gather(*map(call_until_then, range(concurrency)))

    async def _call(self, number: int, due_s: float) -> None:
        client = self._clients[number % len(self._clients)]
        try:
            await client.predict(self._images, **self._asked)
        except ClientError as error:
            self._failed += 1
            self.failure = error
        else:
            self._latencies_s.append(time.perf_counter() - due_s)

    def _result(
        self, started_s: float, cpu_s: float, *, concurrency: int = 0, rate_per_s: float = 0
    ) -> Result:
        duration_s = time.perf_counter() - started_s
        calls = len(self._latencies_s)
        found = np.quantile(self._latencies_s or [math.nan], [*QUANTILES.values()], method="higher")
        return Result(
            images=len(self._images),
            loop="closed" if concurrency else "open",
            concurrency=concurrency,
            rate_per_s=rate_per_s,
            calls=calls,
            failed=self._failed,
            calls_per_s=calls / duration_s,
            images_per_s=calls * len(self._images) / duration_s,
            latency_ms=dict(zip(QUANTILES, (found * _MS_PER_S).tolist(), strict=True)),
            client_cpu=(time.process_time() - cpu_s) / duration_s,
        )
