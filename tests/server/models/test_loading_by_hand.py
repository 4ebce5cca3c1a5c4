"""Models are loaded and unloaded by hand, whatever policy and labels say."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlpserve.model.folder import weights_path
from mlpserve.server.errors import NotServedError, RequestError, UnusableError

Publish = Callable[..., None]
ServeFolder = Callable[..., Any]


def damage(models: Path, name: str, version: int) -> None:
    path = weights_path(models, name, version)
    path.write_bytes(path.read_bytes()[:-100])


def test_a_version_is_loaded_and_unloaded_by_hand(
    models: Path, publish: Publish, serve_folder: ServeFolder
) -> None:
    publish("digits", versions=4)
    local = serve_folder(models)
    local.controller.load("digits", 1)
    assert local.served == {"digits": [4, 3, 1]}
    local.controller.unload("digits", 4)
    assert local.served == {"digits": [3, 2, 1]}
    assert local.reloaded() == {"digits": [3, 2, 1]}
    local.controller.unload("digits")
    assert local.reloaded() == {}
    local.controller.load("digits", 2)
    assert local.reloaded() == {"digits": [2]}
    local.controller.load("digits")
    assert local.reloaded() == {"digits": [4, 3]}


def test_loading_by_hand_looks_at_nothing_else(
    models: Path, publish: Publish, serve_folder: ServeFolder
) -> None:
    publish("digits", versions=2)
    local = serve_folder(models)
    publish("digits", versions=2)
    publish("letters", versions=1)
    local.controller.load("digits", 3)
    assert local.served == {"digits": [3, 2, 1]}
    local.controller.load("digits")
    assert local.served == {"digits": [4, 3]}
    local.controller.load("letters", 1)
    assert local.served == {"digits": [4, 3], "letters": [1]}


def test_loading_what_is_not_there_or_broken_says_so_and_changes_nothing(
    models: Path, publish: Publish, serve_folder: ServeFolder
) -> None:
    publish("digits", versions=2)
    local = serve_folder(models)
    publish("digits", versions=1)
    publish("letters", versions=1)
    damage(models, "digits", 3)
    damage(models, "letters", 1)
    controller = local.controller
    refused: list[tuple[Callable[[], None], type[Exception], str]] = [
        (lambda: controller.load("digits", 9), NotServedError, "version 9 of model 'digits' is no"),
        (lambda: controller.load("none"), NotServedError, "'none' is not in the models folder"),
        (lambda: controller.load("../digits"), RequestError, "model_name: expected the name of"),
        (lambda: controller.load("digits", -1), RequestError, "model_version: expected a positiv"),
        (lambda: controller.load("digits", 3), UnusableError, "failed its checks: expected the SH"),
        (lambda: controller.load("letters"), UnusableError, "version 1: expected the SHA-256"),
        (lambda: controller.unload("digits", 3), NotServedError, "version 3 .* is not served"),
        (lambda: controller.unload("none"), NotServedError, "model 'none' is not served"),
    ]
    for call, kind, message in refused:
        with pytest.raises(kind, match=message):
            call()
        assert local.served.get("digits") == [2, 1]
        assert not local.served.get("letters")


def test_a_version_that_was_loaded_by_hand_and_is_gone_is_forgotten(
    models: Path, publish: Publish, serve_folder: ServeFolder
) -> None:
    publish("digits", versions=4)
    local = serve_folder(models)
    local.controller.load("digits", 1)
    shutil.rmtree(models / "digits" / "1")
    assert local.reloaded() == {"digits": [4, 3]}
