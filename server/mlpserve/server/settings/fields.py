"""Fields of a dataclass of settings: each says what it takes, what it is for and its default.

    @dataclass(frozen=True)
    class Config(Settings):
        port: Annotated[int, whole_number(0, 65_535), "port to listen on"] = 50051

Flags, variables, files and documents are made from that, see `mlpserve.server.settings.sources`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple, TypeVar, get_origin, get_type_hints

from mlpserve.model.command_line import NoHomeError, user_path
from mlpserve.model.sync.urls import is_url, shown
from mlpserve.server.errors import StartError

VARIABLE_PREFIX: Final = "MLPSERVE_"
_MAX_COUNT: Final = 2**31 - 1
_SWITCHED: Final = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}
_T = TypeVar("_T")


class SettingsError(StartError):
    """Settings have values that they do not take.

    Attributes:
        problems: What is wrong with each, by their names.
    """

    def __init__(self, problems: Mapping[str, str]) -> None:
        super().__init__("\n".join(f"{name}: {problem}" for name, problem in problems.items()))
        self.problems = problems


class Kind(NamedTuple):
    """Values that a setting takes.

    Attributes:
        expected: They, in words.
        metavar: What stands for one in the help of a flag; empty for a switch.
        parse: Returns the value of a text. Raises ValueError, or StartError with the reason.
        accepts: Whether a value, from whatever source, may be used.
    """

    expected: str
    metavar: str
    parse: Callable[[str], object]
    accepts: Callable[[Any], bool]


@dataclass(frozen=True)
class Setting:
    """Declaration of one setting.

    Attributes:
        name: The name of the attribute, and of the key in a file.
        default: Its value where nobody says otherwise; None for one that is found out at start.
        kind: What values it takes.
        help: What it is for, in a line that begins in lower case.
    """

    name: str
    default: object
    kind: Kind
    help: str

    @property
    def flag(self) -> str:
        """Return the flag, ``--stop-grace-s``."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """Return the environment variable, ``MLPSERVE_STOP_GRACE_S``."""
        return VARIABLE_PREFIX + self.name.upper()

    @property
    def default_text(self) -> str:
        """Return how people are told of the default."""
        if isinstance(self.default, bool):
            return "on" if self.default else "off"
        return "none" if self.default is None else str(self.default) or "none"

    def value_of(self, given: object) -> object:
        """Return the value that is meant by a text, or by a value that is none.

        Raises:
            StartError: It may not be used; the message names neither setting nor source.
        """
        try:
            value = self.kind.parse(given) if isinstance(given, str) else given
        except ValueError:
            value = given  # which is none that is accepted
        if self.kind.accepts(value) or (value is None and self.default is None):
            return value
        raise StartError(f"expected {self.kind.expected}, got {shown(given)[:200]!r}")


class Settings:
    """Base of a dataclass of settings. Texts are parsed, and all values checked, when it is made.

    Raises:
        SettingsError: Settings have values that they do not take; all of them are named.
    """

    def __post_init__(self) -> None:
        problems: dict[str, str] = {}
        for each in settings_of(type(self)):
            try:
                value = each.value_of(getattr(self, each.name))
                object.__setattr__(self, each.name, value)  # it is frozen, but not made yet
            except StartError as error:
                problems[each.name] = shown(error)
        if problems:
            raise SettingsError(problems)

    def to_plain(self) -> dict[str, Any]:
        """Return the attributes as JSON can carry them; the class takes them again."""
        return {each.name: plain(getattr(self, each.name)) for each in fields(self)}  # type: ignore[arg-type] # it is a dataclass


def settings_of(config: type[Any]) -> tuple[Setting, ...]:
    """Return the settings that a dataclass declares, in their order."""
    hints = get_type_hints(config, include_extras=True)
    annotated = [each for each in fields(config) if get_origin(hints[each.name]) is Annotated]
    return tuple(
        Setting(each.name, each.default, *hints[each.name].__metadata__) for each in annotated
    )


def plain(value: object) -> object:
    """Return the value of a setting as a number, true, false, None or the text that means it."""
    return value if value is None or isinstance(value, int | float) else str(value)


def whole_number(lowest: int, highest: int = _MAX_COUNT) -> Kind:
    """Return the whole numbers from ``lowest`` to ``highest``."""
    span = f"at least {lowest}" if highest == _MAX_COUNT else f"from {lowest} to {highest}"
    return Kind(
        f"a whole number, {span}", "N", int, lambda it: type(it) is int and lowest <= it <= highest
    )


def seconds(lowest: float = 0.0) -> Kind:
    """Return the numbers of seconds that are at least ``lowest``."""
    return Kind(
        f"a number of seconds, at least {lowest:g}",
        "SECONDS",
        float,
        lambda it: type(it) in {int, float} and lowest <= it < math.inf,
    )


def number(lowest: float) -> Kind:
    """Return the numbers that are at least ``lowest``."""
    return Kind(
        f"a number, at least {lowest:g}",
        "NUMBER",
        float,
        lambda it: type(it) in {int, float} and lowest <= it < math.inf,
    )


def choice(*choices: str) -> Kind:
    """Return the texts that are one of some words."""
    return Kind(" or ".join(choices), "|".join(choices), str, lambda it: it in choices)


def parsed(
    metavar: str, parse: Callable[[str], _T], of: type[_T], *, may_be_empty: bool = False
) -> Kind:
    """Return what texts mean.

    Args:
        metavar: What stands for the text in the help of a flag.
        parse: Returns the value of a text. Raises StartError with the reason.
        of: What it returns.
        may_be_empty: Whether an empty text has a meaning, too.
    """
    return Kind(
        "a text" if may_be_empty else "a text that is not empty",
        metavar,
        lambda written: parse(written) if written or may_be_empty else written,
        lambda it: isinstance(it, of) and (may_be_empty or it != ""),
    )


def path(metavar: str) -> Kind:
    """Return the paths."""
    return Kind("a path", metavar, parse_path, lambda it: isinstance(it, Path))


def parse_path(text: str) -> Path:
    """Return the path that a text means.

    Raises:
        StartError: It is in the home folder, and there is none.
    """
    try:
        return user_path(text)
    except NoHomeError as error:
        raise StartError(str(error)) from error


SWITCH: Final = Kind(
    "true or false",
    "",
    lambda written: _SWITCHED.get(written.strip().lower()),
    lambda it: type(it) is bool,
)
# A folder's path, or the URL of one in a store, which stays text.
PATH_OR_URL: Final = Kind(
    "a path or a URL",
    "DIR|URL",
    lambda written: written if is_url(written) else parse_path(written),
    lambda it: isinstance(it, Path | str),
)
