"""The command ``mlpserve-playground``: serves the page until it is told to stop."""

import argparse
import contextlib
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

PROGRAM: Final = "mlpserve-playground"
DEFAULT_PORT: Final = 8080
MAX_PORT: Final = 65535
TIMEOUT_S: Final = 5
GRACE_S: Final = 3
MAX_CONNECTIONS: Final = 64
_LOCAL: Final = frozenset({"127.0.0.1", "localhost", "::1"})


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve the page.

    Returns:
        The exit code.
    """
    try:
        import uvicorn  # noqa: PLC0415 - asked for here, where its absence can be answered
        from threadpoolctl import threadpool_limits  # noqa: PLC0415

        from mlpserve.client import AsyncClient, ClientError  # noqa: PLC0415
        from mlpserve.playground.app import playground  # noqa: PLC0415
        from mlpserve.playground.examples import Examples  # noqa: PLC0415
        from mlpserve.playground.networks import Networks  # noqa: PLC0415
        from mlpserve.playground.training import Training  # noqa: PLC0415
    except ModuleNotFoundError as error:
        print(
            f"{PROGRAM}: it needs more: pip install 'mlpserve[playground]' ({error})",
            file=sys.stderr,
        )
        return 1
    options = _parser().parse_args(arguments)
    try:
        AsyncClient(options.target, timeout_s=TIMEOUT_S)
    except ClientError as error:
        return _failed(f"--target: {error}")
    is_local = options.host in _LOCAL
    if options.training and not is_local and not options.allowed_host:
        return _failed("--training: expected --allowed-host, so that no other site can start one")
    may_train = is_local if options.training is None else options.training
    training = Training(options.models, options.data_dir, is_allowed=may_train)
    application = playground(
        lambda: AsyncClient(options.target, timeout_s=TIMEOUT_S),
        Networks(options.models),
        Examples(options.data, options.data_dir),
        training,
        allowed_hosts=_LOCAL if is_local else frozenset(options.allowed_host),
    )
    try:
        listening = socket.create_server((options.host, options.port), family=_family(options.host))
    except OSError as error:
        return _failed(f"{options.host} port {options.port}: {error.strerror or error}")
    config = uvicorn.Config(
        application,
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=GRACE_S,
    )
    port = listening.getsockname()[1]
    name = f"[{options.host}]" if ":" in options.host else options.host
    print(f"{PROGRAM}: http://{name}:{port}", file=sys.stderr, flush=True)
    server = uvicorn.Server(config)
    training.is_ending = lambda: server.should_exit
    # Pictures are small: threads of the BLAS would cost four times the processor, and win nothing.
    # Uvicorn raises the Ctrl-C that it has ended by once more.
    with threadpool_limits(1), contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listening])
    return 0


def _failed(message: str) -> int:
    print(f"{PROGRAM}: {message}", file=sys.stderr)
    return 1


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= MAX_PORT):
        message = f"expected a port from 0 to {MAX_PORT}, got {text!r}"
        raise argparse.ArgumentTypeError(message)
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Serve a web page to draw on, which asks an mlpserve server with every stroke.",
    )
    parser.add_argument(
        "--target",
        default="localhost:50051",
        metavar="HOST:PORT",
        help="the server that is asked; default: %(default)s",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="where the page is served; default: %(default)s"
    )
    parser.add_argument(
        "--port",
        type=_port,
        default=DEFAULT_PORT,
        help="port of the page, 0 for a free one; default: %(default)s",
    )
    parser.add_argument(
        "--models",
        type=Path,
        help="the models folder that is served, so that the page shows its networks; default: none",
    )
    parser.add_argument(
        "--data",
        default="auto",
        help="the test images to step through, as in mlpserve-train; default: %(default)s",
    )
    parser.add_argument(
        "--data-dir",
        type=Path,
        help="folder with the four MNIST files; default: $MLPSERVE_DATA_DIR, else the user's cache",
    )
    parser.add_argument(
        "--allowed-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name by which the page may be reached, if --host is not this machine; "
        "may be repeated",
    )
    parser.add_argument(
        "--training",
        action=argparse.BooleanOptionalAction,
        help="whether visitors may train, upload data for it and publish; default: only if --host "
        "is this machine",
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
