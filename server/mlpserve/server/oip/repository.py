"""Model repository of the protocol: describes the server and its models, loads and unloads them.

A version is a text there: a number, a label, or empty for the server's choice.
"""

import re
from collections.abc import Callable, Collection, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from mlpserve.model.compiled import CompiledModel
from mlpserve.model.folder import VersionKey
from mlpserve.model.labels import is_label
from mlpserve.oip import inference_pb2
from mlpserve.server.errors import (
    NotAllowedError,
    NotReadyError,
    NotServedError,
    RequestError,
    UnsupportedError,
)
from mlpserve.server.inference.model_manager import ModelManager
from mlpserve.server.inference.registry import Registry, Router
from mlpserve.server.oip.descriptions import config_message, metadata_message, statistics_message
from mlpserve.server.oip.values import shortened
from mlpserve.server.security.admission import CallLimit
from mlpserve.server.telemetry.snapshots import MetricsSnapshot
from mlpserve.server.telemetry.statistics import ModelStatistics, model_statistics

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
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)


class Repository:
    """Answers what the protocol asks about the server and its models. Safe for many threads.

    Args:
        router: Knows the models.
        totals: Returns what all processes of the server have counted.
        max_batch_images: The most images that one request may carry.
        manager: Loads and unloads models; None where that is not allowed.
        management_calls: How many calls of that kind may be open.
    """

    def __init__(
        self,
        router: Router,
        totals: Callable[[], MetricsSnapshot],
        *,
        max_batch_images: int,
        manager: ModelManager | None,
        management_calls: CallLimit,
    ) -> None:
        self._router = router
        self._totals = totals
        self._max_batch_images = max_batch_images
        self._manager = manager
        self._management_calls = management_calls

    @property
    def is_ready(self) -> bool:
        """Return whether there is any model that answers requests."""
        return self._router.registry.is_ready

    def is_model_ready(self, name: str, version: str) -> bool:
        """Return whether a model, or a version of it, answers requests.

        Raises:
            RequestError: ``version`` is neither a number nor a label.
        """
        try:
            find_version(self._router.registry, name, version)
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
        registry = self._router.registry
        model = find_version(registry, name, version)
        return metadata_message(model, served_versions(registry, model.metadata.name))

    def model_config(self, name: str, version: str) -> inference_pb2.ModelConfig:
        """Describe a model as Triton's configuration does; errors as for ``find_version``."""
        registry = self._router.registry
        model = find_version(registry, name, version)
        versions = served_versions(registry, model.metadata.name)
        return config_message(model, versions, max_batch_images=self._max_batch_images)

    def model_statistics(self, name: str, version: str) -> inference_pb2.ModelStatisticsResponse:
        """Return statistics of a version, a model, or of all; errors as for ``find_versions``."""
        models = list(find_versions(self._router.registry, name, version))
        known = model_statistics(self._totals())
        keys = [VersionKey(model.metadata.name, model.metadata.version) for model in models]
        return inference_pb2.ModelStatisticsResponse(
            model_stats=[statistics_message(key, known.get(key, ModelStatistics())) for key in keys]
        )

    def index(self, repository: str, *, ready_only: bool) -> inference_pb2.RepositoryIndexResponse:
        """List the versions of all models.

        Raises:
            UnsupportedError: ``repository`` is not empty.
        """
        _check_repository(repository)
        registry = self._router.registry
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

    def _allowed(self, repository: str) -> ModelManager:
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


def find_version(registry: Registry, name: str, version: str) -> CompiledModel:
    """Return the version of a model that a request asks.

    Args:
        registry: The models of the moment.
        name: As for ``Registry.model``.
        version: A number, a label, or empty for the server's choice.

    Raises:
        RequestError: ``version`` is neither, or as for ``Registry.model``.
        NotServedError: There is no such model, or no such version or label of it.
    """
    try:
        return _found(registry, name, version)
    except NotServedError as error:
        asked = f"{shortened(name)!r}" + (f" version {shortened(version)!r}" if version else "")
        raise NotServedError(f"Request for unknown model: {asked} is not found: {error}") from error


def find_versions(registry: Registry, name: str, version: str) -> Iterator[CompiledModel]:
    """Yield the versions that a name and a version mean: all of all models where both are empty.

    Raises:
        RequestError: ``version`` is neither a number nor a label.
        NotServedError: There is no such model, or no such version or label of it.
    """
    if version:
        yield find_version(registry, name, version)
    elif name:
        yield from served_versions(registry, find_version(registry, name, "").metadata.name)
    else:
        for served in registry.models:
            yield from served_versions(registry, served)


def served_versions(registry: Registry, name: str) -> tuple[CompiledModel, ...]:
    """Return the versions of a model that is served, the newest first."""
    return registry.models[name].versions


def unusable_versions(registry: Registry) -> Iterator[tuple[str, int, str]]:
    """Yield the name, the version and the reason of each version that failed its checks."""
    for name, model in registry.models.items():
        yield from ((name, version, reason) for version, reason in model.quarantined.items())


def _found(registry: Registry, name: str, version: str) -> CompiledModel:
    if not version or _NUMBER.fullmatch(version):
        return registry.find(name, int(version or 0))
    _check_label(version)
    return registry.find(name, 0, version)


def _check_label(text: str) -> None:
    if not is_label(text):
        raise RequestError(
            f"failed to get model version from specified version string {shortened(text)!r}: "
            "expected a positive number or a label"
        )
