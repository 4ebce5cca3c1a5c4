"""Watching a folder; what is done at each reload is the controller's business."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Condition

import pytest

from mlpserve.server.models.watcher import Watcher

TIMEOUT_S = 60.0


class Reloads:
    """Counts reloads, and lets wait for more of them."""

    def __init__(self) -> None:
        self.count = 0
        self.error: Exception | None = None
        self._changed = Condition()

    def reload(self) -> None:
        with self._changed:
            self.count += 1
            self._changed.notify_all()
        if self.error is not None:
            raise self.error

    def wait_for_more(self, more: int = 1, timeout_s: float = TIMEOUT_S) -> bool:
        with self._changed:
            wanted = self.count + more
            return self._changed.wait_for(lambda: self.count >= wanted, timeout_s)


@pytest.fixture
def reloads() -> Reloads:
    return Reloads()


@pytest.fixture
def watch(models: Path, reloads: Reloads) -> Iterator[Callable[..., None]]:
    """Return a function that begins to watch the models folder."""
    started: list[Watcher] = []

    def start(*, period_s: float = 0.1) -> None:
        started.append(Watcher(models, reloads.reload, period_s=period_s))
        started[-1].start()

    yield start
    for watcher in started:
        watcher.stop()


def test_it_reloads_again_and_again_though_nothing_happens(
    models: Path, reloads: Reloads, watch: Callable[..., None]
) -> None:
    models.mkdir()
    watch()
    assert reloads.wait_for_more(3)


def test_it_reloads_soon_after_a_change_is_made(
    models: Path, reloads: Reloads, watch: Callable[..., None]
) -> None:
    (models / "digits").mkdir(parents=True)
    watch(period_s=600)  # but for changes, there would be no second reload
    for folder in (models, models / "digits", models / "letters"):
        folder.mkdir(exist_ok=True)
        # A change while the watch begins is left to the reload after the period.
        changes = (folder / f"{number}.txt" for number in range(100))
        assert any(reloads.wait_for_more(timeout_s=0.2) for each in changes if each.write_text("-"))


def test_it_reloads_at_a_folder_that_is_missing_comes_goes_and_comes_again(
    models: Path, reloads: Reloads, watch: Callable[..., None]
) -> None:
    watch()
    assert reloads.wait_for_more(2)
    for _ in range(2):
        models.mkdir()
        assert reloads.wait_for_more(2)
        models.rmdir()
        assert reloads.wait_for_more(2)


def test_a_storm_of_changes_is_taken_together(
    models: Path, reloads: Reloads, watch: Callable[..., None]
) -> None:
    (models / "digits").mkdir(parents=True)
    watch()
    assert reloads.wait_for_more()
    before = reloads.count
    for number in range(5000):
        (models / "digits" / f".{number}").write_text("")
    assert reloads.wait_for_more()
    assert reloads.count - before < 100


def test_a_reload_that_fails_is_logged_once_and_is_not_the_last(
    models: Path, reloads: Reloads, watch: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    reloads.error = OSError("the disk is on fire")
    watch()
    assert reloads.wait_for_more(4)
    reloads.error = None
    assert reloads.wait_for_more(1)
    assert caplog.text.count("the disk is on fire") == 1


def test_where_the_file_system_tells_nothing_it_reloads_again_and_again(
    models: Path,
    reloads: Reloads,
    watch: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def no_watches_left(*_: object, **__: object) -> Iterator[None]:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("watchfiles.watch", no_watches_left)
    models.mkdir()
    caplog.set_level("INFO")
    watch()
    assert reloads.wait_for_more(4)
    assert caplog.text.count("the file system tells of no change: [Errno 28] No space left") == 1
