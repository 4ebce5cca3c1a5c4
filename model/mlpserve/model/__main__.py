"""The command ``mlpserve-models``: its flags in, lines and an exit code out."""

import argparse
import importlib
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

from mlpserve.model.command_line import (
    EXIT_INTERRUPTED,
    CommandError,
    OutputError,
    failed,
    print_lines,
    user_path,
)
from mlpserve.model.errors import ModelError
from mlpserve.model.folder import is_version
from mlpserve.model.labels import CANARY, STABLE

_MODELS_HELP: Final = "models folder; default: models"
_REFERENCE: Final = "NAME[:VERSION|:LABEL]"
_MIN_PERIOD_S: Final = 0.1
_JSON_HELP: Final = "print one JSON document, for programs"
# Adds a command to the parser, and returns the parser of its flags.
_Add: TypeAlias = "Callable[..., _CommandParser]"
_Run: TypeAlias = Callable[[argparse.Namespace], Iterable[str]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code.

    0 where all was done, 1 for what failed, 2 for flags that do not exist, and 130 where it was
    interrupted.
    """
    try:
        options = _parser().parse_args(arguments)
        print_lines(options.run(options))
    except (CommandError, ModelError, OutputError) as error:
        return failed("mlpserve-models", str(error))
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    """Return the parser; what it returns has ``run``, which takes it and returns lines to print."""
    made = argparse.ArgumentParser(
        prog="mlpserve-models",
        description="Look at the versions in a models folder, label, check and delete them: while "
        "trainers write and servers read.",
        epilog="Exit codes: 0 done, 1 failed, 2 wrong flags, 130 interrupted.",
    )
    made.add_argument("--models", type=user_path, default=Path("models"), help=_MODELS_HELP)
    # After the command as well; what stands there counts.
    shared = _CommandParser(add_help=False)
    shared.add_argument("--models", type=user_path, default=argparse.SUPPRESS, help=_MODELS_HELP)
    commands = made.add_subparsers(
        title="commands", required=True, metavar="COMMAND", parser_class=_CommandParser
    )
    add = partial(commands.add_parser, parents=[shared])
    for add_command in _COMMANDS:
        add_command(add)
    return made


class _CommandParser(argparse.ArgumentParser):
    """Parser of the flags of a command, some of which may be added only when it is used.

    Attributes:
        add_later: Adds them; called once.
    """

    add_later: Callable[[argparse.ArgumentParser], None] | None = None

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # noqa: ANN401
        """See ``argparse``, which calls it for the command that was given."""
        add, self.add_later = self.add_later, None
        if add is not None:
            add(self)
        return super().parse_known_args(args, namespace)


def _add_list(add: _Add) -> None:
    command = add("list", help="all versions of all models, checked, in a table")
    command.add_argument("--json", action="store_true", help=_JSON_HELP)
    command.set_defaults(run=_imported("listing", "list_models"))


def _add_show(add: _Add) -> None:
    command = add("show", help="all that is known of one version")
    command.add_argument("model", metavar=_REFERENCE, help="default: the newest version of NAME")
    command.add_argument("--json", action="store_true", help=_JSON_HELP)
    command.set_defaults(run=_imported("listing", "show_version"))


def _add_label(add: _Add) -> None:
    command = add("label", help="have a label mean a version")
    command.add_argument("name", metavar="NAME")
    command.add_argument("version", metavar="VERSION", nargs="?", help="not with --remove")
    command.add_argument("label", metavar="LABEL", help="new or not: stable, canary, any word")
    command.add_argument("--remove", action="store_true", help="take the label away instead")
    command.set_defaults(run=_imported("changes", "label_version"), wrong=command.error)


def _add_promote(add: _Add) -> None:
    command = add("promote", help="have stable mean what canary means, or another version")
    command.add_argument("name", metavar="NAME")
    which_help = f"default: what {CANARY} means, if there is such a label, else the newest version"
    command.add_argument("which", metavar="VERSION|LABEL", nargs="?", help=which_help)
    command.add_argument("--label", default=STABLE, help=f"what to set; default: {STABLE}")
    command.set_defaults(run=_imported("changes", "promote"))


def _add_rollback(add: _Add) -> None:
    command = add("rollback", help="have a label mean again what it meant before")
    command.add_argument("name", metavar="NAME")
    command.add_argument(
        "label", metavar="LABEL", nargs="?", default=STABLE, help=f"default: {STABLE}"
    )
    command.set_defaults(run=_imported("changes", "rollback"))


def _add_compare(add: _Add) -> None:
    command = add("compare", help="judge two versions by the same test images, as a page")
    command.add_later = _add_compare_flags


def _add_compare_flags(command: argparse.ArgumentParser) -> None:
    # Data and pages are the trainer's, which this part must not import, and most need not have.
    try:
        module = importlib.import_module("mlpserve.trainer.comparison.command")
    except ModuleNotFoundError as missing:
        raise CommandError(
            "compare needs what trains: pip install 'mlpserve[trainer]'"
        ) from missing
    module.add_flags(command)


def _add_verify(add: _Add) -> None:
    command = add("verify", help="check versions: digest, format, shapes, values, golden samples")
    which_help = "default: all versions of all models; NAME alone: all of its versions"
    command.add_argument("model", metavar=_REFERENCE, nargs="?", help=which_help)
    command.set_defaults(run=_imported("examination", "verify"))


def _add_prune(add: _Add) -> None:
    command = add("prune", help="delete old versions, never one with a label")
    which = command.add_mutually_exclusive_group(required=True)
    which.add_argument("name", metavar="NAME", nargs="?")
    which.add_argument("--all", action="store_true", help="of all models")
    keep_help = "how many of the newest versions to keep; those that cannot be used do not count"
    command.add_argument("--keep", type=_positive, required=True, metavar="N", help=keep_help)
    command.add_argument("--dry-run", action="store_true", help="only say what would be deleted")
    command.set_defaults(run=_imported("changes", "prune_versions"))


def _add_sync(add: _Add) -> None:
    command = add("sync", help="keep a folder equal to an object store", parents=[])
    command.add_argument("url", metavar="URL", help="as in s3://bucket/models; - to read it")
    command.add_argument("folder", metavar="FOLDER", type=user_path, help="for these models alone")
    command.add_argument("--once", action="store_true", help="fail where they are not equal then")
    command.add_argument(
        "--period-s",
        type=_period_s,
        default=5.0,
        metavar="SECONDS",
        help="how long to wait between looks; default: 5",
    )
    command.add_argument(
        "--max-version-mb",
        type=_positive,
        default=256,
        metavar="N",
        help="largest weights file that is copied; default: 256",
    )
    command.add_argument("--log-format", choices=("text", "json"), default="text")
    command.add_argument(
        "--until-eof", action="store_true", help="end when standard input ends, as signals do"
    )
    command.set_defaults(run=_imported("syncing", "sync"))


def _imported(module: str, name: str) -> _Run:
    """Return a function of a module that is imported when it runs.

    ``sync`` stays small for it: it needs no NumPy.
    """

    def run(options: argparse.Namespace) -> Iterable[str]:
        found: _Run = getattr(importlib.import_module(f"mlpserve.model.commands.{module}"), name)
        return found(options)

    return run


def _period_s(text: str) -> float:
    period_s = float(text)
    if not _MIN_PERIOD_S <= period_s < math.inf:
        raise argparse.ArgumentTypeError(f"expected at least {_MIN_PERIOD_S:g}, got {text[:80]!r}")
    return period_s


def _positive(text: str) -> int:
    if not is_version(text):
        raise argparse.ArgumentTypeError(f"expected a number from 1, got {text[:80]!r}")
    return int(text)


_COMMANDS: Final = (
    _add_list,
    _add_show,
    _add_compare,
    _add_label,
    _add_promote,
    _add_rollback,
    _add_verify,
    _add_prune,
    _add_sync,
)


if __name__ == "__main__":
    sys.exit(main())
