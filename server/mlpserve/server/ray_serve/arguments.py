"""Arguments of the application for Ray Serve, as `serve run` or a YAML file has them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from mlpserve.model.sync.urls import is_url, shown
from mlpserve.server.settings.config import ServerConfig
from mlpserve.server.settings.fields import (
    Settings,
    SettingsError,
    number,
    seconds,
    settings_of,
    whole_number,
)
from mlpserve.server.settings.sources import check_names

_PAGE: Final = "see docs/ray-serve.md"
# Settings of a server's ports, processes and log, for which Ray has its own.
_RAYS_OWN: Final = frozenset(
    {
        "host",
        "port",
        "http_port",
        "http_keep_alive_s",
        "http_allowed_origins",
        "metrics_host",
        "metrics_port",
        "tls_certificate",
        "tls_key",
        "tls_client_ca",
        "reflection",
        "compression",
        "max_connections",
        "max_connection_age_s",
        "workers",
        "worker_timeout_s",
        "load_timeout_s",
        "pin",
        "fast_lane",
        "drain_seconds",
        "stop_grace_s",
        "log_format",
    }
)
# Calls that are answered together are joined, so there are more of them than in a server's threads.
_DEFAULTS: Final[Mapping[str, object]] = {"request_threads": 64}


@dataclass(frozen=True)
class Replicas(Settings):
    """How many replicas there are, and what each takes; Ray's own names for it.

    Raises:
        SettingsError: Settings are out of their range, or do not go together.
    """

    min_replicas: Annotated[int, whole_number(0), "the fewest replicas"] = 1
    max_replicas: Annotated[int, whole_number(1), "the most replicas"] = 4
    target_ongoing_requests: Annotated[
        float, number(0.01), "requests of each replica at once that Ray adds or takes away for"
    ] = 16.0
    upscale_delay_s: Annotated[
        float, seconds(), "how long there have to be more before Ray adds a replica"
    ] = 10.0
    downscale_delay_s: Annotated[
        float, seconds(), "how long there have to be fewer before Ray takes one away"
    ] = 120.0
    look_back_period_s: Annotated[
        float,
        seconds(10.1),  # Ray has a figure every 10
        "over how long Ray takes the mean of requests at once",
    ] = 30.0
    max_queued_requests: Annotated[
        int, whole_number(-1), "requests that may wait in each proxy, -1 for no limit"
    ] = 8192
    num_cpus: Annotated[float, number(0.0), "processors that Ray reserves for each replica"] = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_replicas > self.max_replicas:
            at_most = f"expected at most max_replicas, {self.max_replicas}"
            raise SettingsError({"min_replicas": f"{at_most}, got {self.min_replicas}"})


def read_arguments(arguments: Mapping[str, object]) -> tuple[Replicas, ServerConfig]:
    """Return what arguments say, as of ``app``.

    Raises:
        SettingsError: Arguments are none, or cannot be used; all of them are named.
    """
    of_replicas = {setting.name for setting in settings_of(Replicas)}
    of_server = {setting.name for setting in settings_of(ServerConfig)}
    check_names(arguments, of_replicas | of_server)
    if problems := dict(_not_for_replicas(arguments)):
        raise SettingsError(problems)
    replicas = Replicas(**{name: arguments[name] for name in of_replicas & arguments.keys()})  # type: ignore[arg-type] # it parses
    given = {name: arguments[name] for name in of_server & arguments.keys()}
    return replicas, ServerConfig(**{**_DEFAULTS, **given})  # type: ignore[arg-type] # as above


def _not_for_replicas(arguments: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Yield settings of a server that replicas do not have, and what to do."""
    for name in arguments:
        if name in _RAYS_OWN:
            yield name, f"expected no such argument, Ray Serve has its own: {_PAGE}"
        elif name == "allow_management":
            yield (
                name,
                (
                    "expected no such argument: a call would change one replica of several; "
                    f"publish into the models folder instead, {_PAGE}"
                ),
            )
    models = arguments.get("models", "")
    if not is_url(str(models)) and not Path(str(models)).is_absolute():
        yield (
            "models",
            (
                "expected the absolute path of a folder that all nodes have, or a URL, "
                f"got {shown(models)[:200]!r}"
            ),
        )
