"""The machine that a benchmark ran on, in the words that its figures need beside them."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import numpy  # noqa: F401, ICN001 - so that there is a BLAS to be found below
from threadpoolctl import threadpool_info

from mlpserve.model.processors import granted_processors

_PROCESSOR_FILE: Final = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Machine:
    """What figures depend on.

    Attributes:
        processor: The processor's name.
        processors: How many of them this process may keep busy.
        system: The operating system.
        python: The version of Python.
        blas: What NumPy multiplies matrices with, and what processor that takes this one for.
        versions: The installed version of each package that takes part.
    """

    processor: str
    processors: int
    system: str
    python: str
    blas: str
    versions: dict[str, str]

    def sentences(self) -> str:
        """Return the description as text."""
        packages = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        return (
            f"{self.processors} x {self.processor}; {self.system}; Python {self.python}; "
            f"{self.blas}; {packages}."
        )


def describe_machine(packages: Sequence[str]) -> Machine:
    """Return this machine, with the versions of those of ``packages`` that are installed."""
    return Machine(
        processor=_processor_name(),
        processors=granted_processors(),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        blas=_blas(),
        versions=_versions(packages),
    )


def _processor_name() -> str:
    try:
        lines = _PROCESSOR_FILE.read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _blas() -> str:
    for library in threadpool_info():
        if library["user_api"] == "blas":
            kind = library.get("architecture", "unknown kind")
            return f"{library['internal_api']} {library['version']} for {kind}"
    return "unknown BLAS"


def _versions(packages: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
