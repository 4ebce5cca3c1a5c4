import logging
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest

from mlpserve.model.errors import ModelsFolderError
from mlpserve.model.folder import weights_path
from mlpserve.model.versions import publish as publish_model
from mlpserve.model.weights import Model
from mlpserve.server import prediction
from mlpserve.server.compiled import CompiledModel, Images, Workspace
from mlpserve.server.errors import NotServedError, RequestError, StartError
from mlpserve.server.prediction import Answer, answers
from mlpserve.server.registry import Registry, load_registry

Publish = Callable[..., None]


def served(registry: Registry) -> dict[str, list[int]]:
    return {
        name: [model.metadata.version for model in models]
        for name, models in registry.models.items()
    }


def test_the_newest_versions_of_every_model_are_served(models: Path, publish: Publish) -> None:
    publish("b", versions=3)
    publish("a", versions=1)
    assert served(load_registry(models, versions_per_model=2)) == {"a": [1], "b": [3, 2]}


def test_the_newest_version_answers_where_none_is_pinned(models: Path, publish: Publish) -> None:
    publish("digits", versions=2)
    registry = load_registry(models, versions_per_model=2)
    assert registry.find("digits", 0).metadata.version == 2
    assert registry.find("", 0).metadata.version == 2
    assert registry.find("", 1).metadata.version == 1


def test_what_is_not_served_is_refused_with_what_is(models: Path, publish: Publish) -> None:
    publish("digits", versions=3)
    publish("letters", versions=1)
    registry = load_registry(models, versions_per_model=2)
    with pytest.raises(NotServedError, match="no model 'mnist' is served; .* digits, letters"):
        registry.find("mnist", 0)
    with pytest.raises(NotServedError, match="version 1 of model 'digits' is not .* are: 3, 2"):
        registry.find("digits", 1)
    with pytest.raises(RequestError, match="model_version: expected a positive number, .* got -1"):
        registry.find("digits", -1)
    with pytest.raises(RequestError, match="model_name: required, .*: digits, letters"):
        registry.find("", 0)


def test_a_long_name_is_not_repeated_in_full(models: Path, publish: Publish) -> None:
    publish("digits", versions=1)
    with pytest.raises(NotServedError) as caught:
        load_registry(models, versions_per_model=2).find("x" * 100_000, 0)
    assert len(str(caught.value)) < 200


def test_a_version_that_cannot_be_used_leaves_its_place_to_an_older_one(
    models: Path, publish: Publish, caplog: pytest.LogCaptureFixture
) -> None:
    publish("digits", versions=3)
    damaged = weights_path(models, "digits", 3)
    damaged.write_bytes(damaged.read_bytes()[:-100])
    with caplog.at_level(logging.ERROR):
        registry = load_registry(models, versions_per_model=2)
    assert served(registry) == {"digits": [2, 1]}
    assert str(damaged) in caplog.text


def test_a_version_that_was_copied_to_another_number_is_not_served(
    models: Path, publish: Publish, caplog: pytest.LogCaptureFixture
) -> None:
    publish("digits", versions=1)
    copy = weights_path(models, "digits", 2)
    copy.parent.mkdir()
    copy.write_bytes(weights_path(models, "digits", 1).read_bytes())
    assert served(load_registry(models, versions_per_model=2)) == {"digits": [1]}
    assert "it says that it is version 1 of 'digits'" in caplog.text


def test_a_version_that_fails_its_self_test_is_not_served(
    models: Path,
    publish: Publish,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    publish("digits", versions=2)

    def broken_in_version_2(
        model: CompiledModel, batches: Sequence[Images], workspace: Workspace
    ) -> list[Answer]:
        found = answers(model, batches, workspace)
        if model.metadata.version != 2:
            return found
        return [
            Answer(np.full(len(images) * 3, np.nan, "<f4").tobytes(), answer.labels)
            for images, answer in zip(batches, found, strict=True)
        ]

    monkeypatch.setattr(prediction, "answers", broken_in_version_2)
    assert served(load_registry(models, versions_per_model=2)) == {"digits": [1]}
    assert "self-test: expected probabilities that sum to 1, got nan" in caplog.text


def test_a_model_whose_weights_are_a_pipe_is_not_waited_for(models: Path, publish: Publish) -> None:
    publish("digits", versions=1)
    pipe = weights_path(models, "digits", 2)
    pipe.parent.mkdir()
    os.mkfifo(pipe)
    assert served(load_registry(models, versions_per_model=2)) == {"digits": [1]}


def test_a_model_whose_folder_cannot_be_read_does_not_keep_others_from_being_served(
    public_folder: Path,
    model: Model,
    as_ordinary_user: Callable[[], AbstractContextManager[None]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    publish_model(public_folder, model)
    private = public_folder / "private"
    private.mkdir()
    private.chmod(0)
    with as_ordinary_user():
        registry = load_registry(public_folder, versions_per_model=2)
    assert served(registry) == {"tiny": [1]}
    assert f"not served: {private}: cannot be read: Permission denied" in caplog.text


def test_a_message_lists_a_few_models_and_how_many_more_there_are(model: Model) -> None:
    compiled = CompiledModel(model)
    registry = Registry({f"model-{number:03}": (compiled,) for number in range(400)})
    with pytest.raises(NotServedError) as caught:
        registry.find("none", 0)
    assert str(caught.value).endswith("model-008, model-009 and 390 more (see ListModels)")


def test_a_folder_without_a_usable_model_says_how_to_get_one(models: Path) -> None:
    models.mkdir()
    with pytest.raises(StartError, match="mlpserve-train --models"):
        load_registry(models, versions_per_model=2)


def test_a_folder_that_is_missing_is_named(models: Path) -> None:
    with pytest.raises(ModelsFolderError, match=f"{models}: cannot be read"):
        load_registry(models, versions_per_model=2)


def test_models_are_those_of_the_files(models: Path, publish: Publish, model: Model) -> None:
    publish("digits", versions=1)
    found = load_registry(models, versions_per_model=2).find("digits", 1)
    assert found.metadata.layer_sizes == model.metadata.layer_sizes
