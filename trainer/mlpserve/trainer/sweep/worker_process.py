"""Process of a worker of a sweep: loads the data once, and runs trials one after the other.

When the sweep is gone, however that came, it writes a checkpoint and ends.
"""

import logging
import multiprocessing
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any, Final, TypeAlias

from mlpserve.datasets import DatasetError
from mlpserve.model.errors import ModelError
from mlpserve.model.weights import Model
from mlpserve.trainer.config import JobConfig
from mlpserve.trainer.descriptions import DataFacts
from mlpserve.trainer.errors import FolderInUseError, StoppedError, TrainingError
from mlpserve.trainer.history import EpochRecord
from mlpserve.trainer.job import run
from mlpserve.trainer.material import Material, load_material
from mlpserve.trainer.progress import Display
from mlpserve.trainer.signals import StopSignals
from mlpserve.trainer.trials import Sweep, TrialState

logger = logging.getLogger(__name__)

_FREE_WITHIN_S: Final = 60.0  # when the workers of a sweep that was killed leave their trials
_ASK_EVERY_S: Final = 0.1


@dataclass(frozen=True)
class Job:
    """One run in a worker.

    Attributes:
        config: What to train; of its data each worker loads one set only.
        is_loading: Whether only to load the data.
        sweep: The sweep to publish with it.
    """

    config: JobConfig
    is_loading: bool = False
    sweep: Sweep | None = None


@dataclass(frozen=True)
class Told:
    """Something that is to be shown; see ``Display.event``."""

    name: str
    text: str
    details: Mapping[str, Any]


@dataclass(frozen=True)
class Ended:
    """The end of a run.

    Attributes:
        state: The state that it left a trial in.
        failure: Why it failed, if it did.
        data_name: What the data is called, once it is loaded.
        data_digest: Its digest.
        published: The name and the number of the version that was published, if one was.
    """

    state: TrialState
    failure: str | None = None
    data_name: str = ""
    data_digest: str = ""
    published: tuple[str, int] | None = None


Message: TypeAlias = DataFacts | Told | EpochRecord | tuple[EpochRecord, ...] | Ended


class _Teller(Display):
    """Tells the sweep what is shown. A sweep that is gone is told nothing."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def tell(self, message: Message) -> None:
        try:
            self._connection.send(message)
        except OSError:
            logger.debug("the sweep is gone")

    def data(self, facts: DataFacts) -> None:
        self.tell(facts)

    def epoch(self, record: EpochRecord) -> None:
        self.tell(record)

    def event(self, name: str, text: str, **details: Any) -> None:  # noqa: ANN401 - as told
        if name == "resumed":
            self.tell(tuple(EpochRecord(**record) for record in details["epochs"]))
        else:
            self.tell(Told(name, text, details))


def work(connection: Connection) -> None:
    """Do runs until the sweep wants no more, or is gone.

    Args:
        connection: Gives a ``Job``, and takes messages, until an ``Ended``.
    """
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    signals = StopSignals()
    signals.install()
    # A terminal sends these to all of its processes; the sweep knows what is to be done then.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_stop_with_parent, args=(signals,), daemon=True).start()
    teller = _Teller(connection)
    material: Material | None = None
    while not signals.is_stop_wanted:
        try:
            job: Job = connection.recv()
        except (EOFError, OSError):
            return
        try:
            material = material or load_material(job.config, teller)
            teller.tell(_run(job, material, teller, signals))
        except Exception as error:  # noqa: BLE001 - which is then told by the sweep
            teller.tell(Ended(TrialState.FAILED, failure_of(error)))


def _stop_with_parent(signals: StopSignals) -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    signals.is_stop_wanted = True


def failure_of(error: Exception) -> str:
    """Return why a run failed, as a sentence."""
    if isinstance(error, MemoryError):
        return f"not enough memory: {error}"
    if isinstance(error, (DatasetError, ModelError, ModuleNotFoundError, TrainingError)):
        return str(error)
    logger.error("a fault in the trainer", exc_info=error)
    return f"a fault in the trainer: {error!r}"


def _run(job: Job, material: Material, display: Display, signals: StopSignals) -> Ended:
    loaded = Ended(TrialState.ENDED, data_name=material.dataset.name, data_digest=material.digest)
    if job.is_loading:
        return loaded
    # Its teachers are named by the versions that were loaded.
    recipe = replace(job.config.recipe, teachers=material.recipe.teachers)
    try:
        published = run_when_free(
            job.config,
            display,
            signals,
            material=replace(material, recipe=recipe),
            sweep=job.sweep,
        )
    except StoppedError:
        return replace(loaded, state=TrialState.STOPPED)
    if published is None:
        return loaded
    metadata = published.metadata
    return replace(loaded, published=(metadata.name, metadata.version))


def run_when_free(
    config: JobConfig,
    display: Display,
    signals: StopSignals,
    *,
    material: Material | None = None,
    sweep: Sweep | None = None,
) -> Model | None:
    """Run a training; where another process still has its folder, wait for it to be left.

    Raises:
        As ``job.run``.
    """
    until_s = time.monotonic() + _FREE_WITHIN_S
    while True:
        try:
            return run(config, display, signals, material=material, sweep=sweep)
        except FolderInUseError:
            if time.monotonic() > until_s:
                raise
            time.sleep(_ASK_EVERY_S)
