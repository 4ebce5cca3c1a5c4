"""Sources of settings: flags come before environment variables, these before a TOML file.

    --workers 4            MLPSERVE_WORKERS=4            workers = 4

All mistakes are named at once, each with the source that it came from.
"""

import argparse
import difflib
import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from mlpserve.model.sync.urls import shown
from mlpserve.server.errors import StartError
from mlpserve.server.settings.fields import (
    VARIABLE_PREFIX,
    Settings,
    SettingsError,
    plain,
    settings_of,
)

_CONFIG_VARIABLE: Final = f"{VARIABLE_PREFIX}CONFIG"
# Where there is a service called mlpserve, Kubernetes and Docker set these too.
_LINK_VARIABLES: Final = (f"{VARIABLE_PREFIX}SERVICE_HOST", f"{VARIABLE_PREFIX}SERVICE_PORT")
_LINK_SCHEMES: Final = ("tcp://", "udp://")
_MAX_FILE_BYTES: Final = 1 << 20
_T = TypeVar("_T", bound=Settings)


class Given(NamedTuple):
    """Value of a setting, and who gave it.

    Attributes:
        value: The value as its source has it: text of a flag or a variable, anything of a file.
        source: The flag, the variable, or the file and the key in it.
    """

    value: object
    source: str


def add_flags(parser: argparse.ArgumentParser, config: type[Settings]) -> None:
    """Give a parser a flag for each setting, and ``--config``; none has a default of its own."""
    parser.add_argument(
        "--config", metavar="FILE", help=f"TOML file with settings; default: ${_CONFIG_VARIABLE}"
    )
    for setting in settings_of(config):
        help_text = f"{setting.help}; default: {setting.default_text}"
        if not setting.kind.metavar:
            parser.add_argument(setting.flag, action=argparse.BooleanOptionalAction, help=help_text)
        else:
            parser.add_argument(setting.flag, metavar=setting.kind.metavar, help=help_text)


def given_settings(
    config: type[Settings], options: Mapping[str, object], environment: Mapping[str, str]
) -> dict[str, Given]:
    """Return what the sources give, by the names of the settings; what none gives is left out.

    Args:
        config: The dataclass of settings.
        options: What the parser of ``add_flags`` found.
        environment: The environment variables.

    Raises:
        StartError: The file cannot be read, or has settings that there are not.
    """
    settings = settings_of(config)
    path = options.get("config") or environment.get(_CONFIG_VARIABLE)
    found = dict(_of_file(Path(str(path)), {each.name for each in settings})) if path else {}
    for setting in settings:
        if text := environment.get(setting.variable):  # one that is empty counts as not set
            found[setting.name] = Given(text, setting.variable)
        if (option := options.get(setting.name)) is not None:
            found[setting.name] = Given(option, setting.flag)
    return found


def settings_from(config: type[_T], given: Mapping[str, Given]) -> _T:
    """Return the settings with the values that were given.

    Raises:
        SettingsError: Some cannot be used; all of them are named by their sources.
    """
    try:
        return config(**{name: value for name, (value, _) in given.items()})
    except SettingsError as error:
        problems = dict(_with_source(given, *problem) for problem in error.problems.items())
        raise SettingsError(problems) from error


def unknown_variables(config: type[Settings], environment: Mapping[str, str]) -> list[str]:
    """Return variables that look like misspelt settings: other programs of ours have their own."""
    known = {_CONFIG_VARIABLE, *(setting.variable for setting in settings_of(config))}
    return [
        f"{name}: there is no such setting{hint}"
        for name in environment
        if name.startswith(VARIABLE_PREFIX) and name not in {*known, *_LINK_VARIABLES}
        if (hint := _hint(name, known))
    ]


def as_toml(config: Settings, given: Mapping[str, Given]) -> str:
    """Return all settings as a TOML file, each with where its value came from.

    Secrets of URLs are not shown.
    """
    lines: list[str] = []
    for setting in settings_of(type(config)):
        value = getattr(config, setting.name)
        source = given[setting.name].source if setting.name in given else "default"
        line = f"{setting.name} = {_toml(plain(value))}"
        lines.append(f"# {line}" if value is None else f"{line}  # {source}")
    return "\n".join(lines)


def _of_file(path: Path, known: set[str]) -> Iterator[tuple[str, Given]]:
    document = _document(path)
    if unknown := [name for name in document if name not in known]:
        raise StartError(
            "\n".join(
                f"{path}: there is no setting {name!r}{_hint(name, known)}" for name in unknown
            )
        )
    for name, value in document.items():
        yield name, Given(value, f"{path}: {name}")


def _document(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
        if len(content) > _MAX_FILE_BYTES:
            raise StartError(
                f"{path}: expected a file of settings, got over {_MAX_FILE_BYTES} bytes"
            )
        return tomllib.loads(content.decode())
    except OSError as error:
        raise StartError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StartError(f"{path}: expected TOML: {error}") from error


def _with_source(given: Mapping[str, Given], name: str, problem: str) -> tuple[str, str]:
    """Return the source of a setting, and what is wrong with it."""
    if name not in given:
        return name, problem
    value, source = given[name]
    if source.startswith(VARIABLE_PREFIX) and str(value).startswith(_LINK_SCHEMES):
        problem += (
            "; Kubernetes sets it where there is a Service of this name: have the pod say "
            "enableServiceLinks: false, or set the variable to the value that is meant"
        )
    return source, problem


def _hint(name: str, known: set[str]) -> str:
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.8)
    return f"; did you mean {close[0]!r}?" if close else ""


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    # JSON's strings are TOML's as well, but for this character.
    return json.dumps(shown(value), ensure_ascii=False).replace("\x7f", "\\u007f")
