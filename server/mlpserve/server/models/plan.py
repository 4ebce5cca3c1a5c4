"""Plan of what is to be served: which versions of which models, and what their labels mean."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from mlpserve.model.folder import VersionKey

_MAX_IN_SUMMARY: Final = 10


@dataclass(frozen=True)
class PlannedModel:
    """What is to be served of one model.

    Attributes:
        versions: The versions, the newest first; none where all are quarantined.
        labels: What each label means: one of ``versions``.
        default_version: What answers requests that name neither version nor label; 0 where there is
            none.
        quarantined: Versions that are in the folder but failed their checks, the newest first, and
            why in a sentence.
    """

    versions: tuple[int, ...]
    labels: Mapping[str, int] = field(default_factory=dict)
    default_version: int = 0
    quarantined: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """Which versions of which models are to be served.

    Attributes:
        models: The models by their names, in the order of these.
    """

    models: Mapping[str, PlannedModel]

    def version_keys(self) -> Iterator[VersionKey]:
        """Yield all versions that are to be served."""
        for name, model in self.models.items():
            yield from (VersionKey(name, version) for version in model.versions)

    @property
    def is_ready(self) -> bool:
        """Return whether there is anything to be served."""
        return any(model.versions for model in self.models.values())

    @property
    def summary(self) -> str:
        """Return in words what is to be served: "digits version 2 and 1"."""
        served = [
            f"{name} version {_listed(model.versions, ' and ')}{_labels(model)}"
            for name, model in self.models.items()
            if model.versions
        ]
        return _listed(served, ", ") or "no model"

    def to_json(self) -> str:
        """Return the plan as JSON."""
        return json.dumps({name: asdict(model) for name, model in self.models.items()})

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """Return the plan that ``to_json`` wrote."""
        return cls({name: _planned_model(model) for name, model in json.loads(text).items()})


def _planned_model(values: Mapping[str, Any]) -> PlannedModel:
    versions = tuple(values["versions"])
    quarantined = {int(version): reason for version, reason in values["quarantined"].items()}
    return PlannedModel(**{**values, "versions": versions, "quarantined": quarantined})


def _labels(model: PlannedModel) -> str:
    named = [f"{label}: {version}" for label, version in model.labels.items()]
    return f" ({_listed(named, ', ')})" if named else ""


def _listed(things: Sequence[object], separator: str) -> str:
    more = len(things) - _MAX_IN_SUMMARY
    words = [str(thing) for thing in things[:_MAX_IN_SUMMARY]]
    return separator.join([*words, f"{more} more"] if more > 0 else words)
