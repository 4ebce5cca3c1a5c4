"""The descriptions of models, as the client returns them."""

from collections.abc import Callable
from pathlib import Path

from mlpserve.client import Client, ModelInfo, TrainingInfo, VersionInfo
from mlpserve.model.weights import Model
from mlpserve.server.server import Server
from mlpserve.server.settings.config import ServerConfig


def described(model: Model, version: int) -> VersionInfo:
    metadata, training = model.metadata, model.metadata.training
    return VersionInfo(
        version=version,
        layer_sizes=metadata.layer_sizes,
        activations=metadata.activations,
        input_shape=metadata.input.shape,
        class_labels=metadata.class_labels,
        training=TrainingInfo(
            recipe=training.recipe,
            seed=training.seed,
            data_name=training.data_name,
            data_digest=training.data_digest,
            train_accuracy=training.train_accuracy,
            test_accuracy=training.test_accuracy,
            created_at=training.created_at,
        ),
    )


def test_a_model_is_described_as_it_was_published(client: Client, model: Model) -> None:
    both = ModelInfo(
        "tiny",
        (described(model, 2), described(model, 1)),
        max_batch_images=64,
        default_version=2,
    )
    assert client.model() == both
    assert client.model("tiny") == both
    assert client.models() == [both]


def test_one_version_can_be_asked_for(client: Client, model: Model) -> None:
    assert client.model(version=1) == ModelInfo(
        "tiny", (described(model, 1),), max_batch_images=64, default_version=2
    )


def test_when_a_version_was_made_is_known_to_the_microsecond_and_with_its_zone(
    client: Client, model: Model
) -> None:
    created_at = client.model().versions[0].training.created_at
    assert created_at.isoformat() == "2024-02-29T23:59:59.123456+00:00"


def test_all_models_are_listed_in_the_order_of_their_names(
    models: Path, publish: Callable[..., None]
) -> None:
    for name in ("b", "c", "a"):
        publish(name, versions=1)
    server = Server(ServerConfig(models=models, port=0))
    server.start()
    with Client(server.address) as client:
        assert [model.name for model in client.models()] == ["a", "b", "c"]
        assert client.model("b").name == "b"
    server.stop()
