"""The command ``mlpserve-train``: runs a job or one of the commands; returns an exit code."""

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from mlpserve.datasets import DatasetError
from mlpserve.model.command_line import OutputError, failed, standard_output
from mlpserve.model.errors import ModelError
from mlpserve.trainer.arguments import job_config, train_parser
from mlpserve.trainer.errors import ExportError, StoppedError, TrainingError
from mlpserve.trainer.evaluate import main as evaluate_main
from mlpserve.trainer.export.command import main as export_main
from mlpserve.trainer.job import run
from mlpserve.trainer.output import unfailing
from mlpserve.trainer.progress import display_for
from mlpserve.trainer.signals import EndedBySignal, StopSignals
from mlpserve.trainer.sweep.command import main as sweep_main

_PROGRAM: Final = "mlpserve-train"
_EXIT_STOPPED: Final = 75  # of sysexits.h: not done yet, try again
_COMMANDS: Final[Mapping[str, Callable[[Sequence[str]], object]]] = {
    "evaluate": evaluate_main,
    "export": export_main,
}
_FAILURES: Final = (
    DatasetError,
    ExportError,
    ModelError,
    ModuleNotFoundError,
    OutputError,
    TrainingError,
)


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
        if arguments and arguments[0] == "sweep":
            sweep_main(arguments[1:], signals)
        elif arguments and arguments[0] in _COMMANDS:
            with standard_output():
                _COMMANDS[arguments[0]](arguments[1:])
        else:
            _train(arguments, signals)
    except _FAILURES as error:
        return failed(_PROGRAM, str(error))
    except MemoryError as error:
        return failed(_PROGRAM, f"not enough memory: {error}")
    except StoppedError as error:
        return failed(_PROGRAM, str(error), _EXIT_STOPPED)
    except EndedBySignal as end:
        return failed(_PROGRAM, end.word, end.exit_code)
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
        raise StoppedError("stopped; the same with --resume goes on") from end


if __name__ == "__main__":
    sys.exit(main())
