"""Which versions of a model are served, beside those that its labels mean."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from mlpserve.model.folder import is_model_name, is_version
from mlpserve.server.errors import StartError

ALL: Final = "all"
_FORMS: Final = "a number N for the newest N, 'all', or versions as '1,4,7' ('7,' for one)"


class Policy(Protocol):
    """Chooses among the versions of a model."""

    def choose(self, versions: Sequence[int]) -> Sequence[int]:
        """Return those to be served of versions that could be, both the newest first."""


@dataclass(frozen=True)
class Newest:
    """The newest ``count`` versions."""

    count: int

    def choose(self, versions: Sequence[int]) -> Sequence[int]:
        """See ``Policy``."""
        return versions[: self.count]


@dataclass(frozen=True)
class All:
    """All versions."""

    def choose(self, versions: Sequence[int]) -> Sequence[int]:
        """See ``Policy``."""
        return versions


@dataclass(frozen=True)
class Listed:
    """These versions, as far as they are there."""

    numbers: frozenset[int]

    def choose(self, versions: Sequence[int]) -> Sequence[int]:
        """See ``Policy``."""
        return [version for version in versions if version in self.numbers]


@dataclass(frozen=True)
class Policies:
    """The policy of each model.

    Attributes:
        default: The policy of models that have none of their own.
        of_models: The policies of single models by their names.
    """

    default: Policy = Newest(2)
    of_models: Mapping[str, Policy] = field(default_factory=dict)

    def of(self, name: str) -> Policy:
        """Return the policy of a model."""
        return self.of_models.get(name, self.default)


def parse_policies(text: str) -> Policies:
    """Return what the setting ``versions`` means.

    Args:
        text: Policies, with spaces between them: POLICY for all models, NAME=POLICY for one.

    Raises:
        StartError: One of them means nothing, or two are about the same.
    """
    policies: dict[str, Policy] = {}
    for each in text.split():
        name, is_named, policy = each.rpartition("=")
        if is_named and not is_model_name(name):
            raise StartError(f"versions: expected NAME=POLICY, got {each!r}")
        if name in policies:
            raise StartError(f"versions: expected one policy for each model, got another: {each!r}")
        policies[name] = _parse(policy)
    return Policies(policies.pop("", Policies.default), policies)


def _parse(text: str) -> Policy:
    if text == ALL:
        return All()
    numbers = text.removesuffix(",").split(",")
    if not all(is_version(number) for number in numbers):
        raise StartError(f"versions: expected {_FORMS}, got {text!r}")
    if "," in text:
        return Listed(frozenset(map(int, numbers)))
    return Newest(int(text))
