from ray._common.usage import usage_lib


def test_nothing_is_reported_to_the_makers_of_ray() -> None:
    """Hold our setting to Ray's own reading of it."""
    assert not usage_lib.usage_stats_enabled()
