"""Selection of what is served: a pure function of folder, overrides and failures."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from mlpserve.model.folder import VersionKey
from mlpserve.model.labels import Label
from mlpserve.server.models.plan import Plan, PlannedModel
from mlpserve.server.models.scanner import FolderState, ModelState
from mlpserve.server.settings.values import Policies


@dataclass(frozen=True)
class Rules:
    """What the server's operator has decided.

    Attributes:
        policies: Which versions are served.
        default_label: Whose version answers where none is asked for.
        default_model: The model that answers where none is named; empty for none in particular.
    """

    policies: Policies
    default_label: str
    default_model: str = ""


@dataclass(frozen=True)
class Overrides:
    """What callers asked for, whatever policy and labels say. The last about a version counts.

    Attributes:
        loaded: Versions to serve.
        unloaded: Versions not to serve.
        unloaded_models: Models of which nothing is to be served but what is in ``loaded``.
    """

    loaded: frozenset[VersionKey] = frozenset()
    unloaded: frozenset[VersionKey] = frozenset()
    unloaded_models: frozenset[str] = frozenset()

    def load(self, key: VersionKey) -> "Overrides":
        """Return these, but a version is to be served as well."""
        return replace(self, loaded=self.loaded | {key}, unloaded=self.unloaded - {key})

    def load_model(self, name: str) -> "Overrides":
        """Return these, but the policy alone is to decide about a model."""
        return Overrides(
            _others(self.loaded, name), _others(self.unloaded, name), self.unloaded_models - {name}
        )

    def unload(self, key: VersionKey) -> "Overrides":
        """Return these, but a version is not to be served."""
        return replace(self, loaded=self.loaded - {key}, unloaded=self.unloaded | {key})

    def unload_model(self, name: str) -> "Overrides":
        """Return these, but nothing of a model is to be served."""
        others = self.load_model(name)
        return replace(others, unloaded_models=others.unloaded_models | {name})

    def only(self, keys: frozenset[VersionKey]) -> "Overrides":
        """Return those about these versions, and those about models."""
        return replace(self, loaded=self.loaded & keys, unloaded=self.unloaded & keys)


def _others(keys: frozenset[VersionKey], name: str) -> frozenset[VersionKey]:
    return frozenset(key for key in keys if key.name != name)


def select(
    state: FolderState, quarantined: Mapping[VersionKey, str], overrides: Overrides, rules: Rules
) -> Plan:
    """Return what is to be served.

    These are, of the versions that can be used, those that the policy chooses, that a label means
    and that were loaded explicitly. A label means the first that can be used of its version and
    those that it meant before, from the last one back: so a promotion of a broken version leaves
    the label where it was.

    Args:
        state: What is in the models folder.
        quarantined: Versions that failed their checks, and why.
        overrides: What was asked for explicitly.
        rules: The operator's decisions.
    """
    names = {*state.models, *(key.name for key in overrides.loaded)}
    models = {
        name: _planned(name, state.models.get(name, ModelState(())), quarantined, overrides, rules)
        for name in sorted(names)
    }
    return Plan(
        {name: model for name, model in models.items() if model.versions or model.quarantined}
    )


def _planned(
    name: str,
    model: ModelState,
    quarantined: Mapping[VersionKey, str],
    overrides: Overrides,
    rules: Rules,
) -> PlannedModel:
    loaded = {key.version for key in overrides.loaded if key.name == name}
    is_unloaded = name in overrides.unloaded_models
    in_folder = frozenset[int]() if is_unloaded else frozenset(model.versions)
    keys = [VersionKey(name, number) for number in sorted(in_folder | loaded, reverse=True)]
    allowed = [key for key in keys if key not in overrides.unloaded]
    usable = [key.version for key in allowed if key not in quarantined]
    labels = dict(_meant(model.labels, frozenset(usable)))
    # What was loaded explicitly stands beside what the policy chooses, not in its place.
    candidates = [version for version in usable if version in in_folder]
    chosen = {*rules.policies.of(name).choose(candidates), *labels.values(), *loaded}
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
