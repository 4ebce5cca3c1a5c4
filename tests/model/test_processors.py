from pathlib import Path

import pytest

from mlpserve.model.processors import granted_processors

FILES_OF_VERSION_1 = ("cpu.cfs_quota_us", "cpu.cfs_period_us")


@pytest.fixture(autouse=True)
def eight_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)


def granted(tmp_path: Path, own: str, files: dict[str, str]) -> int:
    """Return what is granted to a process in the groups ``own``, with these files of groups."""
    mount, own_groups = tmp_path / "cgroup", tmp_path / "own"
    own_groups.write_text(own)
    for name, text in files.items():
        path = mount / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return granted_processors(mount, own_groups)


def test_without_control_groups_all_usable_processors_are_granted(tmp_path: Path) -> None:
    assert granted_processors(tmp_path / "none", tmp_path / "neither") == 8


@pytest.mark.parametrize(
    ("quota", "count"),
    [("200000 100000", 2), ("150000 100000", 1), ("5000 100000", 1), ("max 100000", 8), ("", 8)],
)
def test_a_quota_of_version_2_counts_whole_processors_but_at_least_one(
    tmp_path: Path, quota: str, count: int
) -> None:
    assert granted(tmp_path, "0::/\n", {"cpu.max": quota}) == count


def test_the_lowest_quota_of_all_groups_above_holds(tmp_path: Path) -> None:
    files = {"a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000", "cpu.max": "max 100000"}
    assert granted(tmp_path, "0::/a/b\n", files) == 3


def test_in_a_container_the_mount_itself_is_the_group(tmp_path: Path) -> None:
    # The path is the host's, and leads nowhere in here.
    assert granted(tmp_path, "0::/docker/0123\n", {"cpu.max": "200000 100000"}) == 2


@pytest.mark.parametrize(("quota", "count"), [("250000", 2), ("-1", 8)])
def test_a_quota_of_version_1_counts_as_well(tmp_path: Path, quota: str, count: int) -> None:
    files = dict(zip(FILES_OF_VERSION_1, (quota, "100000"), strict=True))
    own = "5:cpuset:/\n4:cpu,cpuacct:/job\n"
    assert (
        granted(tmp_path, own, {f"cpu/job/{name}": text for name, text in files.items()}) == count
    )
