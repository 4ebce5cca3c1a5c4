"""Jobs: shards that are done apart, here or on a cluster, each into a part of an output folder.

An engine is a function that yields shards as they are done; what is done to one is the same
function for all engines.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from mlpserve.client import ClientError, Predictions
from mlpserve.client.predict.batches import Batch, Failure, Rows, Wanted, read_batches
from mlpserve.client.predict.files import ImageFile
from mlpserve.client.predict.parquet import batch_table
from mlpserve.client.predict.parts import Parts
from mlpserve.client.predict.predictors import Predictor
from mlpserve.client.predict.run import Speed, written
from mlpserve.client.predict.shards import Shard
from mlpserve.client.predict.stores import local_copies
from mlpserve.client.predict.tally import Tally
from mlpserve.datasets import DatasetError

Engine: TypeAlias = Callable[[Sequence[Shard], "Job"], Iterator[tuple[Shard, Tally]]]


@dataclass(frozen=True)
class Job:
    """What everyone who does a shard has to know; it can be sent to other machines.

    Attributes:
        wanted: What the model takes.
        parts: Where rows go.
    """

    wanted: Wanted
    parts: Parts


@dataclass(eq=False)
class _ChangedFile(ImageFile):
    """A file that is another than the one that the job was begun with."""

    def read(self, wanted: Wanted) -> Iterator[Rows]:
        """Refuse to."""
        del wanted
        raise DatasetError(f"{self.name}: has changed since the job began; --resume reads it anew")


def here(predictor: Predictor) -> Engine:
    """Return the engine that does one shard after the other in this process."""

    def engine(shards: Sequence[Shard], job: Job) -> Iterator[tuple[Shard, Tally]]:
        for shard in shards:
            yield shard, predict_shard(shard, predictor, job)

    return engine


def predict_shard(shard: Shard, predictor: Predictor, job: Job) -> Tally:
    """Read the images of a shard, classify them, and write its part.

    It begins anew where a source changes while it is read; each source, once it has changed, counts
    as changed, so this has an end.

    Raises:
        ClientError: The predictor did not answer.
        ResultsError: The part cannot be written.
        StoreError: An object store is away.
    """
    changed = set(map(id, shard.changed()))
    while True:
        results = _PartResults(shard, job)
        with local_copies(_unchanged(shard, changed)) as copies:
            for _ in written(read_batches(copies, job.wanted), predictor, results):
                pass
        now = set(map(id, shard.changed()))  # while it was read
        if now <= changed:
            results.finish()
            return results.tally
        changed |= now


def _unchanged(shard: Shard, changed: set[int]) -> list[ImageFile]:
    """Return the sources, of which those that have changed refuse to be read."""
    return [
        _ChangedFile(source.path, source.name, source.group)
        if id(source) in changed and source.fingerprint() != "missing"
        else source
        for source in shard.sources
    ]


class _PartResults:
    """The rows of one shard, which are written together; see ``Results``."""

    def __init__(self, shard: Shard, job: Job) -> None:
        self.tally = Tally()
        self._shard = shard
        self._job = job
        self._tables: list[Any] = []

    def write(self, batch: Batch, found: Predictions) -> None:
        self._tables.append(batch_table(batch, found, self._job.parts.form))
        self.tally.add(batch, found, self._job.wanted.class_labels)

    def fail(self, failure: Failure) -> None:
        self.tally.fail(failure)

    def finish(self) -> None:
        self._job.parts.write(self._shard, self._tables, self.tally)


def run_job(
    shards: Sequence[Shard],
    done: dict[str, Tally],
    job: Job,
    engine: Engine,
    speed: Speed,
    *,
    is_strict: bool,
) -> None:
    """Have an engine do the shards that are not done, and note their tallies in ``done``.

    Raises:
        DatasetError: A source has failed, and so is to end the job.
        ClientError: No predictor answers, or there is no cluster.
        ResultsError: A part cannot be written.
        StoreError: An object store is away.
    """
    missing = [shard for shard in shards if shard.name not in done]
    is_begun = bool(done)
    try:
        with speed.shown() as advance:
            for shard, tally in engine(missing, job):
                is_begun = True
                if is_strict and tally.failures:
                    raise DatasetError(tally.failures[0][1])
                done[shard.name] = tally
                advance(tally.rows)
    except ClientError:
        if not is_begun:  # there was no cluster, or none that can do it
            job.parts.abandon()
        raise
