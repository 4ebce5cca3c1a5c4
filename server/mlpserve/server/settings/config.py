"""The settings of a server."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mlpserve.model.labels import is_label
from mlpserve.server.errors import StartError
from mlpserve.server.settings.declarations import (
    CheckedSettings,
    choice,
    internal,
    path,
    place,
    seconds,
    switch,
    text,
    whole_number,
)
from mlpserve.server.settings.policies import parse_policies
from mlpserve.server.settings.shares import DEFAULT_SPLIT_HEADER, check_header, parse_shares

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 50051
MAX_REFLECTION_CALLS: Final = 2
NO_PORT: Final = -1
MAX_MANAGEMENT_CALLS: Final = 4
WATCH: Final = "watch"
MANUAL: Final = "manual"
DEFAULT_PERIOD_S: Final = 5.0
LOG_FORMATS: Final = ("auto", "text", "json")
LOG_LEVELS: Final = ("debug", "info", "warning", "error")
_BYTES_PER_MB: Final = 1 << 20
_LARGEST_MESSAGE_MB: Final = 2047  # gRPC's own limit is 2 GiB less one byte
_LARGEST_PORT: Final = 65_535


def blas_environment(threads: int) -> dict[str, str]:
    """Return the variables that the common BLAS libraries read when they are loaded.

    Fewer threads than they would start take less memory; later one can only leave them idle.
    """
    names = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
    return dict.fromkeys(names, str(threads))


@dataclass(frozen=True)
class ServerConfig(CheckedSettings):
    """How to serve, checked when it is made. Each setting says here what it is for.

    Raises:
        StartError: Settings are out of their range.
    """

    models: Path | str = place(
        Path("models"), "models folder, or its URL in an object store, as 's3://bucket/models'"
    )
    cache: Path | None = path(
        None,
        "where a copy of an object store is kept; one in the user's cache folder where not given",
        metavar="DIR",
    )
    store_period_s: float = seconds(
        DEFAULT_PERIOD_S, "how long to wait between looks into an object store", lowest=0.1
    )
    # Newest N, "all" or a list, for one model with its name in front: "2 digits=all letters=1,4,7".
    versions: str = text(
        "2",
        "versions to serve of each model: the newest N, 'all' or listed ones as '1,4,7'; after a "
        "space, those of one model with NAME= in front; those with labels are served in any case",
        metavar="POLICIES",
    )
    default_label: str = text(
        "stable", "the label whose version answers where none is asked for", metavar="LABEL"
    )
    split: str = text(
        "",
        "divide requests that ask for neither version nor label between labels by these shares, as "
        "'stable=95,canary=5'",
        metavar="SHARES",
    )
    split_header: str = text(
        DEFAULT_SPLIT_HEADER,
        "header that says who asks, so that the same always gets the same version of a split",
        metavar="HEADER",
    )
    shadow: str = text(
        "",
        "label whose version classifies, unseen, what the default version answers, to compare them",
        metavar="LABEL",
    )
    reload: str = choice(
        WATCH,
        "follow the models folder, or look into it only at the start and when somebody asks",
        choices=(WATCH, MANUAL),
    )
    allow_management: bool = switch("answer the rpcs that load and unload models", default=False)
    load_timeout_s: float = seconds(
        120.0, "how long one of several processes may take to load and check a version"
    )
    # A busy machine keeps a process waiting for seconds, a frozen disk or a moved machine for some
    # more; and who waits for a worker that hangs waits for so long.
    worker_timeout_s: float = seconds(
        30.0,
        "how long one of several processes may give no sign of life before it is replaced",
        lowest=1.0,
    )
    max_version_mb: int = whole_number(256, "largest weights file that is loaded, in MB", lowest=1)

    host: str = text(DEFAULT_HOST, "address to listen on", metavar="ADDRESS")
    port: int = whole_number(
        DEFAULT_PORT, "port to listen on, 0 for a free one", lowest=0, highest=_LARGEST_PORT
    )
    http_port: int = whole_number(
        NO_PORT,
        f"port for the Open Inference Protocol over HTTP, 0 for a free one, {NO_PORT} for none",
        lowest=NO_PORT,
        highest=_LARGEST_PORT,
    )
    shares_port: bool = internal(default=False)  # with other processes of this server

    tls_certificate: Path | None = path(
        None, "certificate chain in PEM; with it, only TLS is spoken", metavar="FILE"
    )
    tls_key: Path | None = path(None, "the certificate's key in PEM", metavar="FILE")
    tls_client_ca: Path | None = path(
        None, "certificates in PEM, by one of which each caller's must be signed", metavar="FILE"
    )
    token_file: Path | None = path(
        None, "names and digests of bearer tokens, see `mlpserve-serve token`", metavar="FILE"
    )
    require_token: bool = switch(
        "refuse callers that send no token, where there is a token file", default=True
    )
    reflection: bool = switch("describe the contract to callers that ask", default=True)

    workers: int = whole_number(
        0,
        "processes that serve side by side, 0 for the processors that are granted / threads",
        lowest=0,
    )
    threads: int = whole_number(1, "BLAS threads of each process", lowest=1)
    pin: bool = switch(
        "keep each process to a processor of its own where there is exactly one for each",
        default=True,
    )
    fast_lane: bool = switch(
        "answer Predict in the fast lane, where it works with the grpcio at hand", default=True
    )
    reproducible: bool = switch(
        "answer with the same bits whatever else is in the batch; up to four times slower",
        default=False,
    )

    max_message_mb: int = whole_number(
        64, "largest message, in MB", lowest=1, highest=_LARGEST_MESSAGE_MB
    )
    compression: bool = switch(
        "take compressed messages over gRPC; some kilobytes may unpack to the largest message",
        default=True,
    )
    max_batch_images: int = whole_number(8192, "most images in one request", lowest=1)
    # More take more memory.
    max_batch_rows: int = whole_number(
        512,
        "join requests up to N images, and compute a larger one in parts of so many",
        lowest=1,
    )
    max_queue_rows: int = whole_number(
        65_536, "most images that may wait for their turn; what comes then is refused", lowest=1
    )
    request_threads: int = whole_number(
        8,
        "calls outside the fast lane that each process answers at once",
        lowest=MAX_REFLECTION_CALLS + 2,
    )
    # Each holds one of these threads, as do calls of reflection, and must leave some for others.
    max_streams: int = whole_number(
        4, "calls of PredictStream that are open at once in each process", lowest=1
    )
    max_stream_batches: int = whole_number(
        4, "batches of one PredictStream that are in flight at once", lowest=1
    )

    max_concurrent_requests: int = whole_number(
        8192,
        "requests that each process has accepted and not answered at once; what comes then is "
        "refused, and of one caller what is more than is left for others",
        lowest=1,
    )
    max_connections: int = whole_number(
        1024, "connections that each process has open at once; what comes then is closed", lowest=1
    )

    drain_seconds: float = seconds(
        0.0, "how long to go on answering after a signal to stop, for balancers to look elsewhere"
    )
    # Less than the 10 after which containers are killed.
    stop_grace_s: float = seconds(8.0, "how long open requests may take after a signal to stop")

    log_format: str = choice(
        "auto", "how the log is written, auto: text on a terminal, else JSON", choices=LOG_FORMATS
    )
    log_level: str = choice("info", "the least that is logged", choices=LOG_LEVELS)
    metrics_host: str = text(DEFAULT_HOST, "address to tell metrics on", metavar="ADDRESS")
    metrics_port: int = whole_number(
        NO_PORT,
        f"port to tell metrics on, 0 for a free one, {NO_PORT} for none",
        lowest=NO_PORT,
        highest=_LARGEST_PORT,
    )
    tracing: bool = switch(
        "send spans of requests to where OpenTelemetry's variables say (OTEL_...)", default=False
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        most_streams = self.request_threads - MAX_REFLECTION_CALLS - 1
        if self.max_streams > most_streams:
            raise StartError(
                f"max_streams: expected at most {most_streams}, {MAX_REFLECTION_CALLS + 1} less "
                f"than request_threads, got {self.max_streams}"
            )
        parse_policies(self.versions)
        parse_shares(self.split)
        check_header(self.split_header)
        if self.shadow and not is_label(self.shadow):
            raise StartError(f"shadow: expected a label, got {self.shadow[:80]!r}")
        if not is_label(self.default_label):
            raise StartError(f"default_label: expected a label, got {self.default_label[:80]!r}")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise StartError("tls_certificate, tls_key: expected both or neither, got one of them")
        if self.tls_client_ca is not None and self.tls_certificate is None:
            raise StartError(
                "tls_client_ca: expected tls_certificate and tls_key with it, got none"
            )

    @property
    def max_message_bytes(self) -> int:
        """Return the largest message that the transport takes."""
        return self.max_message_mb * _BYTES_PER_MB
