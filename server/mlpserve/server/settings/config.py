"""Settings of a server."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, TypeAlias

from mlpserve.server.settings.fields import (
    PATH_OR_URL,
    SWITCH,
    Settings,
    SettingsError,
    choice,
    parsed,
    path,
    seconds,
    whole_number,
)
from mlpserve.server.settings.values import (
    NEWEST_TWO,
    NO_ORIGINS,
    NO_SPLIT,
    Origins,
    Policies,
    Shares,
    parse_header,
    parse_label,
    parse_model_name,
)

_UNIX: Final = "unix:"  # as gRPC has it
_LOOPBACK: Final = "127.0.0.1"
_MAX_REFLECTION_CALLS: Final = 3
_MIN_REQUEST_THREADS: Final = 4
NO_PORT: Final = -1
MAX_MANAGEMENT_CALLS: Final = 4
WATCH: Final = "watch"
MANUAL: Final = "manual"
_BYTES_PER_MB: Final = 1 << 20
_MAX_MESSAGE_MB: Final = 2047  # gRPC's own limit is 2 GiB less one byte
_MAX_PORT: Final = 65_535

_Address: TypeAlias = Annotated[str, parsed("ADDRESS", str, str)]
_Count: TypeAlias = Annotated[int, whole_number(1)]
_File: TypeAlias = Annotated[Path | None, path("FILE")]
_Label: TypeAlias = Annotated[str, parsed("LABEL", parse_label, str)]
_OptionalPort: TypeAlias = Annotated[int, whole_number(NO_PORT, _MAX_PORT)]
_Seconds: TypeAlias = Annotated[float, seconds()]
_Switch: TypeAlias = Annotated[bool, SWITCH]


def blas_environment(threads: int) -> dict[str, str]:
    """Return the variables that the common BLAS libraries read when they are loaded.

    Fewer threads than they would start take less memory; later one can only leave them idle.
    """
    names = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
    return dict.fromkeys(names, str(threads))


@dataclass(frozen=True)
class ServerConfig(Settings):
    """Settings of a server, each with what it is for. Texts are parsed when it is made.

    Raises:
        SettingsError: Settings are out of their range, or do not go together.
    """

    models: Annotated[
        Path | str,
        PATH_OR_URL,
        "models folder, or its URL in an object store, as 's3://bucket/models'",
    ] = Path("models")
    cache: Annotated[
        Path | None,
        path("DIR"),
        "where a copy of an object store is kept; one in the user's cache folder where not given",
    ] = None
    store_period_s: Annotated[
        float, seconds(0.1), "how long to wait between looks into an object store"
    ] = 5.0
    # Newest N, "all" or a list, for one model with its name in front: "2 digits=all letters=1,4,7".
    versions: Annotated[
        Policies,
        parsed("POLICIES", Policies.parse, Policies),
        "versions to serve of each model: the newest N, 'all' or listed ones as '1,4,7'; after a "
        "space, those of one model with NAME= in front; those with labels are served in any case",
    ] = NEWEST_TWO
    # Without it, what else is in the folder decides whether such requests are answered.
    default_model: Annotated[
        str,
        parsed("NAME", parse_model_name, str, may_be_empty=True),
        "the model that answers where none is named; where not given, the only one that is served",
    ] = ""
    default_label: Annotated[_Label, "the label whose version answers where none is asked for"] = (
        "stable"
    )
    split: Annotated[
        Shares,
        parsed("SHARES", Shares.parse, Shares, may_be_empty=True),
        "divide requests that ask for neither version nor label between labels by these shares, as "
        "'stable=95,canary=5'",
    ] = NO_SPLIT
    split_header: Annotated[
        str,
        parsed("HEADER", parse_header, str),
        "header that says who asks, so that the same always gets the same version of a split",
    ] = "x-user-id"
    shadow: Annotated[
        str,
        parsed("LABEL", parse_label, str, may_be_empty=True),
        "label whose version classifies, unseen, what the default version answers, to compare them",
    ] = ""
    reload: Annotated[
        str,
        choice(WATCH, MANUAL),
        "follow the models folder, or look into it only at the start and when somebody asks",
    ] = WATCH
    allow_management: Annotated[_Switch, "answer the rpcs that load and unload models"] = False
    load_timeout_s: Annotated[
        _Seconds, "how long one of several processes may take to load and check a version"
    ] = 120.0
    # A busy machine keeps a process waiting for seconds, a frozen disk or a moved machine for some
    # more; and who waits for a worker that hangs waits for so long.
    worker_timeout_s: Annotated[
        float,
        seconds(1.0),
        "how long one of several processes may give no heartbeat before it is replaced",
    ] = 30.0
    max_version_mb: Annotated[_Count, "largest weights file that is loaded, in MB"] = 256

    host: Annotated[
        _Address, "address to listen on, or unix:PATH for a socket; HTTP has PATH.http then"
    ] = _LOOPBACK
    port: Annotated[int, whole_number(0, _MAX_PORT), "port to listen on, 0 for a free one"] = 50051
    http_port: Annotated[
        _OptionalPort,
        f"port for the Open Inference Protocol over HTTP, 0 for a free one, {NO_PORT} for none",
    ] = NO_PORT
    shares_port: bool = False  # with other processes of this server; no setting
    logs_shadow: bool = True  # one of these does, for all; no setting

    tls_certificate: Annotated[_File, "certificate chain in PEM; with it, only TLS is spoken"] = (
        None
    )
    tls_key: Annotated[_File, "the certificate's key in PEM"] = None
    tls_client_ca: Annotated[
        _File, "certificates in PEM, by one of which each caller's must be signed"
    ] = None
    token_file: Annotated[
        _File, "names and digests of bearer tokens, see `mlpserve-serve token`"
    ] = None
    require_token: Annotated[
        _Switch, "refuse callers that send no token, where there is a token file"
    ] = True
    reflection: Annotated[_Switch, "describe the contract to callers that ask"] = True

    workers: Annotated[
        int,
        whole_number(0),
        "processes that serve side by side, 0 for the processors that are granted / threads",
    ] = 0
    threads: Annotated[_Count, "BLAS threads of each process"] = 1
    pin: Annotated[
        _Switch,
        "keep each process to a processor of its own where there is exactly one for each, but lend "
        "those of idle processes to busy ones",
    ] = True
    fast_lane: Annotated[
        _Switch, "answer Predict in the fast lane, where it works with the grpcio at hand"
    ] = True
    reproducible: Annotated[
        _Switch, "answer with the same bits whatever else is in the batch; up to four times slower"
    ] = False

    max_message_mb: Annotated[int, whole_number(1, _MAX_MESSAGE_MB), "largest message, in MB"] = 64
    compression: Annotated[
        _Switch,
        "take compressed messages over gRPC; some kilobytes may unpack to the largest message",
    ] = True
    max_batch_images: Annotated[_Count, "most images in one request"] = 8192
    # More take more memory.
    max_batch_rows: Annotated[
        _Count, "join requests up to N images, and compute a larger one in parts of so many"
    ] = 512
    max_queue_rows: Annotated[
        _Count,
        "most images that may wait for their turn, an explained one counted as its steps; what "
        "comes then is refused",
    ] = 65_536
    request_threads: Annotated[
        int,
        whole_number(_MIN_REQUEST_THREADS),
        "calls outside the fast lane that each process answers at once",
    ] = 16
    # Each holds one of these threads, as do calls of reflection, and must leave some for others.
    max_streams: Annotated[
        _Count,
        "calls of PredictStream that are open at once in each process, of one caller about half",
    ] = 8
    max_stream_batches: Annotated[
        _Count, "batches of one PredictStream that are in flight at once"
    ] = 4

    max_concurrent_requests: Annotated[
        _Count,
        "requests that each process has accepted and not answered at once; what comes then is "
        "refused, and of one caller what is more than is left for others",
    ] = 8192
    max_connections: Annotated[
        _Count, "connections that each process has open at once; what comes then is closed"
    ] = 1024

    max_connection_age_s: Annotated[
        float,
        seconds(),
        "have gRPC clients connect anew after about so long, so that they find new servers; calls "
        "that are open go on; 0 for never",
    ] = 25.0
    # Balancers close theirs after 60; who closes first must not be the server.
    http_keep_alive_s: Annotated[
        float, seconds(1.0), "how long a connection over HTTP may be idle between two requests"
    ] = 75.0

    http_allowed_origins: Annotated[
        Origins,
        parsed("ORIGINS", Origins.parse, Origins, may_be_empty=True),
        "origins whose pages may call over HTTP from a browser (CORS), as 'https://app.example', "
        "with spaces between them; '*' for all",
    ] = NO_ORIGINS

    drain_seconds: Annotated[
        _Seconds,
        "how long to go on answering after a signal to stop, for balancers to look elsewhere",
    ] = 0.0
    # Less than the 10 after which containers are killed.
    stop_grace_s: Annotated[_Seconds, "how long open requests may take after a signal to stop"] = (
        8.0
    )

    log_format: Annotated[
        str,
        choice("auto", "text", "json"),
        "how the log is written, auto: text on a terminal, else JSON",
    ] = "auto"
    log_level: Annotated[
        str, choice("debug", "info", "warning", "error"), "the least that is logged"
    ] = "info"
    metrics_host: Annotated[_Address, "address to tell metrics on"] = _LOOPBACK
    metrics_port: Annotated[
        _OptionalPort, f"port to tell metrics on, 0 for a free one, {NO_PORT} for none"
    ] = NO_PORT
    tracing: Annotated[
        _Switch, "send spans of requests to where OpenTelemetry's variables say (OTEL_...)"
    ] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if problems := dict(self._contradictions()):
            raise SettingsError(problems)

    def _contradictions(self) -> Iterator[tuple[str, str]]:
        """Yield settings that do not go with others, and what is wrong."""
        if self.max_streams not in {self.streams, ServerConfig.max_streams}:
            less = f"{self.reflection_calls + 1} less than request_threads"
            yield "max_streams", f"expected at most {self.streams}, {less}, got {self.max_streams}"
        if self.is_path and self.workers > 1:
            yield "workers", f"expected 1 with a host of {_UNIX}PATH, got {self.workers}"
        if (self.tls_certificate is None) != (self.tls_key is None):
            yield "tls_certificate, tls_key", "expected both or neither, got one of them"
        if self.tls_client_ca is not None and self.tls_certificate is None:
            yield "tls_client_ca", "expected tls_certificate and tls_key with it, got none"

    @property
    def is_path(self) -> bool:
        """Return whether the host is the path of a socket."""
        return self.host.startswith(_UNIX)

    @property
    def http_host(self) -> str:
        """Return where HTTP is answered."""
        return f"{self.host}.http" if self.is_path else self.host

    @property
    def streams(self) -> int:
        """Return how many streams may be open: the default where it leaves threads for others."""
        return min(self.max_streams, self.request_threads - self.reflection_calls - 1)

    @property
    def reflection_calls(self) -> int:
        """Return how many calls of reflection may be open; of one caller two, where there are 3."""
        return min(_MAX_REFLECTION_CALLS, self.request_threads - 2)

    @property
    def max_message_bytes(self) -> int:
        """Return the largest message that the transport takes."""
        return self.max_message_mb * _BYTES_PER_MB
