import threading
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpserve.trainer.learning.thread_pool import ThreadPool, shard


class _ShardError(Exception):
    """An error of a shard, for these tests."""


@pytest.mark.parametrize("size", [1, 2, 3])
def test_results_are_in_the_order_of_the_shards(size: int) -> None:
    with ThreadPool(size) as pool:
        for _ in range(20):
            assert pool.run(lambda index: 10 * index) == [10 * index for index in range(size)]


def test_all_shards_are_worked_on_at_the_same_time() -> None:
    together = threading.Barrier(3, timeout=60)  # lets nobody pass before all three are there
    with ThreadPool(3) as pool:
        assert sorted(pool.run(lambda _: together.wait())) == [0, 1, 2]


def test_a_pool_of_one_works_in_the_callers_thread() -> None:
    with ThreadPool(1) as pool:
        assert pool.run(lambda _: threading.get_ident()) == [threading.get_ident()]


def test_the_caller_does_the_first_shard_of_a_larger_pool() -> None:
    with ThreadPool(3) as pool:
        first, *others = pool.run(lambda _: threading.get_ident())
    assert first == threading.get_ident()
    assert first not in others


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_an_error_is_raised_after_all_shards_have_ended(failing: int) -> None:
    failed = threading.Event()
    ended = []

    def work(index: int) -> None:
        if index == failing:
            failed.set()
            raise _ShardError(str(index))
        assert failed.wait(timeout=60)
        ended.append(index)

    with ThreadPool(3) as pool:
        with pytest.raises(_ShardError, match=str(failing)):
            pool.run(work)
        assert sorted(ended) == [index for index in range(3) if index != failing]
        assert pool.run(lambda index: index) == [0, 1, 2]  # and it goes on working


def test_its_threads_end_with_it() -> None:
    before = set(threading.enumerate())
    together = threading.Barrier(3, timeout=60)
    with ThreadPool(3) as pool:
        pool.run(lambda _: together.wait())
        assert len(set(threading.enumerate()) - before) == 2
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("size", [1, 3])
def test_what_numpy_need_not_warn_of_it_warns_of_in_no_thread(size: int) -> None:
    largest = np.array([np.finfo(np.float32).max])
    with np.errstate(over="ignore"), ThreadPool(size) as pool:
        assert pool.run(lambda _: float((2 * largest)[0])) == [np.inf] * size


@given(count=st.integers(0, 10**6), size=st.integers(1, 64))
def test_shards_cover_everything_exactly_once_and_are_of_one_size_but_for_1(
    count: int, size: int
) -> None:
    shards = [shard(count, index, size) for index in range(size)]
    assert shards[0].start == 0
    assert shards[-1].stop == count
    assert all(one.stop == other.start for one, other in pairwise(shards))
    lengths = {part.stop - part.start for part in shards}
    assert max(lengths) - min(lengths) <= 1
