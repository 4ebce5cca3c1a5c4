"""The benchmark of failover: what it makes of calls, and that callers notice nothing."""

import pytest

from client_failover import Call, measure, outcome


def calls_of(*servers: str, begins_s: float, count: int) -> list[Call]:
    """Return calls that servers answer in turn, one each 10 ms."""
    return [
        Call(begins_s + number / 100, servers[number % len(servers)], "", 0.005)
        for number in range(count)
    ]


def test_the_share_is_even_from_the_window_on_after_which_it_stays_even() -> None:
    calls = calls_of("a", "b", begins_s=10, count=300) + calls_of("b", begins_s=13, count=200)
    assert outcome("", calls, 10, {"a", "b"}).even_after_s is None
    assert outcome("", calls, 10, {"b"}).even_after_s == 3.0
    assert outcome("", calls, 13, {"b"}).even_after_s == 0.0
    assert outcome("", calls, 13, {"b"}).calls == 200


def test_a_call_that_failed_is_counted_and_is_no_even_share() -> None:
    calls = calls_of("a", begins_s=0, count=300)
    calls[250] = calls[250]._replace(server="", error="gone", took_s=4.5)
    found = outcome("cut", calls, 0, {"a"})
    assert (found.failed, found.longest_s) == (1, 4.5)
    assert found.row() == ["cut", "300", "1", "4.5 s", "never"]


@pytest.mark.exhaustive
def test_no_call_fails_and_shares_are_even_within_half_a_minute() -> None:
    outcomes = measure()
    for each in outcomes:
        assert each.failed == 0, each
        assert each.even_after_s is not None, each
        assert each.even_after_s < 30, each
        assert each.longest_s < 15, each
