"""Sources of settings: flags come before environment variables, these before a TOML file.

    --workers 4            MLPSERVE_WORKERS=4            workers = 4

All mistakes are named at once, each with the source that it came from.
"""

import argparse
import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from mlpserve.model.sync.urls import shown
from mlpserve.server.errors import StartError
from mlpserve.server.settings.fields import (
    VARIABLE_PREFIX,
    Settings,
    SettingsError,
    parse_path,
    plain,
    settings_of,
)

_CONFIG_VARIABLE: Final = f"{VARIABLE_PREFIX}CONFIG"
# Kubernetes and Docker set variables of these forms in a pod beside a Service called mlpserve, or
# mlpserve-http, and so on; those of the second are told from ports by their values.
_LINK_NAME: Final = re.compile(
    rf"{VARIABLE_PREFIX}(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_[A-Z]+(_[A-Z]+)?)"
)
_LINK_VALUE: Final = re.compile(r"(tcp|udp|sctp)://\S+:\d+")
_MAX_FILE_BYTES: Final = 1 << 20
_T = TypeVar("_T", bound=Settings)


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


def read_settings(
    config: type[_T], options: Mapping[str, object], environment: Mapping[str, str]
) -> tuple[_T, dict[str, str]]:
    """Return the settings, and by their names the sources of those that were given.

    Variables that Kubernetes injects, see ``link_variables``, are none of the sources.

    Args:
        config: The dataclass of settings.
        options: What the parser of ``add_flags`` found.
        environment: The environment variables.

    Raises:
        StartError: The file cannot be read, or has settings that there are not.
        SettingsError: Some values cannot be used; all of them are named by their sources.
    """
    settings = settings_of(config)
    links = set(link_variables(environment))
    environment = {name: text for name, text in environment.items() if name not in links}
    path = options.get("config") or environment.get(_CONFIG_VARIABLE)
    values = _of_file(_config_path(str(path)), {each.name for each in settings}) if path else {}
    sources = {name: f"{path}: {name}" for name in values}
    for setting in settings:
        if text := environment.get(setting.variable):  # one that is empty counts as not set
            values[setting.name], sources[setting.name] = text, setting.variable
        if (option := options.get(setting.name)) is not None:
            values[setting.name], sources[setting.name] = option, setting.flag
    try:
        return config(**values), sources
    except SettingsError as error:
        named = ((sources.get(name, name), problem) for name, problem in error.problems.items())
        raise SettingsError(dict(named)) from error


def _config_path(text: str) -> Path:
    try:
        return parse_path(text)
    except StartError as error:
        raise StartError(f"config: {error}") from error


def link_variables(environment: Mapping[str, str]) -> list[str]:
    """Return those of our variables that Kubernetes injects for a Service: they are no settings."""
    ours = [name for name in environment if name.startswith(VARIABLE_PREFIX)]
    return [
        name
        for name in ours
        if _LINK_NAME.fullmatch(name)
        or (name.endswith("_PORT") and _LINK_VALUE.fullmatch(environment[name]))
    ]


def unknown_variables(config: type[Settings], environment: Mapping[str, str]) -> list[str]:
    """Return variables that look like misspelt settings: other programs of ours have their own."""
    known = {_CONFIG_VARIABLE, *(setting.variable for setting in settings_of(config))}
    others = {*known, *link_variables(environment)}
    return [
        f"{name}: there is no such setting{hint}"
        for name in environment
        if name.startswith(VARIABLE_PREFIX) and name not in others
        if (hint := _hint(name, known))
    ]


def as_toml(config: Settings, sources: Mapping[str, str]) -> str:
    """Return all settings as a TOML file, each with where its value came from.

    Secrets of URLs are not shown.
    """
    lines: list[str] = []
    for setting in settings_of(type(config)):
        value = getattr(config, setting.name)
        line = f"{setting.name} = {_toml(plain(value))}"
        source = sources.get(setting.name, "default")
        lines.append(f"# {line}" if value is None else f"{line}  # {source}")
    return "\n".join(lines)


def _of_file(path: Path, known: set[str]) -> dict[str, Any]:
    document = _document(path)
    check_names(document, known, f"{path}: ")
    return document


def check_names(given: Iterable[str], known: set[str], source: str = "") -> None:
    """Refuse names of settings that there are not.

    Args:
        given: The names.
        known: Those of the settings that there are.
        source: How the sentence about each begins.

    Raises:
        StartError: There are none of some names; all of these are named.
    """
    unknown = [
        f"{source}there is no setting {name!r}{_hint(name, known)}"
        for name in given
        if name not in known
    ]
    if unknown:
        raise StartError("\n".join(unknown))


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
