"""Decides what is served: a pure function of what is there, what is wished and what failed."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from mlpserve.model.folder import VersionKey
from mlpserve.model.labels import Label
from mlpserve.server.models.overrides import Overrides
from mlpserve.server.models.plan import Plan, PlannedModel
from mlpserve.server.models.scanner import FolderState, ModelState
from mlpserve.server.settings.values import Policies


@dataclass(frozen=True)
class Rules:
    """What the server's operator has decided.

    Attributes:
        policies: Which versions are served.
        default_label: Whose version answers where none is asked for.
    """

    policies: Policies
    default_label: str


def select(
    state: FolderState, quarantined: Mapping[VersionKey, str], wishes: Overrides, rules: Rules
) -> Plan:
    """Return what is to be served.

    These are, of the versions that can be used, those that the policy chooses, that a label means
    and that were loaded explicitly. A label means the first that can be used of its version and
    those that it meant before, from the last one back: so a promotion of a broken version leaves
    the label where it was.

    Args:
        state: What is in the models folder.
        quarantined: Versions that failed their checks, and why.
        wishes: What was asked for explicitly.
        rules: The operator's decisions.
    """
    names = {*state.models, *(key.name for key in wishes.loaded)}
    models = {
        name: _planned(name, state.models.get(name, ModelState(())), quarantined, wishes, rules)
        for name in sorted(names)
    }
    return Plan(
        {name: model for name, model in models.items() if model.versions or model.quarantined}
    )


def _planned(
    name: str,
    model: ModelState,
    quarantined: Mapping[VersionKey, str],
    wishes: Overrides,
    rules: Rules,
) -> PlannedModel:
    wished = {key.version for key in wishes.loaded if key.name == name}
    is_unloaded = name in wishes.unloaded_models
    in_folder = frozenset[int]() if is_unloaded else frozenset(model.versions)
    numbers = sorted(in_folder | wished, reverse=True)
    keys = [VersionKey(name, number) for number in numbers]
    allowed = [key for key in keys if key not in wishes.unloaded]
    usable = [key.version for key in allowed if key not in quarantined]
    labels = dict(_meant(model.labels, frozenset(usable)))
    # What was loaded explicitly stands beside what the policy chooses, not in its place.
    candidates = [version for version in usable if version in in_folder]
    chosen = {*rules.policies.of(name).choose(candidates), *labels.values(), *wished}
    versions = tuple(version for version in usable if version in chosen)
    newest = next(iter(versions), 0)
    return PlannedModel(
        versions=versions,
        labels=labels,
        default_version=labels.get(rules.default_label, newest),
        quarantined={key.version: quarantined[key] for key in allowed if key in quarantined},
    )


def _meant(labels: Mapping[str, Label], usable: frozenset[int]) -> Iterator[tuple[str, int]]:
    """Yield the labels that mean a version that can be used, with that version."""
    for name, label in sorted(labels.items()):
        candidates: Iterable[int] = (label.version, *reversed(label.history))
        version = next((number for number in candidates if number in usable), None)
        if version is not None:
            yield name, version
