"""The command `mlpserve-train`: flags in, a run of the job, an exit code out."""

import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from mlpserve.datasets import DatasetError
from mlpserve.model.errors import ModelError
from mlpserve.trainer.arguments import job_config, train_parser
from mlpserve.trainer.errors import ExportError, TrainingError
from mlpserve.trainer.evaluate import main as evaluate_main
from mlpserve.trainer.export.command import main as export_main
from mlpserve.trainer.fitting import StoppedError
from mlpserve.trainer.job import run
from mlpserve.trainer.output import unfailing
from mlpserve.trainer.progress import display_for
from mlpserve.trainer.signals import EndedBySignal, StopSignals

_EXIT_FAILED: Final = 1
_EXIT_STOPPED: Final = 75  # of sysexits.h: not done yet, try again
_COMMANDS: Final[Mapping[str, Callable[[Sequence[str]], object]]] = {
    "evaluate": evaluate_main,
    "export": export_main,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code.

    0 where all was done, 75 where a training was stopped that can be resumed, 1 for what failed, 2
    for flags that do not exist, and 128 and the number of a signal where there was nothing to
    save, or no time.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    signals = StopSignals()
    signals.install()
    try:
        if arguments and arguments[0] in _COMMANDS:
            _run(_COMMANDS[arguments[0]], arguments[1:])
        else:
            _train(arguments, signals)
    except (DatasetError, ExportError, ModelError, ModuleNotFoundError, TrainingError) as error:
        return _ended(str(error), _EXIT_FAILED)
    except MemoryError as error:
        return _ended(f"not enough memory: {error}", _EXIT_FAILED)
    except StoppedError:
        return _ended("stopped; the same with --resume goes on", _EXIT_STOPPED)
    except EndedBySignal as end:
        return _ended(end.word, end.exit_code)
    return 0


def _train(arguments: Sequence[str], signals: StopSignals) -> None:
    options = train_parser().parse_args(arguments)
    config = job_config(options)
    # The version is what counts, not who watches. None is a descriptor that is closed.
    sys.stdout, sys.stderr = (stream and unfailing(stream) for stream in (sys.stdout, sys.stderr))
    try:
        run(config, display_for(options.log_format), signals)
    except EndedBySignal as end:
        # With checkpoints the first signal says "later", whatever it came upon.
        if config.checkpoint_folder is None or signals.is_stop_wanted:
            raise
        raise StoppedError from end


def _run(command: Callable[[Sequence[str]], object], arguments: Sequence[str]) -> None:
    """Run a command whose output is what it is for."""
    try:
        command(arguments)
        sys.stdout.flush()
    except OSError as error:
        # What Python still holds back would fail once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        # Whoever read our output has had enough, as `head` has; that is no failure.
        if not isinstance(error, BrokenPipeError):
            raise TrainingError(f"the output cannot be written: {error.strerror}") from error


def _ended(message: str, code: int) -> int:
    print(f"mlpserve-train: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
