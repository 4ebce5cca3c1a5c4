"""Models as the protocol names them: a version is a text, a number or a label."""

import re
from collections.abc import Iterator
from typing import Final

from mlpserve.model.labels import is_label
from mlpserve.server.errors import NotServedError, RequestError
from mlpserve.server.inference.compiled import CompiledModel
from mlpserve.server.inference.registry import Registry
from mlpserve.server.oip.requests import shortened

_NUMBER: Final = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)


def find_version(registry: Registry, name: str, version: str) -> CompiledModel:
    """Return the version of a model that a request asks.

    Args:
        registry: The models of the moment.
        name: The model's name; may be empty where one model only is served.
        version: A number, a label, or empty for the server's choice.

    Raises:
        RequestError: ``version`` is neither, or ``name`` is empty though several models are served.
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
