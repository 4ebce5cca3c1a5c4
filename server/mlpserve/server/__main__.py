"""The command `mlpserve-serve`: flags in, a running server or the answer of another one out."""

import argparse
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from mlpserve.model.errors import ModelError
from mlpserve.server.config import DEFAULT_HOST, DEFAULT_PORT, ServerConfig, address
from mlpserve.server.errors import StartError
from mlpserve.server.healthcheck import health_problem

_EXIT_FAILED: Final = 1
_STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_TOGETHER_S: Final = 0.1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = _parser().parse_args(arguments)
    if options.command == "healthcheck":
        return _healthcheck(options.target or address(options.host, options.port))
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    return _serve(options)


def _serve(options: argparse.Namespace) -> int:
    """Serve until a signal says to stop."""
    # Not a handler that sets an event: two signals at once may leave its waiter waiting for ever.
    # Blocked before NumPy and gRPC start their threads, which inherit it: then only we are told.
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    from mlpserve.server.serving import Server  # noqa: PLC0415

    try:
        server = Server(_config(options))
    except (StartError, ModelError) as error:
        print(f"mlpserve-serve: {error}", file=sys.stderr)
        return _EXIT_FAILED
    server.start()
    signal.sigwait(_STOP_SIGNALS)
    # What comes together is one wish to stop, as when both a terminal and a supervisor send theirs.
    while signal.sigtimedwait(_STOP_SIGNALS, _TOGETHER_S):
        pass
    # Whoever asks a second time does not want to wait: from here on signals end the process.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
    server.stop()
    return 0


def _healthcheck(target: str) -> int:
    problem = health_problem(target)
    if problem is None:
        return 0
    print(f"mlpserve-serve: {problem}", file=sys.stderr)
    return _EXIT_FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mlpserve-serve", description="Serve the newest versions of all models in a folder."
    )
    parser.add_argument(
        "--models", type=Path, default=Path("models"), help="models folder; default: models"
    )
    parser.add_argument(
        "--host", default=DEFAULT_HOST, help=f"address to listen on; default: {DEFAULT_HOST}"
    )
    parser.add_argument(
        "--port",
        type=int,
        default=DEFAULT_PORT,
        help=f"port to listen on, 0 for a free one; default: {DEFAULT_PORT}",
    )
    parser.add_argument(
        "--max-batch-images",
        type=int,
        default=ServerConfig.max_batch_images,
        metavar="N",
        help=f"most images in one request; default: {ServerConfig.max_batch_images}",
    )
    parser.add_argument(
        "--versions-per-model",
        type=int,
        default=ServerConfig.versions_per_model,
        metavar="N",
        help=f"serve the newest N of each; default: {ServerConfig.versions_per_model}",
    )
    commands = parser.add_subparsers(dest="command", title="other commands")
    check = commands.add_parser("healthcheck", help="exit with 0 only if a server would answer")
    check.add_argument(
        "--target",
        metavar="HOST:PORT",
        help="default: the address that --host and --port name",
    )
    return parser


def _config(options: argparse.Namespace) -> ServerConfig:
    return ServerConfig(
        models=options.models,
        host=options.host,
        port=options.port,
        max_batch_images=options.max_batch_images,
        versions_per_model=options.versions_per_model,
    )


if __name__ == "__main__":
    sys.exit(main())
