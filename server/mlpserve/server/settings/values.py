"""Values of settings that are more than a number or a text: policies, shares, labels, origins."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from mlpserve.model.folder import is_model_name, is_version
from mlpserve.model.labels import is_label
from mlpserve.server.errors import StartError

_ALL: Final = "all"
_FORMS: Final = "a number N for the newest N, 'all', or versions as '1,4,7' ('7,' for one)"
_HEADER: Final = re.compile(r"[0-9a-z_.-]{1,64}")
_ORIGIN: Final = re.compile(
    r"\*|https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9A-Fa-f:]+\](:[0-9]{1,5})?"
)
_SHARE: Final = re.compile(r"[0-9]{1,7}")
_MAX_SHARE: Final = 10**6


@dataclass(frozen=True)
class Policy:
    """Version policy of a model: which versions are served, beside those that its labels mean.

    Attributes:
        newest: So many of the newest at most; None for all.
        listed: Of these only; None for any.
    """

    newest: int | None = None
    listed: frozenset[int] | None = None

    @classmethod
    def parse(cls, text: str) -> "Policy":
        """Return the policy that ``str`` writes as this text.

        Raises:
            StartError: It means nothing.
        """
        if text == _ALL:
            return cls()
        numbers = text.removesuffix(",").split(",")
        if not all(is_version(number) for number in numbers):
            raise StartError(f"expected {_FORMS}, got {text!r}")
        if "," in text:
            return cls(listed=frozenset(map(int, numbers)))
        return cls(newest=int(text))

    def choose(self, versions: Sequence[int]) -> Sequence[int]:
        """Return those to be served of versions that could be, both the newest first."""
        allowed = [each for each in versions if self.listed is None or each in self.listed]
        return allowed[: self.newest]

    def __str__(self) -> str:
        if self.listed is not None:
            return ",".join(map(str, sorted(self.listed))) + "," * (len(self.listed) == 1)
        return _ALL if self.newest is None else str(self.newest)


@dataclass(frozen=True)
class Policies:
    """Version policies of all models.

    Attributes:
        default: The policy of models that have none of their own.
        of_models: The policies of single models by their names.
    """

    default: Policy = Policy(newest=2)
    of_models: Mapping[str, Policy] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> "Policies":
        """Return the policies that ``str`` writes as this text.

        Args:
            text: Policies, with spaces between them: POLICY for all models, NAME=POLICY for one.

        Raises:
            StartError: One of them means nothing, or two are about the same.
        """
        policies: dict[str, Policy] = {}
        for each in text.split():
            name, is_named, policy = each.rpartition("=")
            if is_named and not is_model_name(name):
                raise StartError(f"expected NAME=POLICY, got {each!r}")
            if name in policies:
                raise StartError(f"expected one policy for each model, got another: {each!r}")
            policies[name] = Policy.parse(policy)
        return cls(policies.pop("", cls.default), policies)

    def of(self, name: str) -> Policy:
        """Return the policy of a model."""
        return self.of_models.get(name, self.default)

    def __str__(self) -> str:
        return " ".join([str(self.default), *(f"{n}={p}" for n, p in self.of_models.items())])


@dataclass(frozen=True)
class Shares:
    """Shares of requests that labels get, in any unit; false where requests are not divided."""

    of_labels: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> "Shares":
        """Return the shares that ``str`` writes as this text, ``stable=95,canary=5``.

        Raises:
            StartError: It is no such list.
        """
        shares: dict[str, int] = {}
        for part in text.split(",") if text.strip() else ():
            label, _, share = part.strip().partition("=")
            number = int(share) if _SHARE.fullmatch(share) else 0
            if not is_label(label) or label in shares or not 1 <= number <= _MAX_SHARE:
                raise StartError(
                    f"expected labels, each once, with whole numbers from 1 to {_MAX_SHARE} as "
                    f"'stable=95,canary=5', got {part[:80]!r}"
                )
            shares[label] = number
        return cls(shares)

    def __bool__(self) -> bool:
        return bool(self.of_labels)

    def __str__(self) -> str:
        return ",".join(f"{label}={share}" for label, share in self.of_labels.items())


@dataclass(frozen=True)
class Origins:
    """Origins whose pages may call from a browser, ``*`` for all; false where there are none."""

    names: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Origins":
        """Return the origins that ``str`` writes as this text, with spaces between them.

        Raises:
            StartError: One of them is no origin.
        """
        for name in text.split():
            if not _ORIGIN.fullmatch(name):
                raise StartError(
                    f"expected origins as 'https://app.example:8443', or '*', got {name[:80]!r}"
                )
        return cls(tuple(text.split()))

    def __bool__(self) -> bool:
        return bool(self.names)

    def __str__(self) -> str:
        return " ".join(self.names)


NEWEST_TWO: Final = Policies()
NO_SPLIT: Final = Shares()
NO_ORIGINS: Final = Origins()


def parse_label(text: str) -> str:
    """Return a text that is a label, or empty.

    Raises:
        StartError: It is neither.
    """
    if text and not is_label(text):
        raise StartError(f"expected a label, got {text[:80]!r}")
    return text


def parse_model_name(text: str) -> str:
    """Return a text that is a model's name, or empty.

    Raises:
        StartError: It is neither.
    """
    if text and not is_model_name(text):
        raise StartError(f"expected the name of a model, got {text[:80]!r}")
    return text


def parse_header(text: str) -> str:
    """Return a text that is the name of a header.

    Raises:
        StartError: It is none.
    """
    if not _HEADER.fullmatch(text):
        raise StartError(f"expected lower-case letters, digits, '-', '_' or '.', got {text[:80]!r}")
    return text
