"""The benchmark beside Ray Serve: its table."""

from ray_serving import Load, Measured, table


def test_the_table_has_the_medians_of_the_rounds_and_how_many_times_faster_ours_is() -> None:
    load = Load(images=1, callers=16)
    own = [{load: Measured(rate, 1.0, 2.0)} for rate in (800.0, 900.0, 100.0)]
    ray = [{load: Measured(rate, 6.0, 20.0)} for rate in (200.0, 10.0, 300.0)]
    row = table({"own": own, "Ray Serve": ray}).splitlines()[-1]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == ["1", "16", "800", "200", "4.0", "1.0 / 2.0", "6.0 / 20.0"]
