"""The settings of a server."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mlpserve.server.errors import StartError

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 50051
MAX_REFLECTION_CALLS: Final = 2
_LARGEST_PORT: Final = 65_535
_LARGEST_COUNT: Final = 2**31 - 1


def address(host: str, port: int) -> str:
    """Return ``host:port`` as gRPC takes it; an IPv6 address stands in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def blas_environment(threads: int) -> dict[str, str]:
    """Return the variables that the common BLAS libraries read when they are loaded.

    Fewer threads than they would start take less memory; later one can only leave them idle.
    """
    names = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
    return dict.fromkeys(names, str(threads))


@dataclass(frozen=True)
class ServerConfig:
    """How to serve, checked when it is made.

    Attributes:
        models: The models folder.
        host: The address to listen on.
        port: The port to listen on; 0 for any that is free.
        workers: So many processes serve side by side.
        threads: So many threads BLAS uses in each of them.
        pins_workers: Whether each worker keeps to a processor of its own where there are as many
            workers as processors.
        shares_port: Whether to listen on a port that other processes of this server listen on too.
        max_batch_images: The most images that one request may carry.
        versions_per_model: So many of the newest versions of each model are served.
        max_batch_rows: Requests are joined up to so many images, and a larger one is computed in
            parts of so many. More take more memory.
        max_queued_rows: So many images may wait for their turn; what comes then is refused.
        reproducible: Whether an image's probabilities must not depend, to the bit, on the batch.
        fast_lane: Whether to use the fast adapter for Predict where it works.
        worker_threads: So many requests are answered at once.
        max_streams: So many calls of PredictStream are open at once. Each holds a worker thread,
            as do calls of reflection, so it must leave some for all other calls.
        max_stream_batches: So many batches of one call of PredictStream are in flight at once.
        stop_grace_s: Seconds that requests have to end in after the server is told to stop; less
            than the 10 after which containers are killed.

    Raises:
        StartError: A setting is out of its range.
    """

    models: Path
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    workers: int = 1
    threads: int = 1
    pins_workers: bool = True
    shares_port: bool = False
    max_batch_images: int = 8192
    versions_per_model: int = 2
    max_batch_rows: int = 512
    max_queued_rows: int = 65_536
    reproducible: bool = False
    fast_lane: bool = True
    worker_threads: int = 8
    max_streams: int = 4
    max_stream_batches: int = 4
    stop_grace_s: float = 8.0

    def __post_init__(self) -> None:
        for name, lowest, highest in (
            ("port", 0, _LARGEST_PORT),
            ("workers", 1, _LARGEST_COUNT),
            ("threads", 1, _LARGEST_COUNT),
            ("max_batch_images", 1, _LARGEST_COUNT),
            ("versions_per_model", 1, _LARGEST_COUNT),
            ("max_batch_rows", 1, _LARGEST_COUNT),
            ("max_queued_rows", 1, _LARGEST_COUNT),
            ("max_stream_batches", 1, _LARGEST_COUNT),
            ("max_streams", 1, self.worker_threads - MAX_REFLECTION_CALLS - 1),
        ):
            value = getattr(self, name)
            if not lowest <= value <= highest:
                raise StartError(f"{name}: expected from {lowest} to {highest}, got {value}")
