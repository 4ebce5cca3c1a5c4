"""The command `mlpserve-serve`: flags in, a running server or the answer of another one out."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, NoReturn

from mlpserve.model.errors import ModelError
from mlpserve.model.processors import granted_processors
from mlpserve.model.sync.urls import shown
from mlpserve.server.errors import StartError
from mlpserve.server.models.plan import Plan
from mlpserve.server.security.exposure import exposure_warnings
from mlpserve.server.security.tokens import new_token
from mlpserve.server.settings.config import ServerConfig, blas_environment
from mlpserve.server.settings.fields import VARIABLE_PREFIX
from mlpserve.server.settings.sources import (
    add_flags,
    as_toml,
    given_settings,
    settings_from,
    unknown_variables,
)
from mlpserve.server.system import signals
from mlpserve.server.system.descriptors import allow_many, warn_of_few
from mlpserve.server.system.ports import address
from mlpserve.server.telemetry.endpoint import open_endpoint
from mlpserve.server.telemetry.logs import log_to_stderr
from mlpserve.server.telemetry.snapshots import Aggregate
from mlpserve.server.workers.supervisor import Supervisor

logger = logging.getLogger(__name__)

_EXIT_FAILED: Final = 1
_ONLY: Final = "server"  # what the process is called in metrics where there is but one


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        given = given_settings(ServerConfig, vars(options), os.environ)
        config = settings_from(ServerConfig, given)
        if options.command == "healthcheck":
            return _healthcheck(config, options)
        if options.command == "token":
            return _token(options.name)
        if options.print_config:
            print(as_toml(config, given))
            return 0
        # Before the log, which has a thread; but not for the commands above, which start none.
        signals.block()
        log_to_stderr(config.log_format, config.log_level)
        # gRPC's core writes past our log, and as often as callers like: also what they sent, as it
        # is, newlines and all.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        allow_many()
        warn_of_few(config.max_connections)
        for problem in unknown_variables(ServerConfig, os.environ):
            logger.warning(problem)
        _serve(_with_workers(config))
    except (StartError, ModelError) as error:
        for line in str(error).splitlines():
            print(f"mlpserve-serve: {line}", file=sys.stderr)
        return _EXIT_FAILED
    return 0


def _serve(config: ServerConfig) -> None:
    if config.workers == 1:
        _serve_alone(config)
    else:
        _serve_together(config)


def _serve_alone(config: ServerConfig) -> None:
    """Serve in this process until a signal says to stop."""
    os.environ.update(blas_environment(config.threads))
    # Not before the signals are blocked: NumPy and gRPC start threads.
    from mlpserve.server.server import Server  # noqa: PLC0415

    server = Server(config)
    endpoint = open_endpoint(config, Aggregate(lambda: {_ONLY: server.metrics(_ONLY)}))
    server.start()
    plan = server.lifecycle.controller.plan if server.lifecycle else Plan({})
    _log_ready(config, plan, server.port, server.http_port)
    _log_how(config, server.adapter)
    signals.wait_for_stop(server.look)
    _log_stopping(config)
    server.stop()
    if endpoint is not None:
        endpoint.close()
    logger.info("stopped")


def _serve_together(config: ServerConfig) -> None:
    """Serve in several processes until a signal says to stop."""
    supervisor = Supervisor(config)
    endpoint = open_endpoint(config, supervisor.aggregate)
    adapter = supervisor.start()
    plan = supervisor.lifecycle.controller.plan
    _log_ready(config, plan, supervisor.port, supervisor.http_port)
    _log_how(config, adapter)
    signals.wait_for_stop(supervisor.reload)
    _log_stopping(config)
    supervisor.stop()
    if endpoint is not None:
        endpoint.close()
    logger.info("stopped")


def _log_ready(config: ServerConfig, plan: Plan, port: int, http_port: int | None) -> None:
    if plan.is_ready:
        logger.info("ready: serving %s on %s", plan.summary, address(config.host, port))
    else:
        logger.info(
            "not ready: listening on %s, but %s has no NAME/VERSION/weights.npz that can be used%s",
            *(address(config.host, port), *_where(config.models)),
        )
    if http_port is not None:
        logger.info("HTTP is answered on %s", address(config.host, http_port))


def _log_how(config: ServerConfig, adapter: str) -> None:
    for sentence in exposure_warnings(config):
        logger.warning(sentence)
    logger.info(
        "workers: %d, BLAS threads of each: %d; Predict is answered by %s",
        config.workers,
        config.threads,
        adapter,
    )


def _where(models: Path | str) -> tuple[str, str]:
    """Return where models are looked for, and what to do to have some there."""
    place = shown(models)
    if isinstance(models, str):
        return place, ""
    return place, f"; train one with: mlpserve-train --models {place}"


def _log_stopping(config: ServerConfig) -> None:
    logger.info("stopping: up to %g s for open requests", config.stop_grace_s)


def _token(name: str) -> int:
    token, line = new_token(name)
    print(f"for the caller:           {token}")
    print(f"line of the token file:   {line}")
    return 0


def _healthcheck(config: ServerConfig, options: argparse.Namespace) -> int:
    from mlpserve.server.healthcheck import health_problem  # noqa: PLC0415 - it takes gRPC

    target = options.target or address(config.host, config.port)
    problem = health_problem(
        target, certificate=config.tls_certificate, key=config.tls_key, name=options.server_name
    )
    if problem is None:
        return 0
    print(f"mlpserve-serve: {problem}", file=sys.stderr)
    return _EXIT_FAILED


class _Parser(argparse.ArgumentParser):
    """Repeats no secret of a URL that it does not understand."""

    def error(self, message: str) -> NoReturn:
        """End the program."""
        super().error(shown(message))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="mlpserve-serve",
        description="Serve the models of a folder.",
        epilog=(
            f"Each setting may also be given as an environment variable ({VARIABLE_PREFIX}PORT) or "
            "in the TOML file (port = 50051); flags come before variables, and those before it."
        ),
    )
    add_flags(parser, ServerConfig)
    parser.add_argument(
        "--print-config", action="store_true", help="print all settings as a TOML file, and end"
    )
    commands = parser.add_subparsers(dest="command", title="other commands")
    check = commands.add_parser("healthcheck", help="exit with 0 only if a server would answer")
    check.add_argument(
        "--target",
        metavar="HOST:PORT",
        help="default: the address that --host and --port name",
    )
    check.add_argument(
        "--server-name",
        default="localhost",
        metavar="NAME",
        help="one of the names in the server's certificate, where there is one; default: localhost",
    )
    token = commands.add_parser("token", help="make a bearer token, and its line of the token file")
    token.add_argument("name", metavar="NAME", help="what the caller is called")
    return parser


def _with_workers(config: ServerConfig) -> ServerConfig:
    if config.workers:
        return config
    return replace(config, workers=max(1, granted_processors() // config.threads))


if __name__ == "__main__":
    sys.exit(main())
