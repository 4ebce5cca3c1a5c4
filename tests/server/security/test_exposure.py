"""Warnings at the start of what a server leaves open."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from mlpserve.server.security.admission import exposure_warnings
from mlpserve.server.settings.config import ServerConfig

ANYWHERE = "0.0.0.0"  # noqa: S104 - nothing is bound to it
TOKENS = {"token_file": Path("tokens")}
TLS = {"tls_certificate": Path("certificate"), "tls_key": Path("key")}
CALL, MANAGE, METRICS = "may call", "may load and unload", "may read the metrics"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"host": ANYWHERE}, [CALL]),
        ({"host": "::"}, [CALL]),
        ({"host": ANYWHERE, **TOKENS, "require_token": False}, [CALL]),
        ({"allow_management": True}, [MANAGE]),
        ({"allow_management": True, **TLS}, [MANAGE]),
        ({"allow_management": True, **TOKENS, "require_token": False}, [MANAGE]),
        ({"metrics_port": 9090, "metrics_host": ANYWHERE, **TOKENS, **TLS}, [METRICS]),
        ({"host": "::", "allow_management": True}, [CALL, MANAGE]),
    ],
    ids=str,
)
def test_what_anybody_may_do_is_said(settings: dict[str, Any], expected: list[str]) -> None:
    sentences = list(exposure_warnings(ServerConfig(**settings)))
    assert len(sentences) == len(expected)
    for sentence, part in zip(sentences, expected, strict=True):
        assert part in sentence


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"host": "localhost"},
        {"host": "::1"},
        {"host": ANYWHERE, **TOKENS},
        {"host": "::", **TLS},
        {"allow_management": True, **TOKENS},
        {"allow_management": True, **TLS, "tls_client_ca": Path("authority")},
        {"metrics_port": 9090},
        {"metrics_host": ANYWHERE},
    ],
    ids=str,
)
def test_nothing_is_said_where_nothing_is_open(settings: dict[str, Any]) -> None:
    assert list(exposure_warnings(ServerConfig(**settings))) == []


@pytest.mark.parametrize("workers", [pytest.param("1", marks=pytest.mark.exhaustive), "2"])
def test_a_server_that_starts_says_once_what_is_open(
    run_server: Callable[..., AbstractContextManager[Any]], tiny_models: None, workers: str
) -> None:
    with run_server("--allow-management", "--workers", workers) as server:
        server.stop()
    assert len([line for line in server.lines if MANAGE in line]) == 1
