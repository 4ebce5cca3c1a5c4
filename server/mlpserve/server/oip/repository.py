"""What the protocol tells about the server and its models, and how it loads and unloads them."""

from collections.abc import Callable, Collection
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from mlpserve.model.folder import VersionKey
from mlpserve.oip import inference_pb2
from mlpserve.server.errors import (
    NotAllowedError,
    NotReadyError,
    NotServedError,
    UnsupportedError,
)
from mlpserve.server.inference.model_manager import Manager
from mlpserve.server.models.generations import Generations
from mlpserve.server.oip.descriptions import config_message, metadata_message, statistics_message
from mlpserve.server.oip.figures import figures_of
from mlpserve.server.oip.versions import (
    find_version,
    find_versions,
    served_versions,
    unusable_versions,
)
from mlpserve.server.security.limits import CallLimit
from mlpserve.server.telemetry.snapshots import MetricsSnapshot
from mlpserve.server.telemetry.statistics import Figures

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


class Repository:
    """Answers what the protocol asks about the server and its models. Safe for many threads.

    Args:
        generations: The models.
        totals: Returns what all processes of the server have counted.
        max_batch_images: The most images that one request may carry.
        manager: Loads and unloads models; None where that is not allowed.
        management_calls: How many calls of that kind may be open.
    """

    def __init__(
        self,
        generations: Generations,
        totals: Callable[[], MetricsSnapshot],
        *,
        max_batch_images: int,
        manager: Manager | None,
        management_calls: CallLimit,
    ) -> None:
        self._generations = generations
        self._totals = totals
        self._max_batch_images = max_batch_images
        self._manager = manager
        self._management_calls = management_calls

    @property
    def is_ready(self) -> bool:
        """Return whether there is any model that answers requests."""
        return self._generations.current.is_ready

    def is_model_ready(self, name: str, version: str) -> bool:
        """Return whether a model, or a version of it, answers requests.

        Raises:
            RequestError: ``version`` is neither a number nor a label.
        """
        try:
            find_version(self._generations.current, name, version)
        except (NotServedError, NotReadyError):
            return False
        return True

    def server_metadata(self) -> inference_pb2.ServerMetadataResponse:
        """Describe the server."""
        return inference_pb2.ServerMetadataResponse(
            name=SERVER_NAME, version=_own_version(), extensions=EXTENSIONS
        )

    def model_metadata(self, name: str, version: str) -> inference_pb2.ModelMetadataResponse:
        """Describe a model; errors as for ``find_version``."""
        registry = self._generations.current
        model = find_version(registry, name, version)
        return metadata_message(model, served_versions(registry, model.metadata.name))

    def model_config(self, name: str, version: str) -> inference_pb2.ModelConfig:
        """Describe a model as Triton's configuration does; errors as for ``find_version``."""
        registry = self._generations.current
        model = find_version(registry, name, version)
        versions = served_versions(registry, model.metadata.name)
        return config_message(model, versions, max_batch_images=self._max_batch_images)

    def model_statistics(self, name: str, version: str) -> inference_pb2.ModelStatisticsResponse:
        """Tell the figures of a version, of a model, or of all; errors as for ``find_versions``."""
        models = list(find_versions(self._generations.current, name, version))
        known = figures_of(self._totals())
        keys = [VersionKey(model.metadata.name, model.metadata.version) for model in models]
        return inference_pb2.ModelStatisticsResponse(
            model_stats=[statistics_message(key, known.get(key, Figures())) for key in keys]
        )

    def index(self, repository: str, *, ready_only: bool) -> inference_pb2.RepositoryIndexResponse:
        """List the versions of all models.

        Raises:
            UnsupportedError: ``repository`` is not empty.
        """
        _check_repository(repository)
        registry = self._generations.current
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
        manager = self._allowed(repository)
        if parameters:
            raise UnsupportedError(
                f"parameters: a model is loaded as it was published, got {len(parameters)}"
            )
        with self._management_calls:
            manager.load(name)

    def unload(self, repository: str, name: str, parameters: Collection[str]) -> None:
        """Unload a model; errors as for ``load``."""
        manager = self._allowed(repository)
        if set(parameters) - {UNLOAD_DEPENDENTS}:
            raise UnsupportedError(f"parameters: expected {UNLOAD_DEPENDENTS} only")
        with self._management_calls:
            manager.unload(name)

    def _allowed(self, repository: str) -> Manager:
        _check_repository(repository)
        if self._manager is None:
            raise NotAllowedError("explicit model load / unload is not allowed on this server")
        return self._manager


def _check_repository(repository: str) -> None:
    if repository:
        raise UnsupportedError("repository_name: there is one repository only, and it has no name")


def _own_version() -> str:
    try:
        return version(SERVER_NAME)
    except PackageNotFoundError:  # run from its sources
        return "unknown"
