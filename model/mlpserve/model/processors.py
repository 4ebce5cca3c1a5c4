"""Processors that this process may keep busy; threads and workers are counted by them.

A container's share is a quota of time, which ``os.cpu_count`` and BLAS do not look at; more threads
than it allows are put to sleep in turn, and wait for each other.
"""

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

_CONTROL_GROUPS: Final = Path("/sys/fs/cgroup")
_OWN_GROUPS: Final = Path("/proc/self/cgroup")


def granted_processors(
    control_groups: Path = _CONTROL_GROUPS, own_groups: Path = _OWN_GROUPS
) -> int:
    """Return the lower of the processors that may be used and the quotas of the control groups.

    At least 1; a quota of one and a half processors counts as 1.

    Args:
        control_groups: Where the control groups are mounted, of version 1 or 2.
        own_groups: Which of them this process is in.
    """
    quotas = _quotas(control_groups, own_groups)
    return max(1, math.floor(min([float(_usable_processors()), *quotas])))


def _usable_processors() -> int:
    if hasattr(os, "sched_getaffinity"):  # of Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas(control_groups: Path, own_groups: Path) -> Iterator[float]:
    """Yield the quota, in processors, of each control group that this process is in."""
    for line in _text(own_groups).splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            yield from _quotas_above(control_groups, group, _quota_of_version_2)
        elif "cpu" in controllers.split(","):
            yield from _quotas_above(control_groups / "cpu", group, _quota_of_version_1)


def _quotas_above(
    mount: Path, group: str, quota: Callable[[Path], float | None]
) -> Iterator[float]:
    """Yield the quotas of a group and of all that it is in; each of them holds.

    In a container the path may be the host's, of which only the mount itself is to be seen.
    """
    folder = mount / group.lstrip("/")
    for place in (folder, *folder.parents):
        found = quota(place)
        if found is not None:
            yield found
        if place == mount:
            return


def _quota_of_version_2(group: Path) -> float | None:
    match _text(group / "cpu.max").split():
        case [quota, period] if quota != "max":
            return int(quota) / int(period)
    return None


def _quota_of_version_1(group: Path) -> float | None:
    quota, period = _text(group / "cpu.cfs_quota_us"), _text(group / "cpu.cfs_period_us")
    if not quota or not period or int(quota) <= 0:  # -1 is none
        return None
    return int(quota) / int(period)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
