"""What people asked to be served or not to be, beside what policy and labels say."""

from dataclasses import dataclass, replace

from mlpserve.model.folder import VersionKey


@dataclass(frozen=True)
class Overrides:
    """What was asked for explicitly. The last wish about a model or version counts.

    Attributes:
        loaded: Versions to serve whatever the policy says.
        unloaded: Versions not to serve whatever policy and labels say.
        unloaded_models: Models of which nothing is to be served but what is in ``loaded``.
    """

    loaded: frozenset[VersionKey] = frozenset()
    unloaded: frozenset[VersionKey] = frozenset()
    unloaded_models: frozenset[str] = frozenset()

    def loading(self, key: VersionKey) -> "Overrides":
        """Return the wishes when a version is to be served as well."""
        return replace(self, loaded=self.loaded | {key}, unloaded=self.unloaded - {key})

    def loading_model(self, name: str) -> "Overrides":
        """Return the wishes when the policy alone is to decide about a model."""
        return Overrides(
            _others(self.loaded, name), _others(self.unloaded, name), self.unloaded_models - {name}
        )

    def unloading(self, key: VersionKey) -> "Overrides":
        """Return the wishes when a version is not to be served."""
        return replace(self, loaded=self.loaded - {key}, unloaded=self.unloaded | {key})

    def unloading_model(self, name: str) -> "Overrides":
        """Return the wishes when nothing of a model is to be served."""
        return Overrides(
            _others(self.loaded, name),
            _others(self.unloaded, name),
            self.unloaded_models | {name},
        )

    def only(self, keys: frozenset[VersionKey]) -> "Overrides":
        """Return the wishes about these versions, and those about models."""
        return replace(self, loaded=self.loaded & keys, unloaded=self.unloaded & keys)


def _others(keys: frozenset[VersionKey], name: str) -> frozenset[VersionKey]:
    return frozenset(key for key in keys if key.name != name)
