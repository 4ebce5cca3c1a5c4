"""Whose turn comes when: callers share by rows, and nobody waits for what cannot be in time."""

import math
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpserve.model.compiled import Answer, CompiledModel
from mlpserve.server.errors import ExpiredError, OverloadedError
from mlpserve.server.inference.queue import RowQueue
from mlpserve.server.inference.request import HIGHEST_PRIORITY, Outcome, ParsedRequest
from mlpserve.server.telemetry.request_record import BatchTiming, RequestRecord

MAX_BATCH_ROWS = 8
MODEL = CompiledModel.__new__(CompiledModel)  # a queue asks nothing of a model


@dataclass
class Asker:
    """Hands in requests of one caller."""

    name: str
    outcomes: list[Outcome] = field(default_factory=list)
    is_wanted: Callable[[], bool] = lambda: True

    def request(
        self, rows: int, *, remaining_s: float = math.inf, **options: Any
    ) -> ParsedRequest[Answer]:
        record = RequestRecord(caller=self.name, remaining_s=remaining_s)
        images = np.zeros((rows, 1), np.uint8)
        return ParsedRequest(
            MODEL,
            images,
            rows,
            lambda answer: answer,
            record,
            is_wanted=self.is_wanted,
            on_outcome=lambda _, outcome: self.outcomes.append(outcome),
            **options,
        )


def queue(**settings: Any) -> RowQueue:
    return RowQueue(**{"max_batch_rows": MAX_BATCH_ROWS, "max_queue_rows": 10**9, **settings})


def callers(group: Sequence[ParsedRequest[Answer]]) -> list[str | bytes]:
    return [request.record.caller for request in group]


requests = st.lists(st.integers(1, 2 * MAX_BATCH_ROWS), min_size=1, max_size=30)


@given(sizes=st.dictionaries(st.sampled_from("abcde"), requests, min_size=2))
def test_of_callers_who_always_have_something_waiting_none_gets_more_rows_than_another(
    sizes: dict[str, list[int]],
) -> None:
    waiting = queue()
    for name, of_caller in sizes.items():
        for rows in of_caller:
            waiting.put(Asker(name).request(rows))
    left = {name: deque(rows) for name, rows in sizes.items()}
    served: Counter[str] = Counter()
    while all(left.values()):
        for request in waiting.take():
            name = str(request.record.caller)
            left[name].popleft()
            served[name] += len(request.images)
    largest = {name: max(rows) for name, rows in sizes.items()}
    for one in sizes:
        for other in sizes:
            # The bound of the source, and two passes: what is joined is taken out of turn, and
            # the last pass goes on when one caller has nothing left.
            bound = largest[one] + largest[other] + 2 * MAX_BATCH_ROWS
            assert served[one] - served[other] <= bound


@given(rows=requests)
def test_the_requests_of_one_caller_keep_their_order(rows: list[int]) -> None:
    waiting, only = queue(), Asker("only")
    put = [only.request(count) for count in rows]
    for request in put:
        waiting.put(request)
    taken: list[ParsedRequest[Answer]] = []
    while waiting:
        taken += waiting.take()
    assert sorted(map(id, taken)) == sorted(map(id, put))
    first = [group for group in taken if len(group.images) >= MAX_BATCH_ROWS]
    assert first == [request for request in put if len(request.images) >= MAX_BATCH_ROWS]


def test_who_asks_once_is_answered_before_the_flood_that_came_first() -> None:
    waiting, flood, other = queue(), Asker("flood"), Asker("other")
    for _ in range(1000):
        waiting.put(flood.request(1))
    waiting.put(other.request(1))
    assert "other" in callers(waiting.take())


def test_who_comes_back_after_a_while_has_no_claim_on_what_was_not_asked_for() -> None:
    waiting, steady, rare = queue(max_batch_rows=1), Asker("steady"), Asker("rare")
    waiting.put(rare.request(1))
    waiting.take()
    for _ in range(100):
        waiting.put(steady.request(1))
    for _ in range(50):
        waiting.take()
    for _ in range(10):
        waiting.put(rare.request(1))
    taken = [callers(waiting.take())[0] for _ in range(20)]
    assert Counter(taken) == {"steady": 10, "rare": 10}


def test_a_priority_orders_the_requests_of_a_caller_and_of_nobody_else() -> None:
    waiting, other, urgent = queue(), Asker("other"), Asker("urgent")
    normal = urgent.request(MAX_BATCH_ROWS)
    first = urgent.request(MAX_BATCH_ROWS, priority=HIGHEST_PRIORITY)
    waiting.put(other.request(MAX_BATCH_ROWS))
    waiting.put(normal)
    waiting.put(first)
    assert callers(waiting.take()) == ["other"]
    assert waiting.take() == [first]
    waiting.put(other.request(MAX_BATCH_ROWS))
    assert waiting.take() == [normal]
    assert callers(waiting.take()) == ["other"]
    assert not waiting


@given(
    urgent=st.lists(st.tuples(st.integers(1, 16), st.integers(1, 3)), min_size=1, max_size=40),
    others=requests,
)
def test_no_priority_gets_a_caller_more_rows_than_another(
    urgent: list[tuple[int, int]], others: list[int]
) -> None:
    waiting = queue()
    left = {"urgent": len(urgent), "others": len(others)}
    for rows in others:
        waiting.put(Asker("others").request(rows))
    for rows, priority in urgent:
        waiting.put(Asker("urgent").request(rows, priority=priority))
    served: Counter[str] = Counter()
    while all(left.values()):
        for request in waiting.take():
            left[str(request.record.caller)] -= 1
            served[str(request.record.caller)] += len(request.images)
    # The bound of the source, and two passes, as above.
    assert abs(served["urgent"] - served["others"]) <= 4 * 2 * MAX_BATCH_ROWS


def test_a_flood_of_the_highest_priority_keeps_nobody_waiting() -> None:
    waiting, flood, other = queue(), Asker("flood"), Asker("other")
    waiting.put(other.request(1))
    for _ in range(1000):
        waiting.put(flood.request(1, priority=HIGHEST_PRIORITY))
    assert "other" in callers(waiting.take())


def test_requests_that_are_passed_over_keep_their_places() -> None:
    waiting, one, another = queue(), Asker("one"), Asker("another")
    last = CompiledModel.__new__(CompiledModel)
    mixed = [one.request(2, priority=priority) for priority in (2, 1, 2, 1)]
    for number, request in enumerate(mixed):
        request.model = last if number in {1, 2} else MODEL
        waiting.put(request)
    waiting.put(another.request(MAX_BATCH_ROWS))
    assert waiting.take() == [mixed[1], mixed[2]]
    assert waiting.take() == [mixed[3], mixed[0]]
    assert callers(waiting.take()) == ["another"]
    assert waiting.depth() == (0, 0)


def test_a_caller_who_is_alone_may_take_all_the_room_and_gives_up_for_others_what_is_beyond() -> (
    None
):
    waiting, greedy, other = queue(max_queue_rows=100), Asker("greedy"), Asker("other")
    put = [greedy.request(1) for _ in range(100)]
    for request in put:
        waiting.put(request)
    with pytest.raises(OverloadedError, match="100 images wait, 100 of them yours, and these 1 do"):
        waiting.put(greedy.request(1))
    for _ in range(25):
        waiting.put(other.request(1))
    with pytest.raises(OverloadedError, match="of them yours, and these 1 do not fit"):
        waiting.put(other.request(1))
    with pytest.raises(OverloadedError, match="of them yours, and these 1 do not fit"):
        waiting.put(greedy.request(1))
    assert 0 < len(greedy.outcomes) <= 50
    assert all("beyond its caller's share" in str(outcome) for outcome in greedy.outcomes)
    assert waiting.depth() == (125 - len(greedy.outcomes),) * 2
    assert [request for request in put if request.outcome is None] == put[: -len(greedy.outcomes)]


def test_nobody_is_pushed_out_for_what_fits_or_for_who_would_have_more_than_a_share() -> None:
    waiting, greedy, other = queue(max_queue_rows=100), Asker("greedy"), Asker("other")
    for _ in range(90):
        waiting.put(greedy.request(1))
    waiting.put(other.request(5))
    with pytest.raises(OverloadedError, match="95 images wait, 5 of them yours, and these 80 do"):
        waiting.put(other.request(80))
    assert (greedy.outcomes, other.outcomes) == ([], [])


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 40)), max_size=60),
    st.sets(st.integers(0, 59)),
)
def test_no_more_rows_wait_than_are_allowed_and_what_is_within_a_share_is_never_given_up(
    asked: list[tuple[str, int]], passes: set[int]
) -> None:
    waiting = queue(max_queue_rows=60)
    askers: list[tuple[Asker, int]] = []
    within_shares: list[Asker] = []
    taken = 0
    for number, (name, rows) in enumerate(asked):
        if number in passes:
            taken += sum(len(request.images) for request in waiting.take())
        asker, is_within = Asker(name), waiting.has_room(rows, name)
        try:
            waiting.put(asker.request(rows))
        except OverloadedError:
            assert not is_within
            continue
        askers.append((asker, rows))
        within_shares += [asker] * is_within
        assert waiting.depth()[1] <= 60
    while waiting:
        taken += sum(len(request.images) for request in waiting.take())
    assert taken == sum(rows for asker, rows in askers if not asker.outcomes)
    assert not any(asker.outcomes for asker in within_shares)
    assert waiting.depth() == (0, 0)


def timing(rows: int, ns: int) -> BatchTiming:
    return BatchTiming(1, rows, arrived_ns=0, read_ns=0, started_ns=0, ended_ns=ns)


def test_a_deadline_that_cannot_be_met_is_refused_before_anything_is_computed() -> None:
    waiting, flood, other = queue(), Asker("flood"), Asker("other")
    waiting.learn_pace(timing(rows=10, ns=10_000_000))  # a millisecond for each row
    for _ in range(100):
        waiting.put(flood.request(1))
    expected = "the deadline cannot be met: it is in 20 ms, and the 101 images up to there take"
    with pytest.raises(ExpiredError, match=f"{expected} about 101 ms"):
        waiting.put(flood.request(1, remaining_s=0.02))
    waiting.put(flood.request(1, remaining_s=0.2))
    waiting.put(other.request(1, remaining_s=0.02))  # whose turn is the next or the one after
    assert waiting.depth() == (102, 102)


def test_what_would_be_late_is_not_computed_while_others_can_be_in_time() -> None:
    waiting, late, other = queue(), Asker("late"), Asker("other")
    waiting.learn_pace(timing(rows=10, ns=10_000_000))
    waiting.put(late.request(4, remaining_s=9))  # it came when the clock began, so that is over
    waiting.put(other.request(4))
    assert callers(waiting.take()) == ["other"]
    assert [str(outcome) for outcome in late.outcomes] == [
        "the deadline cannot be met any more: a turn takes about 8 ms"
    ]


def test_what_is_expected_to_be_late_is_computed_after_all_where_nothing_else_waits() -> None:
    waiting, late = queue(), Asker("late")
    waiting.learn_pace(timing(rows=1, ns=10**9))  # a machine that was busy for a moment
    waiting.put(late.request(4, remaining_s=9))
    assert callers(waiting.take()) == ["late"]
    for _ in range(8):
        waiting.learn_pace(timing(rows=4, ns=4_000_000))
    waiting.put(late.request(100))
    waiting.put(late.request(4, remaining_s=9))
    assert late.outcomes == []


def test_no_deadline_is_refused_by_a_queue_that_is_empty_or_has_seen_no_pass() -> None:
    fresh, known = queue(), queue()
    fresh.put(Asker("a").request(1000))
    fresh.put(Asker("b").request(1, remaining_s=1e-6))
    known.learn_pace(timing(rows=1, ns=10**9))
    known.put(Asker("a").request(1, remaining_s=1e-6))
    known.learn_pace(None)
    assert (fresh.depth(), known.depth()) == ((2, 1001), (1, 1))


def test_no_crowd_of_newcomers_keeps_anybody_waiting_for_ever() -> None:
    waiting, steady = queue(max_batch_rows=1), Asker("steady")
    for _ in range(10):
        waiting.put(steady.request(1))
    taken: list[str | bytes] = []
    for number in range(80):
        waiting.put(Asker(f"newcomer {number}").request(1))
        taken += callers(waiting.take())
    assert taken.count("steady") == 10


def test_callers_that_come_and_go_for_ever_leave_nothing_behind() -> None:
    waiting, steady = queue(max_batch_rows=1), Asker("steady")
    for _ in range(10):
        waiting.put(steady.request(1))
    for number in range(5000):
        waiting.put(Asker(f"caller {number}").request(1))
        waiting.take()
    assert waiting._room.callers < 20  # noqa: SLF001 - what must not grow is inside
    assert len(waiting._lines) < 1000  # noqa: SLF001
    assert len(waiting._turns) < 1000  # noqa: SLF001
