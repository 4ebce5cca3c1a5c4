"""The command `mlpserve-serve`: flags in, a running server or the answer of another one out."""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from mlpserve.model.errors import ModelError
from mlpserve.model.processors import granted_processors
from mlpserve.server import signals
from mlpserve.server.config import (
    DEFAULT_HOST,
    DEFAULT_PORT,
    ServerConfig,
    address,
    blas_environment,
)
from mlpserve.server.errors import StartError
from mlpserve.server.logs import log_to_stderr
from mlpserve.server.supervisor import Supervisor

logger = logging.getLogger(__name__)

_EXIT_FAILED: Final = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = _parser().parse_args(arguments)
    if options.command == "healthcheck":
        return _healthcheck(options.target or address(options.host, options.port))
    signals.block([signal.SIGCHLD])
    log_to_stderr()
    try:
        config = _config(options)
        serve = _serve_alone if config.workers == 1 else _serve_together
        serve(config)
    except (StartError, ModelError) as error:
        print(f"mlpserve-serve: {error}", file=sys.stderr)
        return _EXIT_FAILED
    return 0


def _serve_alone(config: ServerConfig) -> None:
    """Serve in this process until a signal says to stop."""
    os.environ.update(blas_environment(config.threads))
    # Not before the signals are blocked: NumPy and gRPC start threads.
    from mlpserve.server.serving import Server  # noqa: PLC0415

    server = Server(config)
    server.start()
    _log_ready(config, server.summary, server.port, server.adapter)
    signals.wait_for_stop()
    _log_stopping(config)
    server.stop()
    logger.info("stopped")


def _serve_together(config: ServerConfig) -> None:
    """Serve in several processes until a signal says to stop."""
    supervisor = Supervisor(config)
    said, port = supervisor.start()
    _log_ready(config, said["summary"], port, said["adapter"])
    supervisor.wait_for_stop()
    _log_stopping(config)
    supervisor.stop()
    logger.info("stopped")


def _log_ready(config: ServerConfig, summary: str, port: int, adapter: str) -> None:
    logger.info("ready: serving %s on %s", summary, address(config.host, port))
    logger.info(
        "workers: %d, BLAS threads of each: %d; Predict is answered by %s",
        config.workers,
        config.threads,
        adapter,
    )


def _log_stopping(config: ServerConfig) -> None:
    logger.info("stopping: up to %g s for open requests", config.stop_grace_s)


def _healthcheck(target: str) -> int:
    from mlpserve.server.healthcheck import health_problem  # noqa: PLC0415 - it takes gRPC

    problem = health_problem(target)
    if problem is None:
        return 0
    print(f"mlpserve-serve: {problem}", file=sys.stderr)
    return _EXIT_FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mlpserve-serve", description="Serve the newest versions of all models in a folder."
    )
    _add_place_flags(parser)
    _add_limit_flags(parser)
    _add_process_flags(parser)
    commands = parser.add_subparsers(dest="command", title="other commands")
    check = commands.add_parser("healthcheck", help="exit with 0 only if a server would answer")
    check.add_argument(
        "--target",
        metavar="HOST:PORT",
        help="default: the address that --host and --port name",
    )
    return parser


def _add_place_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--models", type=Path, default=Path("models"), help="models folder; default: models")
    add("--host", default=DEFAULT_HOST, help=f"address to listen on; default: {DEFAULT_HOST}")
    port_help = f"port to listen on, 0 for a free one; default: {DEFAULT_PORT}"
    add("--port", type=int, default=DEFAULT_PORT, help=port_help)


def _add_limit_flags(parser: argparse.ArgumentParser) -> None:
    for flag, default, text in (
        ("--max-batch-images", ServerConfig.max_batch_images, "most images in one request"),
        ("--versions-per-model", ServerConfig.versions_per_model, "serve the newest N of each"),
    ):
        parser.add_argument(
            flag, type=int, default=default, metavar="N", help=f"{text}; default: {default}"
        )


def _add_process_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    workers_help = (
        "processes that serve side by side; default: the processors that are granted, divided by "
        "--threads"
    )
    add("--workers", type=int, metavar="N", help=workers_help)
    threads_help = f"BLAS threads of each; default: {ServerConfig.threads}"
    add("--threads", type=int, default=ServerConfig.threads, metavar="N", help=threads_help)
    pin_help = "let workers move between processors also where there is one for each"
    add("--no-pin", dest="pins_workers", action="store_false", help=pin_help)
    same_help = "answer with the same bits whatever else is in the batch; up to four times slower"
    add("--reproducible", action="store_true", help=same_help)
    public_help = "answer through the public gRPC API only"
    add("--no-fast-lane", dest="fast_lane", action="store_false", help=public_help)


def _config(options: argparse.Namespace) -> ServerConfig:
    workers = options.workers
    if workers is None:
        workers = max(1, granted_processors() // max(1, options.threads))
    return ServerConfig(
        models=options.models,
        host=options.host,
        port=options.port,
        workers=workers,
        threads=options.threads,
        pins_workers=options.pins_workers,
        reproducible=options.reproducible,
        fast_lane=options.fast_lane,
        max_batch_images=options.max_batch_images,
        versions_per_model=options.versions_per_model,
    )


if __name__ == "__main__":
    sys.exit(main())
