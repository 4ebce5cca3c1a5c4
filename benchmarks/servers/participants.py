"""Participants of the serving benchmark: their commands and protocols. Imports none of them."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from servers.protocols import HttpForm, Mlpserve, OpenInference, PlainHttp, Protocol

_FOLDER: Final = Path(__file__).parent / "programs"
# Each peer in an environment of its own: their dependencies exclude one another.
ENVIRONMENTS: Final = Path(__file__).parents[2] / ".venv-peers-serving"


@dataclass(frozen=True)
class Participant:
    """A server that can be measured.

    Attributes:
        title: What tables call it.
        protocol: How it is asked.
        command: Takes a models folder and a port; returns the command that serves there.
        peer: The name of the package, and of its environment; None for our own.
    """

    title: str
    protocol: Protocol
    command: Callable[[Path, int], list[str]]
    peer: str | None = None

    def is_installed(self) -> bool:
        """Return whether it can be started."""
        return self.peer is None or _python(self.peer).exists()


def _python(peer: str) -> Path:
    return ENVIRONMENTS / peer / "bin" / "python"


def _ours(*flags: str) -> Callable[[Path, int], list[str]]:
    def command(models: Path, port: int) -> list[str]:
        start = [sys.executable, "-m", "mlpserve.server", "--models", str(models)]
        return [*start, "--port", str(port), *flags]

    return command


def _program(name: str, peer: str | None, *more: str) -> Callable[[Path, int], list[str]]:
    def command(models: Path, port: int) -> list[str]:
        python = sys.executable if peer is None else str(_python(peer))
        return [python, str(_FOLDER / f"{name}.py"), str(models), str(port), *more]

    return command


def _peer(
    title: str, peer: str, protocol: Protocol, name: str | None = None, *more: str
) -> Participant:
    return Participant(title, protocol, _program(name or f"{peer}_server", peer, *more), peer)


OURS: Final = "mlpserve"
ECHO: Final = "echo"
PARTICIPANTS: Final[Mapping[str, Participant]] = {
    OURS: Participant("mlpserve", Mlpserve(), _ours()),  # a worker on each processor
    "mlpserve-1": Participant("mlpserve, 1 worker", Mlpserve(), _ours("--workers", "1")),
    "mlpserve-public": Participant(
        "mlpserve, 1 worker, public gRPC API",
        Mlpserve(),
        _ours("--workers", "1", "--no-fast-lane"),
    ),
    ECHO: Participant("echo on our fast lane", Mlpserve(), _program("echo", None)),
    "mosec": _peer("mosec, batching", "mosec", PlainHttp(), None, "32"),
    "mosec-unbatched": _peer("mosec, unbatched", "mosec", PlainHttp(), None, "1"),
    "kserve": _peer("KServe", "kserve", OpenInference()),
    "mlserver": _peer("MLServer", "mlserver", OpenInference()),
    "litserve": _peer("LitServe", "litserve", HttpForm()),
    "pytriton": _peer("PyTriton", "nvidia-pytriton", OpenInference(), "pytriton_server"),
    "ray": _peer("Ray Serve", "ray", PlainHttp()),
}
