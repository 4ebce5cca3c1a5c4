"""What the protocol tells about the server and its models, and how it loads and unloads them."""

from collections.abc import Callable, Collection
from importlib.metadata import PackageNotFoundError, version
from typing import Final, Protocol

from mlpserve.oip import inference_pb2
from mlpserve.server.errors import (
    NotAllowedError,
    NotServedError,
    UnsupportedError,
)
from mlpserve.server.oip.descriptions import config_message, metadata_message, statistics_message
from mlpserve.server.oip.models import (
    find_version,
    find_versions,
    served_versions,
    unusable_versions,
)
from mlpserve.server.registry import Registry
from mlpserve.server.statistics import Statistics

SERVER_NAME: Final = "mlpserve"
# What of Triton's extensions is implemented, by the names that it gives them.
EXTENSIONS: Final = (
    "classification",
    "model_configuration",
    "model_repository",
    "schedule_policy",
    "statistics",
)
HTTP_EXTENSIONS: Final = ("binary_tensor_data",)
UNLOAD_DEPENDENTS: Final = "unload_dependents"  # nothing depends on a model: true or false is one


class ModelManagement(Protocol):
    """Loads and unloads models of the models folder."""

    def load(self, name: str, version: int = 0) -> None:
        """Serve a model, or one more version of it."""

    def unload(self, name: str, version: int = 0) -> None:
        """Serve a model, or one version of it, no longer."""


class Repository:
    """Answers what the protocol asks about the server and its models. Safe for many threads.

    Args:
        models: Gives the models of the moment.
        statistics: The figures that are told.
        is_ready: Tells whether the server is ready.
        max_batch_images: The most images that one request may carry.
        management: Loads and unloads models; None where that is not allowed.
    """

    def __init__(
        self,
        models: Callable[[], Registry],
        statistics: Statistics,
        *,
        is_ready: Callable[[], bool],
        max_batch_images: int,
        management: ModelManagement | None = None,
    ) -> None:
        self._models = models
        self._statistics = statistics
        self.is_ready = is_ready
        self._max_batch_images = max_batch_images
        self._management = management

    def is_model_ready(self, name: str, version: str) -> bool:
        """Return whether a model, or a version of it, answers requests.

        Raises:
            RequestError: ``version`` is neither a number nor a label.
        """
        try:
            find_version(self._models(), name, version)
        except NotServedError:
            return False
        return self.is_ready()

    def server_metadata(self) -> inference_pb2.ServerMetadataResponse:
        """Describe the server."""
        return inference_pb2.ServerMetadataResponse(
            name=SERVER_NAME, version=_own_version(), extensions=EXTENSIONS
        )

    def model_metadata(self, name: str, version: str) -> inference_pb2.ModelMetadataResponse:
        """Describe a model; errors as for ``find_version``."""
        registry = self._models()
        model = find_version(registry, name, version)
        return metadata_message(model, served_versions(registry, model.metadata.name))

    def model_config(self, name: str, version: str) -> inference_pb2.ModelConfig:
        """Describe a model as Triton's configuration does; errors as for ``find_version``."""
        registry = self._models()
        model = find_version(registry, name, version)
        versions = served_versions(registry, model.metadata.name)
        return config_message(model, versions, max_batch_images=self._max_batch_images)

    def model_statistics(self, name: str, version: str) -> inference_pb2.ModelStatisticsResponse:
        """Tell the figures of a version, of a model, or of all; errors as for ``find_versions``."""
        return inference_pb2.ModelStatisticsResponse(
            model_stats=[
                statistics_message(model, self._statistics.figures(model))
                for model in find_versions(self._models(), name, version)
            ]
        )

    def index(self, repository: str, *, ready_only: bool) -> inference_pb2.RepositoryIndexResponse:
        """List the versions of all models.

        Raises:
            UnsupportedError: ``repository`` is not empty.
        """
        _check_repository(repository)
        registry = self._models()
        response = inference_pb2.RepositoryIndexResponse()
        for model in find_versions(registry, "", ""):
            metadata = model.metadata
            response.models.add(name=metadata.name, version=str(metadata.version), state="READY")
        for name, number, reason in () if ready_only else unusable_versions(registry):
            response.models.add(name=name, version=str(number), state="UNAVAILABLE", reason=reason)
        return response

    def load(self, repository: str, name: str, parameters: Collection[str]) -> None:
        """Load a model.

        Raises:
            UnsupportedError: There are parameters, or ``repository`` is not empty.
            ServerError: It is not allowed, or failed.
        """
        management = self._allowed(repository)
        if parameters:
            raise UnsupportedError(
                f"parameters: a model is loaded as it was published, got {len(parameters)}"
            )
        management.load(name)

    def unload(self, repository: str, name: str, parameters: Collection[str]) -> None:
        """Unload a model; errors as for ``load``."""
        management = self._allowed(repository)
        if set(parameters) - {UNLOAD_DEPENDENTS}:
            raise UnsupportedError(f"parameters: expected {UNLOAD_DEPENDENTS} only")
        management.unload(name)

    def _allowed(self, repository: str) -> ModelManagement:
        _check_repository(repository)
        if self._management is None:
            raise NotAllowedError("explicit model load / unload is not allowed on this server")
        return self._management


def _check_repository(repository: str) -> None:
    if repository:
        raise UnsupportedError("repository_name: there is one repository only, and it has no name")


def _own_version() -> str:
    try:
        return version(SERVER_NAME)
    except PackageNotFoundError:  # run from its sources
        return "unknown"
