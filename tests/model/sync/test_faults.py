"""A store that fails in the midst of something."""

import shutil
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from mlpserve.model.folder import versions, weights_path
from mlpserve.model.labels import labels_path, read_labels, set_label
from mlpserve.model.sync.follower import Follower
from mlpserve.model.sync.synchronizer import Synchronizer

TIMEOUT_S = 20.0
Hooks = dict[str, Callable[[str], None]]


def on(part: str, action: Callable[[], object]) -> Callable[[str], None]:
    """Return a hook that acts where a part of a path is met, and only the first time."""
    done = threading.Event()

    def hook(path: str) -> None:
        if part in path and not done.is_set():
            done.set()
            action()

    return hook


def test_a_version_that_vanishes_while_it_is_copied_keeps_no_other(
    hooked_mirror: Synchronizer, models: Path, hooks: Hooks
) -> None:
    hooks["before open"] = on("tiny/2/", lambda: shutil.rmtree(models / "tiny" / "2"))
    assert hooked_mirror.sync()
    assert versions(hooked_mirror.folder, "tiny") == [1]
    assert len(hooked_mirror.problems) == 1
    hooked_mirror.sync()
    assert hooked_mirror.problems == {}


def test_a_file_that_is_shorter_than_it_was_listed_is_not_taken(
    hooked_mirror: Synchronizer, models: Path, hooks: Hooks
) -> None:
    path = weights_path(models, "tiny", 2)
    whole = path.read_bytes()
    hooks["before open"] = on("tiny/2/weights.npz", lambda: path.write_bytes(whole[:200]))
    hooked_mirror.sync()
    assert versions(hooked_mirror.folder, "tiny") == [1]
    (reason,) = hooked_mirror.problems.values()
    assert f"{len(whole)} bytes were listed, 200 came" in reason
    path.write_bytes(whole)
    hooked_mirror.sync()
    assert versions(hooked_mirror.folder, "tiny") == [2, 1]


def test_a_file_that_is_replaced_while_it_is_read_is_not_taken(
    hooked_mirror: Synchronizer, models: Path, hooks: Hooks
) -> None:
    def replace() -> None:
        (models / "new").write_text('{"format_version": 1, "labels": {}}')
        (models / "new").replace(labels_path(models, "tiny"))

    set_label(models, "tiny", "stable", 1)
    hooks["after open"] = on("labels.json", replace)
    hooked_mirror.sync()
    assert read_labels(hooked_mirror.folder, "tiny") == {}
    (reason,) = hooked_mirror.problems.values()
    assert "labels.json changed while it was copied" in reason


def test_a_listing_that_fails_in_the_middle_removes_nothing(
    hooked_mirror: Synchronizer, models: Path, hooks: Hooks
) -> None:
    def refuse() -> None:
        raise PermissionError("no")

    hooked_mirror.sync()
    shutil.rmtree(models / "tiny" / "1")
    hooks["before list"] = on("tiny/2", refuse)
    assert not hooked_mirror.sync()
    assert versions(hooked_mirror.folder, "tiny") == [2, 1]
    assert hooked_mirror.trouble is not None
    assert hooked_mirror.sync()
    assert versions(hooked_mirror.folder, "tiny") == [2]


def test_a_store_that_goes_away_while_it_is_copied_blames_no_version(
    hooked_mirror: Synchronizer, models: Path, hooks: Hooks
) -> None:
    hooks["before open"] = on("tiny/2/", lambda: models.rename(models.with_name("away")))
    hooked_mirror.sync()
    assert hooked_mirror.trouble is not None
    assert hooked_mirror.problems == {}
    models.with_name("away").rename(models)
    assert hooked_mirror.sync()
    assert versions(hooked_mirror.folder, "tiny") == [2, 1]


def test_one_version_that_may_not_be_read_keeps_no_other_and_is_tried_less_and_less_often(
    hooked_mirror: Synchronizer, hooks: Hooks
) -> None:
    tried: list[str] = []

    def refuse(path: str) -> None:
        if "tiny/2/" in path:
            tried.append(path)
            raise PermissionError("no")

    hooks["before open"] = refuse
    for _ in range(32):
        hooked_mirror.sync()
    assert versions(hooked_mirror.folder, "tiny") == [1]
    assert len(tried) == 6  # in rounds 1, 2, 4, 8, 16 and 32


def test_a_model_appears_with_the_versions_that_its_labels_mean(
    hooked_mirror: Synchronizer, models: Path, hooks: Hooks
) -> None:
    cache, seen = hooked_mirror.folder, list[tuple[list[int], list[str]]]()
    set_label(models, "tiny", "stable", 1)
    hooks["before open"] = lambda _: seen.append(
        (versions(cache, "tiny"), [*read_labels(cache, "tiny")])
    )
    hooked_mirror.sync()
    assert [pair for pair in seen if pair[0]] == [([1], ["stable"])] * 2
    assert versions(cache, "tiny") == [2, 1]


def test_a_new_meaning_of_a_label_comes_after_the_version(
    hooked_mirror: Synchronizer, models: Path, hooks: Hooks, publish: Callable[..., None]
) -> None:
    set_label(models, "tiny", "stable", 1)
    hooked_mirror.sync()
    publish("tiny", versions=2)
    set_label(models, "tiny", "stable", 3)
    seen = list[tuple[int, bool]]()
    cache = hooked_mirror.folder

    def look(path: str) -> None:
        meant = read_labels(cache, "tiny")["stable"].version
        seen.append((meant, meant in versions(cache, "tiny")))

    hooks["before open"] = look
    hooked_mirror.sync()
    assert set(seen) == {(1, True), (3, True)}


def test_while_one_mirror_copies_another_leaves_it_to_it(
    hooked_mirror: Synchronizer, models: Path, cache: Path, hooks: Hooks
) -> None:
    other = Synchronizer(f"hooked://{models}", cache)
    answers = list[bool]()
    hooks["before open"] = on("tiny/1/", lambda: answers.append(other.sync()))
    assert hooked_mirror.sync()
    assert answers == [False]
    assert not other.sync()
    assert versions(cache, "tiny") == [2, 1]


def test_a_full_disk_is_survived(
    hooked_mirror: Synchronizer,
    models: Path,
    file_size_limit: Callable[[int], AbstractContextManager[None]],
) -> None:
    with file_size_limit(weights_path(models, "tiny", 1).stat().st_size // 2):
        hooked_mirror.sync()
    assert versions(hooked_mirror.folder, "tiny") == []
    assert all("cannot be written to: File too large" in text for text in problems(hooked_mirror))
    hooked_mirror.sync()
    assert versions(hooked_mirror.folder, "tiny") == [2, 1]


def problems(mirror: Synchronizer) -> list[str]:
    found = list(mirror.problems.values())
    assert len(found) == 2
    return found


def test_the_first_look_is_waited_for(hooked_mirror: Synchronizer) -> None:
    mirroring = Follower(hooked_mirror, period_s=TIMEOUT_S)
    assert mirroring.start(patience_s=TIMEOUT_S)
    assert versions(hooked_mirror.folder, "tiny") == [2, 1]
    mirroring.stop()


def test_a_look_that_is_asked_for_does_not_wait_for_its_period(
    hooked_mirror: Synchronizer, publish: Callable[..., None]
) -> None:
    changed = threading.Event()
    mirroring = Follower(hooked_mirror, period_s=100 * TIMEOUT_S, on_change=changed.set)
    assert mirroring.start(patience_s=TIMEOUT_S)
    changed.clear()
    publish("tiny", versions=1)
    mirroring.look_soon()
    assert changed.wait(TIMEOUT_S)
    mirroring.stop()


def test_a_store_that_does_not_answer_is_not_waited_for_long(
    hooked_mirror: Synchronizer, hooks: Hooks
) -> None:
    may_answer = threading.Event()

    def wait(_: str) -> None:
        may_answer.wait(TIMEOUT_S)

    hooks["before list"] = wait
    mirroring = Follower(hooked_mirror, period_s=0.01)
    assert not mirroring.start(patience_s=0.01)
    mirroring.stop()
    may_answer.set()


def test_what_is_new_is_told(hooked_mirror: Synchronizer, publish: Callable[..., None]) -> None:
    changed = threading.Event()
    mirroring = Follower(hooked_mirror, period_s=0.01, on_change=changed.set)
    mirroring.start()
    assert changed.wait(TIMEOUT_S)
    changed.clear()
    publish("tiny", versions=1)
    assert changed.wait(TIMEOUT_S)
    mirroring.stop()
    assert versions(hooked_mirror.folder, "tiny") == [3, 2, 1]


def test_a_copy_is_broken_off_when_it_is_to_stop(hooked_mirror: Synchronizer, hooks: Hooks) -> None:
    hooks["before open"] = on("tiny/1/", hooked_mirror.stop)
    hooked_mirror.sync()
    assert 1 not in versions(hooked_mirror.folder, "tiny")
    assert hooked_mirror.problems == {}
    assert list(hooked_mirror.folder.glob(".unfinished-*")) == []
