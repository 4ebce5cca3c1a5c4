"""How often each model was asked, and how long it took: true figures of this process.

`figures` adds up those of all processes.

A request is counted before its caller is told, so that whoever has an answer finds it counted.
Knows neither gRPC nor protobuf. The figures of a model go with it when it is unloaded.
"""

from copy import deepcopy
from dataclasses import dataclass, field
from threading import Lock
from time import time
from weakref import WeakKeyDictionary

from mlpserve.server.inference.compiled import CompiledModel
from mlpserve.server.telemetry.request_record import BatchTiming


@dataclass(slots=True)
class Duration:
    """How often something was done, and how many nanoseconds it took in all."""

    count: int = 0
    ns: int = 0

    def add(self, count: int, ns: int) -> None:
        """Add so many times, which took so long together."""
        self.count += count
        self.ns += ns


@dataclass(slots=True)
class PassFigures:
    """What passes took; each counts once.

    Attributes:
        reading: The reading of the requests.
        running: The network.
        replying: The handing on of the answers, and their writing where that is done with it.
    """

    reading: Duration = field(default_factory=Duration)
    running: Duration = field(default_factory=Duration)
    replying: Duration = field(default_factory=Duration)

    def add(self, count: int, passage: BatchTiming) -> None:
        """Add a pass, seen by so many: by itself, or by each of its requests."""
        self.reading.add(count, passage.read_ns - passage.arrived_ns)
        self.running.add(count, count * (passage.ended_ns - passage.started_ns))


@dataclass(slots=True)
class Figures:
    """The figures of one version of a model.

    Attributes:
        images: How many images were classified.
        passes: How many passes that took.
        last_pass_ms: When the last one ended; milliseconds since 1970, 0 where there was none.
        succeeded: Requests that were answered, from their arrival to their answer.
        failed: Requests that were refused, dropped or failed.
        waiting: How long requests that were answered waited for their turn.
        by_request: What passes took, counted for each request in them.
        by_size: What passes took, by the number of images.
    """

    images: int = 0
    passes: int = 0
    last_pass_ms: int = 0
    succeeded: Duration = field(default_factory=Duration)
    failed: Duration = field(default_factory=Duration)
    waiting: Duration = field(default_factory=Duration)
    by_request: PassFigures = field(default_factory=PassFigures)
    by_size: dict[int, PassFigures] = field(default_factory=dict)

    def add(self, passage: BatchTiming) -> None:
        """Add a pass."""
        count = passage.requests
        self.images += passage.images
        self.passes += 1
        self.last_pass_ms = int(time() * 1000)
        self.succeeded.add(count, count * passage.ended_ns - passage.arrived_ns)
        self.waiting.add(count, count * passage.started_ns - passage.read_ns)
        self.by_request.add(count, passage)
        of_size = self.by_size.get(passage.images)
        if of_size is None:
            of_size = self.by_size[passage.images] = PassFigures()
        of_size.add(1, passage)

    def add_replies(self, passage: BatchTiming, ns: int) -> None:
        """Add how long the answers of a pass, that was added, took to be handed on."""
        count = passage.requests
        self.succeeded.ns += count * ns
        self.by_request.replying.add(count, count * ns)
        self.by_size[passage.images].replying.add(1, ns)


class Statistics:
    """The figures of all models of a process. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._figures: WeakKeyDictionary[CompiledModel, Figures] = WeakKeyDictionary()

    def passed(self, model: CompiledModel, passage: BatchTiming) -> None:
        """Record a pass, and the requests that it answers."""
        with self._lock:
            self._of(model).add(passage)

    def replied(self, model: CompiledModel, passage: BatchTiming, *, ns: int) -> None:
        """Record how long the answers of a pass, that was recorded, took to be handed on."""
        with self._lock:
            self._of(model).add_replies(passage, ns)

    def failed(self, model: CompiledModel, *, requests: int, ns: int) -> None:
        """Record requests that were refused, dropped or failed, after so long together."""
        with self._lock:
            self._of(model).failed.add(requests, ns)

    def figures(self) -> list[tuple[CompiledModel, Figures]]:
        """Return the figures of all models as they are now."""
        with self._lock:
            return [(model, deepcopy(figures)) for model, figures in self._figures.items()]

    def _of(self, model: CompiledModel) -> Figures:
        figures = self._figures.get(model)
        if figures is None:
            figures = self._figures[model] = Figures()
        return figures
