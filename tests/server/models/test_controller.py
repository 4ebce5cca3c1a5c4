"""The controller: versions served of a models folder, look after look, without a server."""

import logging
import os
import shutil
import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlpserve.model.compiled import Answer, CompiledModel, Workspace
from mlpserve.model.digests import DIGEST_FILE_NAME
from mlpserve.model.folder import VersionKey, weights_path
from mlpserve.model.labels import remove_label, roll_back, set_label
from mlpserve.model.versions import publish as publish_model
from mlpserve.model.weights import Model
from mlpserve.server.errors import ShortageError
from mlpserve.server.models.controller import Controller, WorkerPool
from mlpserve.server.models.plan import Plan
from mlpserve.server.models.quarantine import LoadError
from mlpserve.server.models.selection import Rules
from mlpserve.server.models.snapshots import Snapshot
from mlpserve.server.settings.values import Policies

Publish = Callable[..., None]
ServeFolder = Callable[..., Any]


def damage(models: Path, name: str, version: int) -> None:
    path = weights_path(models, name, version)
    path.write_bytes(path.read_bytes()[:-100])


def answers_of(model: CompiledModel) -> bytes:
    return model.classify([np.full((1, 6), 7, np.uint8)], Workspace()).probabilities.tobytes()


def test_the_newest_versions_of_every_model_are_served(
    models: Path, publish: Publish, serve_folder: ServeFolder
) -> None:
    publish("b", versions=3)
    publish("a", versions=1)
    assert serve_folder(models).served == {"a": [1], "b": [3, 2]}


def test_new_versions_come_and_deleted_ones_go(
    models: Path, publish: Publish, serve_folder: ServeFolder
) -> None:
    local = serve_folder(models)
    assert local.served == {}
    publish("digits", versions=1)
    assert local.reloaded() == {"digits": [1]}
    publish("digits", versions=2)
    publish("letters", versions=1)
    assert local.reloaded() == {"digits": [3, 2], "letters": [1]}
    shutil.rmtree(models / "digits" / "3")
    shutil.rmtree(models / "letters")
    assert local.reloaded() == {"digits": [2, 1]}
    for version in ("1", "2"):
        shutil.rmtree(models / "digits" / version)
    assert local.reloaded() == {}
    assert not local.registry.is_ready


def test_nothing_changes_where_nothing_changed(
    models: Path, publish: Publish, serve_folder: ServeFolder
) -> None:
    publish("digits", versions=2)
    local = serve_folder(models)
    before = local.registry
    assert local.controller.reload() is False
    os.utime(weights_path(models, "digits", 2))
    assert local.controller.reload() is False
    assert local.registry is before


def test_a_version_that_stays_is_not_loaded_again(
    models: Path, publish: Publish, serve_folder: ServeFolder
) -> None:
    publish("digits", versions=1)
    local = serve_folder(models)
    first = local.registry.find("digits", 1)
    publish("digits", versions=1)
    local.controller.reload()
    assert local.registry.find("digits", 1) is first
    assert local.registry.find("digits", 0) is not first


def test_a_label_is_followed_and_rolled_back(
    models: Path, publish: Publish, serve_folder: ServeFolder
) -> None:
    publish("digits", versions=4)
    set_label(models, "digits", "stable", 1)
    local = serve_folder(models)
    assert local.served == {"digits": [4, 3, 1]}
    set_label(models, "digits", "stable", 2)
    assert local.reloaded() == {"digits": [4, 3, 2]}
    assert local.registry.find("digits", 0).metadata.version == 2
    assert local.registry.find("", 0, "stable").metadata.version == 2
    roll_back(models, "digits", "stable")
    assert local.reloaded() == {"digits": [4, 3, 1]}
    remove_label(models, "digits", "stable")
    assert local.reloaded() == {"digits": [4, 3]}
    assert local.registry.find("digits", 0).metadata.version == 4


def test_a_broken_version_that_is_promoted_leaves_the_label_where_it_was(
    models: Path, publish: Publish, serve_folder: ServeFolder
) -> None:
    publish("digits", versions=2)
    set_label(models, "digits", "stable", 1)
    local = serve_folder(models)
    publish("digits", versions=1)
    damage(models, "digits", 3)
    set_label(models, "digits", "stable", 3)
    for found in (local, serve_folder(models)):  # also after a restart
        found.controller.reload()
        assert found.registry.find("digits", 0).metadata.version == 1
        assert found.registry.models["digits"].labels == {"stable": 1}
        assert "SHA-256" in found.registry.models["digits"].quarantined[3]


def test_another_default_label_may_be_chosen(
    models: Path, publish: Publish, serve_folder: ServeFolder
) -> None:
    publish("digits", versions=3)
    set_label(models, "digits", "stable", 3)
    set_label(models, "digits", "live", 1)
    local = serve_folder(models, default_label="live")
    assert local.registry.find("digits", 0).metadata.version == 1


def test_a_version_is_tried_again_when_its_file_changes(
    models: Path, publish: Publish, serve_folder: ServeFolder, caplog: pytest.LogCaptureFixture
) -> None:
    publish("digits", versions=2)
    path = weights_path(models, "digits", 2)
    good = path.read_bytes()
    damage(models, "digits", 2)
    local = serve_folder(models, versions="1")
    assert local.served == {"digits": [1]}
    for _ in range(3):
        assert local.controller.reload() is False
    assert caplog.text.count("not served: digits version 2: expected the SHA-256") == 1
    path.write_bytes(good)
    assert local.reloaded() == {"digits": [2]}
    assert local.registry.models["digits"].quarantined == {}


def test_what_is_served_goes_on_though_its_file_is_damaged(
    models: Path, publish: Publish, serve_folder: ServeFolder, caplog: pytest.LogCaptureFixture
) -> None:
    publish("digits", versions=1)
    local = serve_folder(models)
    before = answers_of(local.registry.find("digits", 1))
    path = weights_path(models, "digits", 1)
    good = path.read_bytes()
    for ruin in (
        lambda: os.truncate(path, 10),
        lambda: path.write_bytes(bytes(len(good))),
        path.unlink,
        path.mkdir,
    ):
        ruin()
        for _ in range(2):
            local.controller.reload()
        assert local.served == {"digits": [1]}
        assert local.registry.models["digits"].quarantined == {}
        assert answers_of(local.registry.find("digits", 1)) == before
    assert caplog.text.count("digits version 1 goes on being served as it was loaded") == 4


def test_other_weights_under_the_same_number_take_its_place(
    models: Path, model: Model, publish: Publish, serve_folder: ServeFolder
) -> None:
    publish("tiny", versions=1)
    local = serve_folder(models)
    old = local.registry.find("tiny", 1)
    shutil.rmtree(models / "tiny")
    first, last = model.network.layers
    other = replace(model.network, layers=(replace(first, bias=first.bias + 1), last))
    publish_model(models, Model(other, model.metadata))
    assert local.controller.reload() is True
    assert answers_of(local.registry.find("tiny", 1)) != answers_of(old)


def test_other_weights_that_fail_their_checks_do_not_take_its_place(
    models: Path, model: Model, publish: Publish, serve_folder: ServeFolder
) -> None:
    publish("tiny", versions=2)
    local = serve_folder(models)
    old = local.registry.find("tiny", 2)
    path = weights_path(models, "tiny", 2)
    (path.parent / DIGEST_FILE_NAME).unlink()
    path.write_bytes(weights_path(models, "tiny", 1).read_bytes())  # it is of another number
    for _ in range(3):
        assert local.controller.reload() is False
    assert local.registry.find("tiny", 2) is old


def test_old_memory_goes_with_the_last_who_uses_it(
    models: Path, publish: Publish, serve_folder: ServeFolder
) -> None:
    publish("digits", versions=1)
    local = serve_folder(models, versions="1")
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        publish("digits", versions=1)
        local.controller.reload()
    assert len(list(Path("/proc/self/fd").iterdir())) <= descriptors + 1


def test_a_model_that_is_not_served_any_more_lives_as_long_as_a_request_uses_it(
    models: Path, publish: Publish, serve_folder: ServeFolder
) -> None:
    publish("digits", versions=1)
    local = serve_folder(models, versions="1")
    model = local.registry.find("digits", 1)
    is_gone = weakref.ref(model)
    publish("digits", versions=1)
    assert local.reloaded() == {"digits": [2]}
    assert len(answers_of(model)) == 3 * 4
    del model
    assert is_gone() is None


def with_other_bytes(models: Path, name: str, version: int) -> None:
    """Replace the weights of a version in place by others that are as good."""
    path = weights_path(models, name, version)
    with np.load(path) as file:
        arrays = dict(file)
    arrays["b1"] = arrays["b1"] + np.float32(0.5)
    (path.parent / DIGEST_FILE_NAME).unlink(missing_ok=True)
    np.savez(path, **arrays)


class ShortPool:
    """Has no memory for anything that it has not loaded before."""

    def __init__(self, pool: WorkerPool) -> None:
        self.pool = pool
        self.known = set[int]()
        self.is_short = False
        self.loads = 0

    def prepare(
        self, generation: int, plan: Plan, snapshots: Mapping[VersionKey, Snapshot]
    ) -> Mapping[VersionKey, LoadError]:
        new = {key for key, snapshot in snapshots.items() if id(snapshot) not in self.known}
        if self.is_short and new:
            self.loads += 1
            assert self.loads < 100, "it is tried again and again"
            return {key: LoadError("not enough memory", is_transient=True) for key in new}
        self.known.update(id(snapshot) for snapshot in snapshots.values())
        return self.pool.prepare(generation, plan, snapshots)

    def activate(self, generation: int) -> None:
        self.pool.activate(generation)


def test_weights_replaced_in_place_while_memory_is_short_are_tried_once_a_look(
    models: Path, publish: Publish, serve_folder: ServeFolder, caplog: pytest.LogCaptureFixture
) -> None:
    publish("digits", versions=2)
    local = serve_folder(models)
    pool = local.controller._pool = ShortPool(local.controller._pool)  # noqa: SLF001 - no other door
    before = answers_of(local.registry.find("digits", 2))
    with_other_bytes(models, "digits", 2)
    pool.known = {id(each) for each in local.controller._snapshots.served.values()}  # noqa: SLF001
    pool.is_short = True
    for looks in (1, 2, 3):
        assert local.controller.reload() is False
        assert pool.loads == looks
    publish("digits", versions=1)  # nor may what is new keep what is served from being served
    assert local.reloaded() == {"digits": [2, 1]}
    assert answers_of(local.registry.find("digits", 2)) == before
    assert caplog.text.count("digits version 2 goes on being served as it was loaded") == 1
    pool.is_short = False
    assert local.reloaded() == {"digits": [3, 2]}
    assert answers_of(local.registry.find("digits", 2)) != before


def test_what_is_served_is_not_given_up_because_there_is_no_memory_to_load_it_anew(
    models: Path, publish: Publish, serve_folder: ServeFolder
) -> None:
    publish("digits", versions=2)
    local = serve_folder(models)
    working = local.controller._pool  # noqa: SLF001 - to put one before it
    pool = local.controller._pool = ShortPool(working)  # noqa: SLF001
    pool.is_short = True  # even for what is served: one of two processes cannot go back to it
    with_other_bytes(models, "digits", 2)
    publish("letters", versions=1)
    with pytest.raises(ShortageError, match="not enough memory"):
        local.controller.reload()
    assert local.served == {"digits": [2, 1]}
    local.controller._pool = working  # noqa: SLF001
    assert local.reloaded() == {"digits": [2, 1], "letters": [1]}


class FailingPool:
    """Serves nothing for a while: the first attempts fail, whatever is planned."""

    def __init__(self, pool: WorkerPool, *, failures: int) -> None:
        self.failures = failures
        self.pool = pool

    def prepare(
        self, generation: int, plan: Plan, snapshots: Mapping[VersionKey, Snapshot]
    ) -> Mapping[VersionKey, LoadError]:
        self.failures -= 1
        if self.failures >= 0:
            raise ConnectionError("a worker is away")
        return self.pool.prepare(generation, plan, snapshots)

    def activate(self, generation: int) -> None:
        self.pool.activate(generation)


def test_a_change_that_could_not_be_made_is_made_the_next_time(
    models: Path, publish: Publish, serve_folder: ServeFolder
) -> None:
    publish("digits", versions=1)
    local = serve_folder(models)
    pool = FailingPool(local.controller._pool, failures=1)  # noqa: SLF001 - to put one before it
    controller = Controller(models, pool, Rules(Policies(), "stable"), max_version_mb=1)
    controller._generation = 100  # noqa: SLF001 - above those of the other controller
    with pytest.raises(ConnectionError):
        controller.reload()
    assert controller.plan == Plan({})
    assert controller.reload() is True
    assert controller.reload() is False


def test_a_version_that_fails_its_self_test_is_not_served(
    models: Path,
    publish: Publish,
    serve_folder: ServeFolder,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    publish("digits", versions=2)
    answers = CompiledModel.answers

    def broken_in_version_2(model: CompiledModel, *others: Any) -> list[Answer]:
        found = answers(model, *others)
        if model.metadata.version != 2:
            return found
        nan = np.full(len(found[0].labels) // 4 * 3, np.nan, "<f4").tobytes()
        return [Answer(nan, found[0].labels)]

    monkeypatch.setattr(CompiledModel, "answers", broken_in_version_2)
    with caplog.at_level(logging.ERROR):
        assert serve_folder(models).served == {"digits": [1]}
    assert "digits version 2: self-test: expected probabilities that sum to 1" in caplog.text


def test_what_goes_wrong_unexpectedly_is_told_to_the_log_only(
    models: Path,
    publish: Publish,
    serve_folder: ServeFolder,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    publish("digits", versions=1)

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the secret of /etc/shadow")

    monkeypatch.setattr(CompiledModel, "__init__", broken)
    local = serve_folder(models)
    reason = "it cannot be loaded; the server's log has the cause"
    assert local.registry.models["digits"].quarantined == {1: reason}
    assert "the secret of /etc/shadow" in caplog.text
