"""The models that a server serves: loaded from the models folder, found by name and version."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn

from mlpserve.model.errors import ModelError, WeightsFileError
from mlpserve.model.folder import model_names, versions, weights_path
from mlpserve.model.versions import load_version
from mlpserve.server.compiled import CompiledModel
from mlpserve.server.errors import NotServedError, RequestError, StartError
from mlpserve.server.prediction import self_test
from mlpserve.server.reproducibility import reproducibility_problem

logger = logging.getLogger(__name__)

_NAMES_IN_MESSAGE: Final = 10


class Registry:
    """Models by name, the versions of each the newest first.

    Safe to use from many threads: nothing in it changes.

    Args:
        models: At least one name, each with at least one version, the newest first.
    """

    def __init__(self, models: Mapping[str, tuple[CompiledModel, ...]]) -> None:
        self._models = dict(sorted(models.items()))
        self._found = dict(_asked(self._models))

    @property
    def models(self) -> Mapping[str, tuple[CompiledModel, ...]]:
        """Return all models, in the order of their names."""
        return self._models

    def versions(self, name: str) -> tuple[CompiledModel, ...]:
        """Return the versions of a model, the newest first.

        Args:
            name: The model's name; may be empty where one model only is served.

        Raises:
            RequestError: ``name`` is empty though several models are served.
            NotServedError: There is no model of this name.
        """
        if not name and len(self._models) == 1:
            return next(iter(self._models.values()))
        if not name:
            raise RequestError(
                f"model_name: required, because several models are served: {self._names()}"
            )
        if name not in self._models:
            raise NotServedError(
                f"model_name: no model {name[:80]!r} is served; served are: {self._names()}"
            )
        return self._models[name]

    def find(self, name: str, version: int) -> CompiledModel:
        """Return one version of a model.

        Args:
            name: As for ``versions``.
            version: The version's number; 0 for the newest.

        Raises:
            RequestError: As for ``versions``, or ``version`` is negative.
            NotServedError: There is no such model, or no such version of it.
        """
        found = self._found.get((name, version))
        return self._refuse(name, version) if found is None else found

    def _refuse(self, name: str, version: int) -> NoReturn:
        candidates = self.versions(name)
        if version < 0:
            raise RequestError(
                f"model_version: expected a positive number, or 0 for the newest, got {version}"
            )
        served = _listed([str(model.metadata.version) for model in candidates])
        raise NotServedError(
            f"model_version: version {version} of model {candidates[0].metadata.name!r} is not "
            f"served; served are: {served}"
        )

    def _names(self) -> str:
        return _listed(list(self._models))


def _asked(
    models: Mapping[str, tuple[CompiledModel, ...]],
) -> Iterator[tuple[tuple[str, int], CompiledModel]]:
    """Yield all names and versions that a request may have, with the model that is meant."""
    for name, served in models.items():
        for asked in {name} if len(models) > 1 else {name, ""}:
            yield (asked, 0), served[0]
            yield from (((asked, model.metadata.version), model) for model in served)


def _listed(names: Sequence[str]) -> str:
    """Return names for a message; a few, because the transport limits how long a message may be."""
    more = len(names) - _NAMES_IN_MESSAGE
    listed = ", ".join(names[:_NAMES_IN_MESSAGE])
    return f"{listed} and {more} more (see ListModels)" if more > 0 else listed


def load_registry(models: Path, *, versions_per_model: int, reproducible: bool = False) -> Registry:
    """Load the newest versions of every model in a folder.

    A version that cannot be used, or fails its self-test, is left out and logged: an older one then
    answers for it. So is a model whose folder cannot be read.

    Args:
        models: The models folder.
        versions_per_model: So many of the newest versions of each.
        reproducible: As ``CompiledModel`` has it; checked with each version.

    Raises:
        StartError: No version of any model can be used, or one is not reproducible though it must.
        ModelsFolderError: The folder is missing or cannot be read.
    """
    loaded = {
        name: _load_versions(models, name, versions_per_model, reproducible=reproducible)
        for name in model_names(models)
    }
    usable = {name: found for name, found in loaded.items() if found}
    if not usable:
        raise StartError(
            f"models: expected NAME/VERSION/weights.npz in {models}, found none that can be used; "
            f"train one with: mlpserve-train --models {models}"
        )
    return Registry(usable)


def _load_versions(
    models: Path, name: str, count: int, *, reproducible: bool
) -> tuple[CompiledModel, ...]:
    """Return the newest ``count`` versions that can be used, the newest first."""
    found: list[CompiledModel] = []
    for version in _versions(models, name):
        if len(found) == count:
            break
        try:
            found.append(_load_version(models, name, version, reproducible=reproducible))
        except ModelError as error:
            logger.error("not served: %s", error)  # noqa: TRY400 - the sentence says it all
    return tuple(found)


def _versions(models: Path, name: str) -> list[int]:
    try:
        return versions(models, name)
    except ModelError as error:
        logger.error("not served: %s", error)  # noqa: TRY400 - the sentence says it all
        return []


def _load_version(models: Path, name: str, version: int, *, reproducible: bool) -> CompiledModel:
    loaded = load_version(models, name, version)
    model = CompiledModel(loaded, reproducible=reproducible)
    if (problem := self_test(model, loaded.golden)) is not None:
        path = weights_path(models, name, version)
        raise WeightsFileError(f"{path}: self-test: {problem}")
    if reproducible and (problem := reproducibility_problem(model)) is not None:
        raise StartError(
            f"reproducible: cannot be promised for {name} version {version} with the BLAS of this "
            f"machine: {problem}; serve without --reproducible"
        )
    return model
