"""Shadow: a second version that classifies, unseen, what the default version has answered.

    answers are given -> offered here -> a short queue -> a thread without hurry -> counts

Nobody waits for it: whoever answers only appends to a queue, and what does not fit is dropped and
counted. The thread looks into the queue a hundred times a second, takes a few images at a time and
gives way to all others, so that it uses what is left of the processor.
"""

import logging
import os
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from mlpserve.model.compiled import CompiledModel, Images, Workspace
from mlpserve.server.errors import OverloadedError
from mlpserve.server.inference.registry import Registry, ServedModel
from mlpserve.server.telemetry.counters import Counters
from mlpserve.server.telemetry.snapshots import MetricsSnapshot
from mlpserve.server.telemetry.statistics import ShadowCounts, ShadowPair, shadow_counts

logger = logging.getLogger(__name__)

_PERIOD_S: Final = 0.01
_LOG_PERIOD_S: Final = 60.0
_STOP_PATIENCE_S: Final = 1.0
_MAX_QUEUE_BYTES: Final = 16 * 2**20
# Few, so that another thread soon has its turn.
_ROWS_AT_ONCE: Final = 64
# Not the least that there is: a thread that is hardly ever run would keep others waiting where it
# holds the interpreter's lock.
_NICENESS: Final = 10


class Served(Protocol):
    """Knows what is served: ``Generations``."""

    @property
    def current(self) -> Registry:
        """Return the models that are served now."""


class Comparison(NamedTuple):
    """What there is to say of the shadow of a model."""

    label: str
    version: int
    counts: ShadowCounts


class _Target(NamedTuple):
    """What is compared with a version.

    Attributes:
        pair: Which versions these are.
        model: The shadow.
        labels: (K,) what index the shadow has for each class of the other version; -1 for none.
    """

    pair: ShadowPair
    model: CompiledModel
    labels: npt.NDArray[np.int32]


class _Offer(NamedTuple):
    target: _Target
    images: Images
    labels: bytes


class Shadow:
    """Compares the answers of default versions with those of a label.

    Args:
        served: What is served.
        label: The label whose versions are compared.
        counters: Where to count; this shadow's own.
        totals: Returns what all processes of the server have counted.
        logs: Whether to log how the shadows compare: one process of a server does.
        max_queue_bytes: So many bytes of images may wait. A batch finds room in an empty queue
            always.
    """

    def __init__(
        self,
        served: Served,
        label: str,
        counters: Counters,
        totals: Callable[[], MetricsSnapshot],
        *,
        logs: bool = True,
        max_queue_bytes: int = _MAX_QUEUE_BYTES,
    ) -> None:
        self._served = served
        self._label = label
        self._counters = counters
        self._totals = totals
        self._logs = logs
        self._last_counts: Mapping[ShadowPair, ShadowCounts] = {}
        self._max_queue_bytes = max_queue_bytes
        self._offers: deque[_Offer] = deque()
        # Each of these two has one writer; a lock that both held would let the slow keep the quick.
        self._offered_bytes = self._taken_bytes = 0
        self._offering = threading.Lock()
        self._dropped: Counter[ShadowPair] = Counter()
        self._counted_drops: Counter[ShadowPair] = Counter()
        self._known: tuple[Registry | None, Mapping[CompiledModel, _Target]] = (None, {})
        self._workspace = Workspace(_ROWS_AT_ONCE)
        self._failed: set[ShadowPair] = set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)

    def start(self) -> None:
        """Begin to compare."""
        self._thread.start()

    def stop(self) -> None:
        """Compare no more; what waits is forgotten."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(_STOP_PATIENCE_S)

    def offer(self, model: CompiledModel, answered: Iterable[tuple[Images, bytes]]) -> None:
        """Have answers compared some time; called when they are given, from any thread.

        Args:
            model: What has answered.
            answered: Images, and the labels that were answered: (N,) int32 as bytes.
        """
        target = self._targets().get(model)
        if target is None:
            return
        with self._offering:
            for images, labels in answered:
                waiting_bytes = self._offered_bytes - self._taken_bytes
                if waiting_bytes and waiting_bytes + images.nbytes > self._max_queue_bytes:
                    self._dropped[target.pair] += len(images)
                else:
                    self._offered_bytes += images.nbytes
                    self._offers.append(_Offer(target, images, labels))

    def counts(self) -> Mapping[ShadowPair, ShadowCounts]:
        """Return how the shadows compare; where other processes do not say so, as they last did."""
        with suppress(OverloadedError):
            self._last_counts = shadow_counts(self._totals())
        return self._last_counts

    def comparison(
        self, name: str, model: ServedModel, counts: Mapping[ShadowPair, ShadowCounts]
    ) -> Comparison | None:
        """Return how a model's shadow has done since it has that and the default version.

        Args:
            name: The model's name.
            model: What is served of it.
            counts: What ``counts`` returned.

        Returns:
            None where it has no shadow.
        """
        shadow = model.labels.get(self._label)
        if shadow is None or shadow == model.default_version:
            return None
        pair = ShadowPair(name, model.default_version, shadow)
        return Comparison(self._label, shadow, counts.get(pair, ShadowCounts()))

    def _targets(self) -> Mapping[CompiledModel, _Target]:
        registry = self._served.current
        known, targets = self._known
        if registry is not known:
            targets = dict(_targets(registry, self._label))
            self._known = (registry, targets)
        return targets

    def _run(self) -> None:
        _give_way()
        next_log_s = time.monotonic() + _LOG_PERIOD_S
        while not self._stopping.wait(_PERIOD_S):
            while self._offers and not self._stopping.is_set():
                self._compare_some()
            self._count_drops()
            self._targets()  # or versions that are served no longer would be kept until asked for
            if time.monotonic() > next_log_s:
                next_log_s += _LOG_PERIOD_S
                self._log()
        self._log()

    def _compare_some(self) -> None:
        offers = self._take()
        target, rows = offers[0].target, sum(len(offer.images) for offer in offers)
        try:
            agreeing = sum(self._agreeing(target, part) for part in _parts(offers))
            self._counters.add_shadow(target.pair, ShadowCounts(compared=rows, agreeing=agreeing))
        except Exception:  # it is only a shadow: nobody else is to be harmed
            if target.pair not in self._failed:
                self._failed.add(target.pair)
                logger.exception("the shadow %s cannot classify", self._words(target.pair))
            self._counters.add_shadow(target.pair, ShadowCounts(failed=rows))

    def _take(self) -> list[_Offer]:
        """Remove and return the oldest offer, and those after it that can be joined to it."""
        first = self._offers.popleft()
        offers, rows = [first], len(first.images)
        while self._offers and rows + len(self._offers[0].images) <= _ROWS_AT_ONCE:
            following = self._offers[0]
            if following.target is not first.target or following.images.dtype != first.images.dtype:
                break
            offers.append(self._offers.popleft())
            rows += len(following.images)
        self._taken_bytes += sum(offer.images.nbytes for offer in offers)
        return offers

    def _agreeing(self, target: _Target, offers: Sequence[_Offer]) -> int:
        found = target.model.classify([offer.images for offer in offers], self._workspace)
        answered = np.frombuffer(b"".join(offer.labels for offer in offers), "<i4")
        return int(np.count_nonzero(target.labels[answered] == found.labels))

    def _count_drops(self) -> None:
        with self._offering:
            dropped = self._dropped.copy()
        for pair, images in (dropped - self._counted_drops).items():
            self._counters.add_shadow(pair, ShadowCounts(dropped=images))
        self._counted_drops = dropped

    def _log(self) -> None:
        if not self._logs or not self._targets():
            return
        known = self.counts()
        for target in self._targets().values():
            counts = known.get(target.pair, ShadowCounts())
            if any(counts):
                logger.info(
                    "shadow %s: of %d images, %d have the same label; %d dropped, %d failed",
                    self._words(target.pair),
                    counts.compared,
                    counts.agreeing,
                    counts.dropped,
                    counts.failed,
                )

    def _words(self, pair: ShadowPair) -> str:
        return f"{pair.name} {self._label} (version {pair.shadow} beside {pair.answering})"


def _targets(registry: Registry, label: str) -> Iterable[tuple[CompiledModel, _Target]]:
    """Yield the default versions of all models that have a shadow, with that."""
    for name, served in registry.models.items():
        number = served.labels.get(label)
        if number is None or number == served.default_version:
            continue
        answering, shadow = served.version(served.default_version), served.version(number)
        pair = ShadowPair(name, served.default_version, number)
        if answering.metadata.input != shadow.metadata.input:
            logger.warning("%s: versions %d and %d take different images; not compared", *pair)
            continue
        yield answering, _Target(pair, shadow, _indices(answering, shadow))


def _indices(answering: CompiledModel, shadow: CompiledModel) -> npt.NDArray[np.int32]:
    """Return what index each class of one version has in the other; -1 where it has none."""
    index = {label: number for number, label in enumerate(shadow.metadata.class_labels)}
    return np.array([index.get(label, -1) for label in answering.metadata.class_labels], np.int32)


def _parts(offers: Sequence[_Offer]) -> Iterable[Sequence[_Offer]]:
    """Yield offers in parts of few images; offers that were joined are few enough."""
    if len(offers) > 1:
        yield offers
        return
    (offer,) = offers
    for start in range(0, len(offer.images), _ROWS_AT_ONCE):
        end = start + _ROWS_AT_ONCE
        labels = offer.labels[start * 4 : end * 4]
        yield [_Offer(offer.target, offer.images[start:end], labels)]


def _give_way() -> None:
    """Let other threads have the processor first, where the system can tell threads apart."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
