"""The run: images are read, classified, several batches at once, and their rows written."""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Final, TypeAlias

from mlpserve.client import InvalidRequestError, Predictions
from mlpserve.client.predict.batches import Batch, Failure, Position, Source
from mlpserve.client.predict.predictors import Predictor
from mlpserve.client.predict.results import Results
from mlpserve.datasets import DatasetError
from mlpserve.datasets.progress import progress

logger = logging.getLogger(__name__)

_Outcome: TypeAlias = tuple[Batch, Predictions] | Failure
_MAX_WARNINGS: Final = 10
_UNLIKE: Final = "does not look like what the model learned"


class Speed:
    """How many images were classified, how fast, and how many are left.

    A bar on standard error shows it, where that is a terminal.

    Args:
        sources: Where the images are from.
        done: How many were classified by an earlier run.
    """

    def __init__(self, sources: Sequence[Source], *, done: int) -> None:
        self._sources = sources
        self._done = done
        self._images = 0
        self._duration_s = 0.0

    @property
    def images_per_s(self) -> float:
        """Return the images a second, their reading and writing included."""
        return self._images / max(self._duration_s, 1e-9)

    @contextmanager
    def shown(self) -> Iterator[Callable[[int], None]]:
        """Lend what counts images that were classified."""
        began_s = time.perf_counter()
        counts = [source.count() for source in self._sources]
        known = sum(count for count in counts if count is not None)
        guessed = [
            source for source, count in zip(self._sources, counts, strict=True) if count is None
        ]
        # A file that does not say how many it has is asked again: the part read lets it guess.
        with progress("predicting") as note:

            def advance(images: int) -> None:
                self._images += images
                done = self._done + self._images
                note(done, max(done, known + sum(source.count() or 0 for source in guessed)))

            yield advance
        self._duration_s = time.perf_counter() - began_s


def run(
    items: Iterable[Batch | Failure],
    predictor: Predictor,
    results: Results,
    speed: "Speed",
    *,
    is_strict: bool,
) -> None:
    """Classify what is read, and write what is found.

    Memory holds a few batches, however many there are.

    Args:
        items: What is read.
        predictor: What answers.
        results: Where rows go.
        speed: What is told of them.
        is_strict: Whether the first source that fails ends the run.

    Raises:
        DatasetError: One has failed, and so is to end the run.
        ClientError: The server did not answer.
        ResultsError: The rows cannot be written.
    """
    warned = 0
    with speed.shown() as advance:
        for batch in written(items, predictor, results, is_strict=is_strict):
            advance(len(batch))
            warned = _warn(batch, warned)
    if warned > _MAX_WARNINGS:
        logger.warning("%d more warnings are beside their rows", warned - _MAX_WARNINGS)
    results.finish()


def written(
    items: Iterable[Batch | Failure],
    predictor: Predictor,
    results: Results,
    *,
    is_strict: bool = False,
) -> Iterator[Batch]:
    """Classify what is read, and yield each batch after its rows were written; see ``run``."""
    for outcome in _outcomes(items, predictor):
        if isinstance(outcome, Failure):
            if is_strict:
                raise DatasetError(outcome.message)
            if outcome.end > results.tally.position:
                results.fail(outcome)
            continue
        batch, found = outcome
        if batch.end <= results.tally.position:
            continue  # of a source that has failed meanwhile
        results.write(batch, found)
        yield batch


def _outcomes(items: Iterable[Batch | Failure], predictor: Predictor) -> Iterator[_Outcome]:
    """Yield what becomes of each item, in their order."""
    under_way: deque[Future[_Outcome]] = deque()
    pool = ThreadPoolExecutor(predictor.at_once)
    try:
        for item in items:
            under_way.append(pool.submit(_outcome, predictor, item))
            if len(under_way) > predictor.at_once:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        # Whoever closes the client ends the calls that are under way.
        pool.shutdown(wait=False, cancel_futures=True)


def _outcome(predictor: Predictor, item: Batch | Failure) -> _Outcome:
    if isinstance(item, Failure):
        return item
    try:
        found = predictor.predict(item.images)
    except InvalidRequestError as error:
        source = item.sources[0]
        return Failure(source.name, f"{source.name}: {error}", Position(item.end.source + 1))
    return _doubted(item, found), found


def _doubted(batch: Batch, found: Predictions) -> Batch:
    """Return a batch with a warning for each image that is unlike what the model learned from."""
    if found.ood_scores is None:
        return batch
    warnings = [
        "; ".join(filter(None, (warning, _UNLIKE if is_beyond else "")))
        for warning, is_beyond in zip(
            batch.warnings or [""] * len(batch), found.out_of_distribution.tolist(), strict=True
        )
    ]
    return replace(batch, warnings=warnings)


def _warn(batch: Batch, warned: int) -> int:
    """Tell the first few warnings; return how many there were so far."""
    for source, index, warning in zip(batch.sources, batch.indices, batch.warnings, strict=False):
        if warning:
            warned += 1
            if warned <= _MAX_WARNINGS:
                image = f" {index}" if source.count() != 1 else ""
                logger.warning("%s%s: %s", source.name, image, warning)
    return warned
