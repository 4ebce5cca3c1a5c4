"""The speed of two machines on paper, from times that are made up."""

import pytest

import data_parallel


@pytest.mark.parametrize(
    ("gbit", "expected"),
    [
        # Of 20 ms, a half takes 12. At 1 Gbit/s the wire takes 76.6, at 25 some 3.1.
        (1, ["256", "12.0", "0.23 to 0.26"]),
        (25, ["256", "12.0", "1.33 to 1.67"]),
    ],
)
def test_the_wire_comes_after_half_of_a_batch_or_behind_it(gbit: int, expected: list[str]) -> None:
    costs = {
        batch: {"two threads": data_parallel.Cost(wall_s=wall_s, cpu_s=0)}
        for batch, wall_s in ((256, 0.020), (128, 0.012))
    }
    on_wire_ms = {gbit: data_parallel.wire_ms(gbit)}
    assert data_parallel.row_of_machines(256, costs, on_wire_ms) == expected
