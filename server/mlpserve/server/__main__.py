"""The command ``mlpserve-serve``: runs a server, checks one, or makes a token."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NoReturn

from mlpserve.model.command_line import OutputError, failed, print_lines
from mlpserve.model.errors import ModelError
from mlpserve.model.processors import granted_processors
from mlpserve.model.sync.urls import shown
from mlpserve.server.errors import StartError
from mlpserve.server.security.admission import exposure_warnings
from mlpserve.server.security.tokens import new_token
from mlpserve.server.settings.config import ServerConfig, blas_environment
from mlpserve.server.settings.fields import VARIABLE_PREFIX
from mlpserve.server.settings.sources import (
    add_flags,
    as_toml,
    link_variables,
    read_settings,
    unknown_variables,
)
from mlpserve.server.system import signals
from mlpserve.server.system.descriptors import raise_limit, warn_of_few
from mlpserve.server.system.environment import settle
from mlpserve.server.system.memory import trim_memory
from mlpserve.server.system.ports import address
from mlpserve.server.system.threads import watch_threads
from mlpserve.server.telemetry.endpoint import open_endpoint
from mlpserve.server.telemetry.logs import log_to_stderr
from mlpserve.server.telemetry.snapshots import Aggregate
from mlpserve.server.workers.supervisor import Supervisor

if TYPE_CHECKING:  # it starts threads
    from mlpserve.server.server import Server

logger = logging.getLogger("mlpserve.server")  # __name__ is not ours with `python -m`

_PROGRAM: Final = "mlpserve-serve"
_ONLY: Final = "server"  # what the process is called in metrics where there is but one


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        config, sources = read_settings(ServerConfig, vars(options), os.environ)
        if options.command == "healthcheck":
            return _healthcheck(config, options)
        if options.command == "token":
            token, line = new_token(options.name)
            print_lines([f"for the caller:           {token}", f"line of the token file:   {line}"])
        elif options.print_config:
            print_lines([as_toml(config, sources)])
        else:
            config = replace(config, workers=config.workers or _default_workers(config))
            _prepare(config)
            _serve(config)
    except (StartError, ModelError, OutputError) as error:
        return failed(_PROGRAM, str(error))
    return 0


def _healthcheck(config: ServerConfig, options: argparse.Namespace) -> int:
    from mlpserve.server.healthcheck import health_problem  # noqa: PLC0415 - it takes gRPC

    target = options.target or address(config.host, config.port)
    problem = health_problem(
        target, certificate=config.tls_certificate, key=config.tls_key, name=options.server_name
    )
    return 0 if problem is None else failed(_PROGRAM, problem)


def _default_workers(config: ServerConfig) -> int:
    return 1 if config.is_path else max(1, granted_processors() // config.threads)


def _prepare(config: ServerConfig) -> None:
    """Prepare this process, and those that it starts."""
    signals.block()  # before there are threads, as all that is above the log
    # gRPC's core writes past our log, and as often as callers like: also what they sent, as it is,
    # newlines and all.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    if config.workers == 1:
        settle(blas_environment(config.threads))
    log_to_stderr(config.log_format, config.log_level)
    watch_threads()
    raise_limit()
    warn_of_few(config.max_connections)
    if injected := link_variables(os.environ):
        logger.debug("no settings, injected for a Service: %s", ", ".join(sorted(injected)))
    for problem in unknown_variables(ServerConfig, os.environ):
        logger.warning(problem)


def _serve(config: ServerConfig) -> None:
    """Serve, in this process or in several, until a signal says to stop."""
    server, aggregate = _built(config)
    endpoint = open_endpoint(config, aggregate)
    if _has_started(server):
        _log_start(config, server)
        signals.wait_for_stop(server.reload)
        logger.info("stopping: up to %g s for open requests", config.stop_grace_s)
        server.stop()
    if endpoint is not None:
        endpoint.close()
    logger.info("stopped")


def _has_started(server: "Server | Supervisor") -> bool:
    """Start a server; return False where a signal to stop came first, to its workers too.

    Raises:
        StartError: It cannot start.
    """
    try:
        server.start()
    except StartError:
        if signals.has_been_told_to_stop():
            return False
        raise
    return True


def _built(config: ServerConfig) -> tuple["Server | Supervisor", Aggregate[Any]]:
    """Return what serves, and what counts for it."""
    if config.workers > 1:
        supervisor = Supervisor(config)
        return supervisor, supervisor.aggregate
    trim_memory()
    # Not before the signals are blocked: gRPC starts threads.
    from mlpserve.server.server import Server  # noqa: PLC0415

    server = Server(config)
    return server, Aggregate(lambda: {_ONLY: server.metrics(_ONLY)})


def _log_start(config: ServerConfig, server: "Server | Supervisor") -> None:
    own_address = address(config.host, server.port)
    if server.lifecycle is not None and server.lifecycle.controller.plan.is_ready:
        plan = server.lifecycle.controller.plan
        logger.info("ready: serving %s on %s", plan.summary, own_address)
    else:
        place = shown(config.models)
        is_url = isinstance(config.models, str)
        logger.info(
            "not ready: listening on %s, but %s has no NAME/VERSION/weights.npz that can be used%s",
            *(own_address, place),
            "" if is_url else f"; train one with: mlpserve-train --models {place}",
        )
    if server.http_port is not None:
        logger.info("HTTP is answered on %s", address(config.http_host, server.http_port))
    for sentence in exposure_warnings(config):
        logger.warning(sentence)
    logger.info(
        "workers: %d, BLAS threads of each: %d; Predict is answered by %s",
        *(config.workers, config.threads, server.adapter),
    )


class _Parser(argparse.ArgumentParser):
    """Repeats no secret of a URL that it does not understand."""

    def error(self, message: str) -> NoReturn:
        """End the program."""
        super().error(shown(message))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=_PROGRAM,
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


if __name__ == "__main__":
    sys.exit(main())
