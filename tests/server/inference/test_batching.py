"""Batching: everybody gets their own rows, whatever joins, fails or is cancelled."""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Barrier, Event, Thread
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpserve.model.compiled import (
    Answer,
    Classified,
    CompiledModel,
    Images,
    Workspace,
)
from mlpserve.model.inputs import InputSpec
from mlpserve.model.metadata import Metadata, Training
from mlpserve.model.network import Layer, Network
from mlpserve.model.weights import Model
from mlpserve.server.errors import ExpiredError, OverloadedError
from mlpserve.server.inference.batcher import Batcher, run_batch
from mlpserve.server.inference.queue import RowQueue
from mlpserve.server.inference.request import Outcome, ParsedRequest
from mlpserve.server.telemetry.counters import Counters
from mlpserve.server.telemetry.recorder import Recorder
from mlpserve.server.telemetry.request_record import RequestRecord
from mlpserve.server.telemetry.statistics import model_statistics

MAX_BATCH_ROWS = 8
TIMEOUT_S = 60.0
TRAINING = Training("fast", {}, 0, "pets", "sha256:0", 0.9, 0.9, datetime(2024, 1, 1, tzinfo=UTC))
LAYER = Layer(np.zeros((2, 2), np.float32), np.zeros(2, np.float32), "softmax")
METADATA = Metadata("echo", 1, (2, 2), ("softmax",), InputSpec((1, 2)), ("a", "b"), TRAINING)


class EchoModel(CompiledModel):
    """Says of each image its own first two values, so that a row tells whose it is."""

    def __init__(self) -> None:
        super().__init__(Model(Network((LAYER,)), METADATA))
        self.passes: list[list[int]] = []
        self.fails_at = -1

    def classify(
        self,
        batches: Sequence[Images],
        workspace: Workspace,  # noqa: ARG002 - there is nothing to compute
    ) -> Classified:
        self.passes.append([len(images) for images in batches])
        if len(self.passes) - 1 == self.fails_at:
            raise ArithmeticError("the pass failed")
        rows = np.concatenate(batches)
        return Classified(rows[:, :2].astype(np.float32), rows[:, 1].astype(np.int32))


@dataclass
class Caller:
    """Asks for the rows ``[number, 0], [number, 1], ...``."""

    number: int
    count: int
    model: CompiledModel
    dtype: str = "uint8"
    is_wanted: bool = True
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def images(self) -> Images:
        rows = np.array([[self.number, row, 9] for row in range(self.count)])
        return rows.astype(np.uint8) if self.dtype == "uint8" else rows.astype(np.float32)

    def request(self) -> ParsedRequest[Answer]:
        return request(
            self.model,
            self.images,
            record=RequestRecord(caller=f"connection {self.number}"),
            is_wanted=lambda: self.is_wanted,
            on_outcome=lambda _, outcome: self.outcomes.append(outcome),
        )

    def got_exactly_its_own_rows(self) -> bool:
        (answer,) = self.outcomes
        return isinstance(answer, Answer) and is_answer_to(answer, self.images)


def request(model: CompiledModel, images: Images, **others: Any) -> ParsedRequest[Answer]:
    """Return a request whose response is the answer itself."""
    return ParsedRequest(
        model, images, len(images), lambda answer: answer, **{"record": RequestRecord(), **others}
    )


def ask(batcher: Batcher, model: CompiledModel, images: Images) -> Answer:
    asked = request(model, images)
    batcher.submit(asked)
    return batcher.wait(asked)


def is_answer_to(answer: Answer, images: Images) -> bool:
    probabilities = np.frombuffer(answer.probabilities, "<f4").reshape(-1, 2)
    labels = np.frombuffer(answer.labels, "<i4")
    return bool(
        np.array_equal(probabilities, images[:, :2]) and np.array_equal(labels, images[:, 1])
    )


def recorder(counters: Counters | None = None) -> Recorder:
    return Recorder(counters or Counters())


def queue(**settings: Any) -> RowQueue:
    return RowQueue(**{"max_batch_rows": MAX_BATCH_ROWS, "max_queue_rows": 10_000, **settings})


@st.composite
def arrivals(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Draw what callers do: of which model and dtype, how many rows, wanted or not, and passes."""
    caller = st.fixed_dictionaries(
        {
            "model": st.integers(0, 1),
            "dtype": st.sampled_from(["uint8", "uint8", "float32"]),
            "count": st.integers(1, 2 * MAX_BATCH_ROWS),
            "cancels": st.booleans(),
            "pass_after": st.booleans(),
        }
    )
    return draw(st.lists(caller, max_size=20))


@given(arrivals=arrivals(), fails_at=st.integers(-1, 5))
def test_each_caller_gets_exactly_its_own_rows_or_the_reason_why_not(
    arrivals: list[dict[str, Any]], fails_at: int
) -> None:
    models = [EchoModel(), EchoModel()]
    models[0].fails_at = fails_at
    waiting, workspace = queue(), Workspace()
    callers: list[Caller] = []
    for number, arrival in enumerate(arrivals):
        caller = Caller(number, arrival["count"], models[arrival["model"]], arrival["dtype"])
        callers.append(caller)
        waiting.put(caller.request())
        caller.is_wanted = not arrival["cancels"]
        if arrival["pass_after"]:
            run_batch(waiting.take(), workspace, recorder())
    while waiting:
        run_batch(waiting.take(), workspace, recorder())
    for caller in callers:
        (outcome,) = caller.outcomes
        if not caller.is_wanted:
            assert isinstance(outcome, ExpiredError)
        elif isinstance(outcome, Exception):
            assert str(outcome) == "the pass failed"
            assert caller.model is models[0]
        else:
            assert caller.got_exactly_its_own_rows()
    computed = sum(sum(map(sum, model.passes)) for model in models)
    assert computed == sum(caller.count for caller in callers if caller.is_wanted)


@given(counts=st.lists(st.integers(1, 2 * MAX_BATCH_ROWS), min_size=1, max_size=30))
def test_a_pass_has_at_most_the_rows_that_are_allowed_and_large_requests_go_alone(
    counts: list[int],
) -> None:
    model, waiting = EchoModel(), queue()
    for number, count in enumerate(counts):
        waiting.put(Caller(number, count, model).request())
    while waiting:
        run_batch(waiting.take(), Workspace(), recorder())
    for rows in model.passes:
        assert len(rows) == 1 or sum(rows) <= MAX_BATCH_ROWS
    # No two neighbours could have been one pass.
    for earlier, later in zip(model.passes, model.passes[1:], strict=False):
        assert sum(earlier) + min(later) > MAX_BATCH_ROWS


def test_the_oldest_request_is_in_the_next_pass_whatever_came_after_it() -> None:
    first, second = EchoModel(), EchoModel()
    waiting = queue()
    callers = [Caller(number, 1, (first, second)[number % 2]) for number in range(6)]
    for caller in callers:
        waiting.put(caller.request())
    assert [request.model for request in waiting.take()] == [first] * 3
    assert [request.model for request in waiting.take()] == [second] * 3


def test_a_full_queue_refuses_and_an_empty_one_takes_whatever_comes() -> None:
    model, waiting = EchoModel(), queue(max_queue_rows=10)
    large = Caller(0, 100, model)
    waiting.put(large.request())
    with pytest.raises(
        OverloadedError,
        match="100 images wait, 0 of them yours, and these 1 do",
    ):
        waiting.put(Caller(1, 1, model).request())
    run_batch(waiting.take(), Workspace(), recorder())
    assert large.got_exactly_its_own_rows()
    for number in range(10):
        waiting.put(Caller(number, 1, model).request())
    assert not waiting.has_room(1)


def test_a_full_queue_makes_room_by_dropping_what_nobody_waits_for() -> None:
    model, waiting = EchoModel(), queue(max_queue_rows=2)
    gone, kept, new = (Caller(number, 1, model) for number in range(3))
    waiting.put(gone.request())
    waiting.put(kept.request())
    gone.is_wanted = False
    waiting.put(new.request())
    run_batch(waiting.take(), Workspace(), recorder())
    assert isinstance(gone.outcomes[0], ExpiredError)
    assert kept.got_exactly_its_own_rows()
    assert new.got_exactly_its_own_rows()


def test_a_higher_priority_has_its_turn_first_and_the_oldest_of_the_same() -> None:
    waiting, model = queue(max_batch_rows=1), EchoModel()
    order: list[int] = []
    for number, priority in enumerate((2, 3, 1, 2, 1)):
        images = Caller(number, 1, model).images
        waiting.put(
            request(
                model, images, priority=priority, on_outcome=lambda *_, n=number: order.append(n)
            )
        )
    while waiting:
        run_batch(waiting.take(), Workspace(), recorder())
    assert order == [2, 4, 0, 3, 1]


def test_what_is_answered_dropped_refused_and_failed_is_counted() -> None:
    counters = Counters()
    waiting, model = queue(max_queue_rows=5, counters=counters), EchoModel()
    callers = [Caller(0, 2, model), Caller(1, 1, model), Caller(2, 2, model, is_wanted=False)]
    for caller in callers:
        waiting.put(caller.request())
    with pytest.raises(OverloadedError):
        waiting.put(Caller(3, 4, model).request())
    run_batch(waiting.take(), Workspace(), recorder(counters))
    model.fails_at = 1
    waiting.put(Caller(4, 1, model).request())
    run_batch(waiting.take(), Workspace(), recorder(counters))
    ((key, found),) = model_statistics(counters.snapshot()).items()
    assert key == ("echo", 1)
    assert (found.images, found.all.batches) == (3, 1)
    assert (found.all.requests, found.failed.requests) == (2, 3)
    assert {images: counts.batches for images, counts in found.by_size.items()} == {3: 1}


def test_statistics_go_with_their_model() -> None:
    counters = Counters()
    waiting, model = queue(counters=counters), EchoModel()
    waiting.put(Caller(0, 1, model).request())
    run_batch(waiting.take(), Workspace(), recorder(counters))
    assert len(model_statistics(counters.snapshot())) == 1
    forgotten = weakref.ref(model)
    del model
    assert forgotten() is None
    assert model_statistics(counters.snapshot()) == {}


def test_a_caller_that_cannot_be_reached_does_not_keep_others_from_their_answers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def unreachable(*_: object) -> None:
        raise ConnectionError("gone")

    model = EchoModel()
    lost, other = Caller(0, 1, model), Caller(1, 1, model)
    run_batch(
        [request(model, lost.images, on_outcome=unreachable), other.request()],
        Workspace(),
        recorder(),
    )
    assert other.got_exactly_its_own_rows()
    assert "ConnectionError: gone" in caplog.text


class HeldModel(EchoModel):
    """Starts its first pass, says so, and goes on when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.started, self.goes_on = Event(), Event()

    def classify(self, batches: Sequence[Images], workspace: Workspace) -> Classified:
        if not self.started.is_set():
            self.started.set()
            assert self.goes_on.wait(TIMEOUT_S)
        return super().classify(batches, workspace)


def in_threads(callers: Sequence[Caller], batcher: Batcher) -> list[Thread]:
    def ask_for(caller: Caller) -> None:
        asked = request(caller.model, caller.images, is_wanted=lambda: caller.is_wanted)
        try:
            batcher.submit(asked)
            submitted.wait()
            caller.outcomes.append(batcher.wait(asked))
        except Exception as error:  # noqa: BLE001 - what was raised is what is asked for
            caller.outcomes.append(error)

    submitted = Barrier(len(callers) + 1)
    threads = [Thread(target=ask_for, args=(caller,)) for caller in callers]
    for thread in threads:
        thread.start()
    submitted.wait(TIMEOUT_S)
    return threads


def test_what_arrives_while_a_pass_runs_is_one_pass_after_it() -> None:
    model = HeldModel()
    batcher = Batcher(queue(), Workspace(), recorder())
    first, *others = (Caller(number, 1, model) for number in range(7))
    threads = in_threads([first], batcher)
    assert model.started.wait(TIMEOUT_S)
    threads += in_threads(others, batcher)
    model.goes_on.set()
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert model.passes == [[1], [1] * 6]
    assert all(caller.got_exactly_its_own_rows() for caller in (first, *others))


def test_an_idle_batcher_answers_in_the_thread_that_asks() -> None:
    model = EchoModel()
    batcher = Batcher(queue(), Workspace(), recorder())
    images = Caller(5, 3, model).images
    answer = ask(batcher, model, images)
    assert is_answer_to(answer, images)


def test_a_call_that_is_cancelled_while_it_waits_is_not_computed() -> None:
    model = HeldModel()
    batcher = Batcher(queue(), Workspace(), recorder())
    first, cancelled, last = (Caller(number, 1, model) for number in range(3))
    threads = in_threads([first], batcher)
    assert model.started.wait(TIMEOUT_S)
    threads += in_threads([cancelled, last], batcher)
    cancelled.is_wanted = False
    model.goes_on.set()
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert model.passes == [[1], [1]]
    assert isinstance(cancelled.outcomes[0], ExpiredError)
    assert last.got_exactly_its_own_rows()


def test_many_threads_get_their_own_rows(model: Model) -> None:
    compiled = CompiledModel(model)
    batcher = Batcher(queue(), Workspace(MAX_BATCH_ROWS), recorder())
    own = Workspace()

    def ask_often(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(50):
            images = rng.integers(0, 256, (rng.integers(1, 12), 6), np.uint8)
            answer = ask(batcher, compiled, images)
            sent.append((images, answer))

    sent: list[tuple[Images, Answer]] = []
    threads = [Thread(target=ask_often, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert len(sent) == 300
    for images, answer in sent:
        expected = compiled.classify([images], own).probabilities
        found = np.frombuffer(answer.probabilities, "<f4").reshape(len(images), 3)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_a_full_queue_may_be_waited_for() -> None:
    model = HeldModel()
    batcher = Batcher(queue(max_queue_rows=1), Workspace(), recorder())
    first, second, third = (Caller(number, 1, model) for number in range(3))
    threads = in_threads([first], batcher)
    assert model.started.wait(TIMEOUT_S)
    threads += in_threads([second], batcher)
    with pytest.raises(OverloadedError):
        batcher.submit(request(model, third.images))

    def wait_for_room() -> None:
        asked = request(model, third.images)
        batcher.submit(asked, waits_for_room=True)
        third.outcomes.append(batcher.wait(asked))

    threads.append(Thread(target=wait_for_room))
    threads[-1].start()
    model.goes_on.set()
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert third.got_exactly_its_own_rows()


def test_requests_whose_answers_nobody_comes_for_do_not_keep_others_out() -> None:
    model = EchoModel()
    batcher = Batcher(queue(max_queue_rows=2), Workspace(), recorder())
    slow = [Caller(number, 1, model) for number in range(2)]
    submitted = [request(model, caller.images) for caller in slow]
    for asked in submitted:
        batcher.submit(asked)
    last = Caller(2, 1, model)
    assert is_answer_to(ask(batcher, model, last.images), last.images)
    for caller, asked in zip(slow, submitted, strict=True):
        assert is_answer_to(batcher.wait(asked), caller.images)


def test_a_queue_tells_how_many_requests_and_rows_wait() -> None:
    waiting = queue()
    assert waiting.depth() == (0, 0)
    model = EchoModel()
    for number, count in enumerate((3, 4, 5)):
        waiting.put(Caller(number, count, model).request())
    assert waiting.depth() == (3, 12)
    waiting.take()
    assert waiting.depth() == (1, 5)
