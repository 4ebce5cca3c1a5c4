"""Flags of the server and the model that are asked, and the client that they make."""

import argparse
import os
from pathlib import Path
from typing import Any, Final

import grpc

from mlpserve.client import Client, InvalidRequestError
from mlpserve.client.client import DEFAULT_TIMEOUT_S
from mlpserve.model.command_line import user_path

TOKEN_VARIABLE: Final = "MLPSERVE_TOKEN"  # noqa: S105 - its name
_VERSION_HELP: Final = "default: that of the server's default label, or else the newest"


def add_server(parser: argparse.ArgumentParser) -> None:
    """Add the flags that ``connected_client`` reads."""
    flags = parser.add_argument_group(
        "server",
        f"A server that asks for a bearer token gets that of the variable {TOKEN_VARIABLE}.",
    )
    flags.add_argument(
        "--target",
        default="localhost:50051",
        metavar="HOST:PORT",
        help="the server; default: localhost:50051",
    )
    flags.add_argument(
        "--tls", action="store_true", help="speak TLS, and trust whom this system trusts"
    )
    flags.add_argument(
        "--tls-ca",
        type=user_path,
        metavar="FILE",
        help="speak TLS, and trust the certificates in this file",
    )
    flags.add_argument(
        "--timeout",
        type=float,
        default=DEFAULT_TIMEOUT_S,
        metavar="S",
        help=f"seconds that a call may take; default: {DEFAULT_TIMEOUT_S:g}",
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the flags ``--model``, ``--version`` and ``--label``."""
    flags = parser.add_argument_group("model")
    flags.add_argument(
        "--model", default="", help="needed where several models are served, none by default"
    )
    which = flags.add_mutually_exclusive_group()
    which.add_argument("--version", type=int, default=0, metavar="N", help=_VERSION_HELP)
    which.add_argument("--label", default="", help="the version that this label means: canary")


def connected_client(options: argparse.Namespace) -> Client:
    """Return a client of the server that the flags name.

    Raises:
        InvalidRequestError: A flag is out of its range, or a file of certificates cannot be read.
    """
    return Client(**connection_arguments(options))


def connection_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of a client of the server that the flags name.

    Raises:
        InvalidRequestError: A file of certificates cannot be read.
    """
    credentials = None
    if options.tls or options.tls_ca:
        credentials = grpc.ssl_channel_credentials(_content(options.tls_ca))
    return {
        "target": options.target,
        "timeout_s": options.timeout,
        "credentials": credentials,
        "token": os.environ.get(TOKEN_VARIABLE, ""),
    }


def _content(path: Path | None) -> bytes | None:
    try:
        return path.read_bytes() if path else None
    except OSError as error:
        raise InvalidRequestError(f"{path}: cannot be read: {error.strerror}") from error
