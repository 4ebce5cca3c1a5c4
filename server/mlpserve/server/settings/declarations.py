"""Settings of a program, declared once, as the attributes of a dataclass.

These say all that flags, environment variables, files and documents need to know:

    @dataclass(frozen=True)
    class Config(CheckedSettings):
        port: int = whole_number(50051, "port to listen on", lowest=0, highest=65_535)

Knows no source of values; `mlpserve.server.settings.sources` reads them.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, TypeVar

from mlpserve.model.sync.urls import is_url, shown
from mlpserve.server.errors import StartError

LARGEST_COUNT: Final = 2**31 - 1
_KEY: Final = "setting"
_TRUE: Final = ("true", "yes", "on", "1")
_FALSE: Final = ("false", "no", "off", "0")
_T = TypeVar("_T")
_PathT = TypeVar("_PathT", Path, Path | None)


@dataclass(frozen=True)
class Setting:
    """What is to be known of one setting.

    Attributes:
        name: The name of the attribute, and of the key in a file.
        help: What it is for, in a line that begins in lower case.
        expected: What values it takes, in words.
        default: Its value where nobody says otherwise; None for one that is found out at start.
        metavar: What stands for a value in the help of its flag; empty for a switch.
        from_text: Reads a flag or a variable. Raises ValueError.
        accepts: Whether a value, from whatever source, may be used.
    """

    name: str
    help: str
    expected: str
    default: object
    metavar: str
    from_text: Callable[[str], object]
    accepts: Callable[[Any], bool]

    @property
    def flag(self) -> str:
        """Return the flag, ``--stop-grace-s``."""
        return "--" + self.name.replace("_", "-")

    @property
    def is_switch(self) -> bool:
        """Return whether it is on or off, and its flag takes no value."""
        return not self.metavar


def whole_number(default: int, help_text: str, *, lowest: int, highest: int = LARGEST_COUNT) -> int:
    """Declare a setting that is a whole number from ``lowest`` to ``highest``."""
    return _declared(
        default,
        help_text,
        expected=f"a whole number, {_range_in_words(lowest, highest)}",
        metavar="N",
        from_text=int,
        accepts=lambda value: type(value) is int and lowest <= value <= highest,
    )


def seconds(default: float, help_text: str, *, lowest: float = 0.0) -> float:
    """Declare a setting that is a number of seconds, at least ``lowest``."""
    return _declared(
        default,
        help_text,
        expected=f"a number of seconds, at least {lowest:g}",
        metavar="SECONDS",
        from_text=float,
        accepts=lambda value: type(value) in {int, float} and lowest <= value < math.inf,
    )


def switch(help_text: str, *, default: bool) -> bool:
    """Declare a setting that is on or off."""
    return _declared(
        default,
        help_text,
        expected="true or false",
        metavar="",
        from_text=_switch_from_text,
        accepts=lambda value: type(value) is bool,
    )


def text(default: str, help_text: str, *, metavar: str) -> str:
    """Declare a setting that is any text but none."""
    return _declared(
        default,
        help_text,
        expected="a text that is not empty" if default else "a text",
        metavar=metavar,
        from_text=str,
        accepts=lambda value: isinstance(value, str) and (bool(value) or not default),
    )


def choice(default: str, help_text: str, *, choices: Sequence[str]) -> str:
    """Declare a setting that is one of some words."""
    return _declared(
        default,
        help_text,
        expected=" or ".join(choices),
        metavar="|".join(choices),
        from_text=str,
        accepts=lambda value: value in choices,
    )


def path(default: _PathT, help_text: str, *, metavar: str = "PATH") -> _PathT:
    """Declare a setting that is a path; text in files."""
    return _declared(
        default,
        help_text,
        expected="a path",
        metavar=metavar,
        from_text=Path,
        accepts=lambda value: isinstance(value, Path),
    )


def place(default: Path, help_text: str) -> Path | str:
    """Declare a setting that is a folder's path, or the URL of one in a store, which stays text."""
    declared: Path | str = _declared(
        default,
        help_text,
        expected="a path or a URL",
        metavar="DIR|URL",
        from_text=lambda given: given if is_url(given) else Path(given),
        accepts=lambda value: isinstance(value, Path) or (isinstance(value, str) and is_url(value)),
    )
    return declared


def internal(default: _T) -> _T:
    """Declare an attribute that is no setting: the program gives it itself."""
    declared: _T = field(default=default)
    return declared


def settings_of(config: type[Any]) -> list[Setting]:
    """Return the settings that a dataclass declares, in their order."""
    return [
        Setting(name=attribute.name, **attribute.metadata[_KEY])
        for attribute in fields(config)
        if _KEY in attribute.metadata
    ]


def problem(setting: Setting, value: object, *, source: str) -> str | None:
    """Return what is wrong with a value, in a sentence that begins with where it came from.

    None where it may be used.
    """
    if setting.accepts(value) or (value is None and setting.default is None):
        return None
    return f"{source}: expected {setting.expected}, got {shown(value)[:200]!r}"


def plain_values(config: object) -> dict[str, object]:
    """Return the values of a dataclass of settings as JSON can carry them."""
    found = {each.name: getattr(config, each.name) for each in fields(config)}  # type: ignore[arg-type] # it is a dataclass
    return {name: str(value) if isinstance(value, Path) else value for name, value in found.items()}


def from_plain_values(config: type[_T], plain: Mapping[str, object]) -> _T:
    """Return the dataclass of which these are the ``plain_values``."""
    readers = {setting.name: setting.from_text for setting in settings_of(config)}
    return config(
        **{
            name: readers[name](value) if name in readers and isinstance(value, str) else value
            for name, value in plain.items()
        }
    )


class CheckedSettings:
    """A dataclass of settings that are checked when it is made.

    Raises:
        StartError: Settings have values that they do not take; all of them are named.
    """

    def __post_init__(self) -> None:
        found = (
            problem(setting, getattr(self, setting.name), source=setting.name)
            for setting in settings_of(type(self))
        )
        if problems := [each for each in found if each is not None]:
            raise StartError("\n".join(problems))


def _declared(default: _T, help_text: str, **described: object) -> _T:
    metadata = {"help": help_text, "default": default, **described}
    declared: _T = field(default=default, metadata={_KEY: metadata})
    return declared


def _range_in_words(lowest: int, highest: int) -> str:
    return f"at least {lowest}" if highest == LARGEST_COUNT else f"from {lowest} to {highest}"


def _switch_from_text(written: str) -> bool:
    lowered = written.strip().lower()
    if lowered not in (*_TRUE, *_FALSE):
        raise ValueError(written)
    return lowered in _TRUE
