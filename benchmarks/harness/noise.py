"""Noise of the machine while a benchmark ran: without it, no figure can be judged."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.figures import Spread

_STAT: Final = Path("/proc/stat")
_PROBE_ADDITIONS: Final = 2_000_000  # some 30 ms


@dataclass(frozen=True)
class Noise:
    """What disturbed a benchmark.

    Attributes:
        probe_s: How long the same fixed work took each time, in seconds.
        others_share: The share of all processors' time that other programs used, 0 to 1; None where
            the system does not say.
        stolen_share: The share that the host of a virtual machine withheld; None as above.
    """

    probe_s: Spread
    others_share: float | None
    stolen_share: float | None

    def sentences(self) -> str:
        """Return what a reader of the figures should know, as text."""
        slowest = self.probe_s.highest / self.probe_s.lowest
        fixed_work = (
            f"The same {1000 * self.probe_s.median:.0f} ms of work, timed before each process, "
            f"took up to {slowest:.2f} times as long as at its fastest."
        )
        if self.others_share is None or self.stolen_share is None:
            return f"{fixed_work} What other programs used, this system does not say."
        return (
            f"{fixed_work} Other programs used {100 * self.others_share:.1f} % of the processors' "
            f"time, the host of the virtual machine withheld {100 * self.stolen_share:.1f} %."
        )


@dataclass(frozen=True)
class _ProcessorTimes:
    """Seconds of processor time: of the whole machine, withheld from it, and of our own."""

    busy_s: float
    stolen_s: float
    own_s: float


class NoiseMeter:
    """Watches the machine from its making until ``noise`` is asked.

    Only children that have ended count as our own, so it is to be asked when none is running.
    """

    def __init__(self) -> None:
        self._started_s = time.monotonic()
        self._start = _processor_times()
        self._probes_s: list[float] = []

    def probe(self) -> None:
        """Time a fixed piece of work; best done before each measurement."""
        started = time.perf_counter()
        sum(range(_PROBE_ADDITIONS))
        self._probes_s.append(time.perf_counter() - started)

    def noise(self) -> Noise:
        """Return what was seen since the meter was made; ``probe`` was called before."""
        probe_s = Spread.of(self._probes_s)
        end = _processor_times()
        if self._start is None or end is None:
            return Noise(probe_s, None, None)
        available_s = (time.monotonic() - self._started_s) * (os.cpu_count() or 1)
        others_s = (end.busy_s - self._start.busy_s) - (end.own_s - self._start.own_s)
        return Noise(
            probe_s,
            # The two clocks tick apart, so that almost nothing may come out below 0.
            others_share=max(0.0, others_s / available_s),
            stolen_share=(end.stolen_s - self._start.stolen_s) / available_s,
        )


def _processor_times() -> _ProcessorTimes | None:
    """Return the processor times so far, or None where the system has no /proc/stat.

    Its first line is ``cpu user nice system idle iowait irq softirq steal ...`` in clock ticks;
    see proc_stat(5). Guests, the last two, are counted in user and nice.
    """
    try:
        ticks = [int(field) for field in _STAT.read_text().split("\n", 1)[0].split()[1:]]
        user, nice, system, _idle, _waiting, irq, softirq, stolen = ticks[:8]
    except (OSError, ValueError):
        return None
    ticks_per_s = os.sysconf("SC_CLK_TCK")
    own = os.times()
    return _ProcessorTimes(
        busy_s=(user + nice + system + irq + softirq) / ticks_per_s,
        stolen_s=stolen / ticks_per_s,
        own_s=own.user + own.system + own.children_user + own.children_system,
    )
