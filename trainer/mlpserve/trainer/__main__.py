"""The command `mlpserve-train`: flags in, a run of the job, an exit code out."""

import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Final

from mlpserve.datasets import DatasetError
from mlpserve.model.errors import ModelError
from mlpserve.trainer.arguments import job_config, train_parser
from mlpserve.trainer.errors import ExportError, TrainingError
from mlpserve.trainer.evaluate import main as evaluate_main
from mlpserve.trainer.export.command import main as export_main
from mlpserve.trainer.fitting import StoppedError
from mlpserve.trainer.job import run
from mlpserve.trainer.progress import display_for
from mlpserve.trainer.signals import StopSignals

_EXIT_FAILED: Final = 1
_EXIT_STOPPED: Final = 75  # of sysexits.h: not done yet, try again
_COMMANDS: Final[Mapping[str, Callable[[Sequence[str]], object]]] = {
    "evaluate": evaluate_main,
    "export": export_main,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code.

    0 where all was done, 75 where a training was stopped and can be resumed, 1 for what failed, 2
    for flags that do not exist, and 128 and the number of a signal where there was nothing to save.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    signals = StopSignals()
    signals.install()
    try:
        if arguments and arguments[0] in _COMMANDS:
            _COMMANDS[arguments[0]](arguments[1:])
        else:
            _train(arguments, signals)
    except (DatasetError, ExportError, ModelError, ModuleNotFoundError, TrainingError) as error:
        print(f"mlpserve-train: {error}", file=sys.stderr)
        return _EXIT_FAILED
    except MemoryError as error:
        print(f"mlpserve-train: not enough memory: {error}", file=sys.stderr)
        return _EXIT_FAILED
    except StoppedError:
        print("mlpserve-train: stopped; --resume goes on from the checkpoint", file=sys.stderr)
        return _EXIT_STOPPED
    return 0


def _train(arguments: Sequence[str], signals: StopSignals) -> None:
    options = train_parser().parse_args(arguments)
    config = job_config(options)
    display = display_for(options.log_format, _print_line)
    # Without checkpoints there is nothing to save, so nothing to wait for.
    noting = nullcontext() if config.checkpoint_folder is None else signals.noted_only()
    with noting:
        run(config, display, lambda: signals.is_stop_wanted)


def _print_line(line: str) -> None:
    """Print a line; where nobody takes it any more, go on without: the version is what counts."""
    try:
        print(line, flush=True)
    except OSError:
        # What Python still holds back would fail once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
