"""Search space as users write it: ``--vary NAME=VALUES`` and a TOML file, checked by the flags.

--vary learning-rate=0.001..0.01:log        learning-rate = { low = 0.001, high = 0.01, log = true }
--vary layers=16,16|32|64                   layers = [[16, 16], 32, 64]
"""

import argparse
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from mlpserve.trainer.errors import TrainingError
from mlpserve.trainer.search_space import Choices, Parameter, Range
from mlpserve.trainer.setting_flags import setting_flags

_RANGE: Final = re.compile(r"(?P<low>.+?)\.\.(?P<high>[^:]+)(?P<log>:log)?")
_FORMS: Final = "as in 0.001..0.01, 0.001..0.01:log or 16|32|64"
_TABLE_FORMS: Final = "as in [16, 32, 64] or { low = 0.001, high = 0.01, log = true }"
# All trials have these, or they could not be compared, or not share what is loaded.
_THE_SAME: Final[Mapping[str, str]] = {
    "epochs": "trials are compared after so many",
    "patience": "trials are compared by the epoch that each would keep",
    "seed": "it draws the validation images, by which trials are compared",
    "teacher": "it is loaded once, with the data",
    "validation-share": "trials are compared by the same validation images",
}


def read_space(flags: Sequence[str], file: Path | None) -> dict[str, Parameter]:
    """Return the parameters of a space, by what error messages call them.

    Args:
        flags: What was given with ``--vary``.
        file: What was given with ``--space``.

    Raises:
        TrainingError: The file cannot be read, a setting is not known, given twice, or given values
            that its flag refuses; or nothing is varied.
    """
    known = setting_flags()
    found: dict[str, Parameter] = {}
    for place, name, values in (*_of_file(file), *map(_of_flag, flags)):
        parameter = _parameter(known, place, name, values)
        if any(other.name == parameter.name for other in found.values()):
            raise TrainingError(f"{place}: {parameter.name} is given twice; leave one out")
        found[place] = parameter
    if not found:
        raise TrainingError(
            "--vary: expected a setting and its values, as in learning-rate=0.001..0.01:log, or a "
            "file of them with --space, got none"
        )
    return found


def _of_flag(text: str) -> tuple[str, str, Any]:
    name, equals, values = text.partition("=")
    place = f"--vary {text}"
    if not equals:
        raise TrainingError(f"{place}: expected NAME=VALUES, {_FORMS}")
    if (found := _RANGE.fullmatch(values)) is not None:
        return place, name, {**found.groupdict(), "log": found["log"] is not None}
    return place, name, values.split("|")


def _of_file(file: Path | None) -> Iterator[tuple[str, str, Any]]:
    if file is None:
        return
    try:
        content = tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise TrainingError(f"--space {file}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TrainingError(f"--space {file}: expected TOML: {error}") from error
    for name, values in content.items():
        yield f"{file}: {name}", name, values


def _parameter(
    known: Mapping[str, argparse.Action], place: str, name: str, values: object
) -> Parameter:
    name = name.removeprefix("--")
    if name in _THE_SAME:
        raise TrainingError(
            f"{place}: {name} cannot be varied: {_THE_SAME[name]}; give --{name} instead"
        )
    if name not in known:
        names = ", ".join(sorted(set(known) - set(_THE_SAME)))
        raise TrainingError(f"{place}: expected one of {names}, got {name!r}")
    if isinstance(values, Mapping):
        return _range(known[name], place, name, values)
    if isinstance(values, list):
        return _choices(known[name], place, name, values)
    raise TrainingError(f"{place}: expected a list or a table, {_TABLE_FORMS}, got {values!r}")


def _choices(flag: argparse.Action, place: str, name: str, values: Sequence[object]) -> Choices:
    options = tuple(map(_text, values))
    if len(options) < 2:  # noqa: PLR2004 - one is no choice
        one = options[0] if options else "VALUE"
        raise TrainingError(
            f"{place}: expected at least two values, {_FORMS}; give --{name} {one} instead"
        )
    if len(set(options)) < len(options):
        raise TrainingError(f"{place}: expected different values, got one of them twice")
    for option in options:
        _check(flag, place, option)
    return Choices(name, options)


def _range(flag: argparse.Action, place: str, name: str, values: Mapping[str, object]) -> Range:
    if flag.type not in (int, float):
        raise TrainingError(f"{place}: expected values, as in A|B|C: {name} is no number")
    if not {"low", "high"} <= set(values) <= {"low", "high", "log"}:
        raise TrainingError(
            f"{place}: expected low and high, and log if need be, got {', '.join(values)}"
        )
    texts = [_text(values[limit]) for limit in ("low", "high")]
    for text in texts:
        _check(flag, place, text)
    low, high = map(float, texts)
    is_logarithmic = values.get("log", False)
    if not isinstance(is_logarithmic, bool):
        raise TrainingError(f"{place}: log: expected true or false, got {is_logarithmic!r}")
    if not low < high:
        raise TrainingError(
            f"{place}: expected a lowest value below the highest, got {texts[0]} and {texts[1]}"
        )
    if is_logarithmic and low <= 0:
        raise TrainingError(
            f"{place}: expected a lowest value above 0, which has a logarithm, got {texts[0]}"
        )
    return Range(name, low, high, is_logarithmic, is_integer=flag.type is int)


def _text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _check(flag: argparse.Action, place: str, text: str) -> None:
    """Refuse what the flag would."""
    if flag.choices is not None and text not in flag.choices:
        raise TrainingError(f"{place}: expected {', '.join(flag.choices)}, got {text!r}")
    if not callable(flag.type):
        return
    try:
        flag.type(text)
    except argparse.ArgumentTypeError as error:
        raise TrainingError(f"{place}: {error}") from error
    except ValueError:
        kind = "a whole number" if flag.type is int else "a number"
        raise TrainingError(f"{place}: expected {kind}, got {text!r}") from None
