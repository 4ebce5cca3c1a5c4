"""A store that fails in the midst of something."""

import shutil
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from queue import SimpleQueue

from mlpserve.model.folder import versions, weights_path
from mlpserve.model.labels import labels_path, read_labels, set_label
from mlpserve.model.sync.follower import Follower
from mlpserve.model.sync.synchronizer import Synchronizer

TIMEOUT_S = 60.0
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
    hooked_synchronizer: Synchronizer, models: Path, hooks: Hooks
) -> None:
    hooks["before open"] = on("tiny/2/", lambda: shutil.rmtree(models / "tiny" / "2"))
    assert hooked_synchronizer.sync()
    assert versions(hooked_synchronizer.copy.folder, "tiny") == [1]
    assert len(hooked_synchronizer.problems) == 1
    hooked_synchronizer.sync()
    assert hooked_synchronizer.problems == {}


def test_a_file_that_is_shorter_than_it_was_listed_is_not_taken(
    hooked_synchronizer: Synchronizer, models: Path, hooks: Hooks
) -> None:
    path = weights_path(models, "tiny", 2)
    whole = path.read_bytes()
    hooks["before open"] = on("tiny/2/weights.npz", lambda: path.write_bytes(whole[:200]))
    hooked_synchronizer.sync()
    assert versions(hooked_synchronizer.copy.folder, "tiny") == [1]
    (reason,) = hooked_synchronizer.problems.values()
    assert f"{len(whole)} bytes were listed, 200 came" in reason
    path.write_bytes(whole)
    hooked_synchronizer.sync()
    assert versions(hooked_synchronizer.copy.folder, "tiny") == [2, 1]


def test_a_file_that_is_replaced_while_it_is_read_is_not_taken(
    hooked_synchronizer: Synchronizer, models: Path, hooks: Hooks
) -> None:
    def replace() -> None:
        (models / "new").write_text('{"format_version": 1, "labels": {}}')
        (models / "new").replace(labels_path(models, "tiny"))

    set_label(models, "tiny", "stable", 1)
    hooks["after open"] = on("labels.json", replace)
    hooked_synchronizer.sync()
    assert read_labels(hooked_synchronizer.copy.folder, "tiny") == {}
    (reason,) = hooked_synchronizer.problems.values()
    assert "labels.json changed while it was copied" in reason


def test_a_listing_that_fails_in_the_middle_removes_nothing(
    hooked_synchronizer: Synchronizer, models: Path, hooks: Hooks
) -> None:
    def refuse() -> None:
        raise PermissionError("no")

    hooked_synchronizer.sync()
    shutil.rmtree(models / "tiny" / "1")
    hooks["before list"] = on("tiny/2", refuse)
    assert not hooked_synchronizer.sync()
    assert versions(hooked_synchronizer.copy.folder, "tiny") == [2, 1]
    assert hooked_synchronizer.failure is not None
    assert hooked_synchronizer.sync()
    assert versions(hooked_synchronizer.copy.folder, "tiny") == [2]


def test_a_store_that_goes_away_while_it_is_copied_blames_no_version(
    hooked_synchronizer: Synchronizer, models: Path, hooks: Hooks
) -> None:
    hooks["before open"] = on("tiny/2/", lambda: models.rename(models.with_name("away")))
    hooked_synchronizer.sync()
    assert hooked_synchronizer.failure is not None
    assert hooked_synchronizer.problems == {}
    models.with_name("away").rename(models)
    assert hooked_synchronizer.sync()
    assert versions(hooked_synchronizer.copy.folder, "tiny") == [2, 1]


def test_one_version_that_may_not_be_read_keeps_no_other_and_is_tried_less_and_less_often(
    hooked_synchronizer: Synchronizer, hooks: Hooks
) -> None:
    tried: list[str] = []

    def refuse(path: str) -> None:
        if "tiny/2/" in path:
            tried.append(path)
            raise PermissionError("no")

    hooks["before open"] = refuse
    for _ in range(32):
        hooked_synchronizer.sync()
    assert versions(hooked_synchronizer.copy.folder, "tiny") == [1]
    assert len(tried) == 6  # in rounds 1, 2, 4, 8, 16 and 32


def test_a_model_appears_with_the_versions_that_its_labels_mean(
    hooked_synchronizer: Synchronizer, models: Path, hooks: Hooks
) -> None:
    cache, seen = hooked_synchronizer.copy.folder, list[tuple[list[int], list[str]]]()
    set_label(models, "tiny", "stable", 1)
    hooks["before open"] = lambda _: seen.append(
        (versions(cache, "tiny"), [*read_labels(cache, "tiny")])
    )
    hooked_synchronizer.sync()
    assert [pair for pair in seen if pair[0]] == [([1], ["stable"])] * 2
    assert versions(cache, "tiny") == [2, 1]


def test_a_new_meaning_of_a_label_comes_after_the_version(
    hooked_synchronizer: Synchronizer, models: Path, hooks: Hooks, publish: Callable[..., None]
) -> None:
    set_label(models, "tiny", "stable", 1)
    hooked_synchronizer.sync()
    publish("tiny", versions=2)
    set_label(models, "tiny", "stable", 3)
    seen = list[tuple[int, bool]]()
    cache = hooked_synchronizer.copy.folder

    def look(path: str) -> None:
        meant = read_labels(cache, "tiny")["stable"].version
        seen.append((meant, meant in versions(cache, "tiny")))

    hooks["before open"] = look
    hooked_synchronizer.sync()
    assert set(seen) == {(1, True), (3, True)}


def test_while_one_copies_another_leaves_it_to_it(
    hooked_synchronizer: Synchronizer, models: Path, cache: Path, hooks: Hooks
) -> None:
    other = Synchronizer(f"hooked://{models}", cache)
    answers = list[bool]()
    hooks["before open"] = on("tiny/1/", lambda: answers.append(other.sync()))
    assert hooked_synchronizer.sync()
    assert answers == [False]
    assert other.difference == f"another program copies into {cache}"
    assert not other.sync()
    assert other.difference is None
    assert versions(cache, "tiny") == [2, 1]


def test_a_full_disk_is_survived(
    hooked_synchronizer: Synchronizer,
    models: Path,
    file_size_limit: Callable[[int], AbstractContextManager[None]],
) -> None:
    with file_size_limit(weights_path(models, "tiny", 1).stat().st_size // 2):
        hooked_synchronizer.sync()
    assert versions(hooked_synchronizer.copy.folder, "tiny") == []
    assert all(
        "cannot be written to: File too large" in text for text in problems(hooked_synchronizer)
    )
    hooked_synchronizer.sync()
    assert versions(hooked_synchronizer.copy.folder, "tiny") == [2, 1]


def problems(synchronizer: Synchronizer) -> list[str]:
    found = list(synchronizer.problems.values())
    assert len(found) == 2
    return found


def test_the_folder_is_followed_until_it_is_to_stop(
    hooked_synchronizer: Synchronizer, publish: Callable[..., None]
) -> None:
    looks = SimpleQueue[list[int]]()
    copied = hooked_synchronizer.copy.folder
    follower = Follower(
        hooked_synchronizer, period_s=0.01, on_look=lambda: looks.put(versions(copied, "tiny"))
    )
    follower.start()
    assert looks.get(timeout=TIMEOUT_S) == [2, 1]
    publish("tiny", versions=1)
    while looks.get(timeout=TIMEOUT_S) != [3, 2, 1]:
        pass
    assert follower.stop()


def test_a_look_that_is_asked_for_does_not_wait_for_its_period(
    hooked_synchronizer: Synchronizer, publish: Callable[..., None]
) -> None:
    looks = SimpleQueue[None]()
    follower = Follower(
        hooked_synchronizer, period_s=100 * TIMEOUT_S, on_look=lambda: looks.put(None)
    )
    follower.start()
    looks.get(timeout=TIMEOUT_S)
    publish("tiny", versions=1)
    follower.look_soon()
    looks.get(timeout=TIMEOUT_S)
    assert versions(hooked_synchronizer.copy.folder, "tiny") == [3, 2, 1]
    assert follower.stop()


def test_a_store_that_does_not_answer_is_not_waited_for_long(
    hooked_synchronizer: Synchronizer, hooks: Hooks
) -> None:
    may_answer, is_listing = threading.Event(), threading.Event()

    def wait(_: str) -> None:
        is_listing.set()
        may_answer.wait(TIMEOUT_S)

    hooks["before list"] = wait
    follower = Follower(hooked_synchronizer, period_s=0.01, on_look=threading.Event().set)
    follower.start()
    assert is_listing.wait(TIMEOUT_S)
    assert not follower.stop()
    may_answer.set()


def test_a_copy_is_broken_off_when_it_is_to_stop(
    hooked_synchronizer: Synchronizer, hooks: Hooks
) -> None:
    hooks["before open"] = on("tiny/1/", hooked_synchronizer.stop)
    hooked_synchronizer.sync()
    assert 1 not in versions(hooked_synchronizer.copy.folder, "tiny")
    assert str(hooked_synchronizer.difference).endswith(": stopped copying")
    assert hooked_synchronizer.problems == {}
    assert list(hooked_synchronizer.copy.folder.glob(".unfinished-*")) == []
