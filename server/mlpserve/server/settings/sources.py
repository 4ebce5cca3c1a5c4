"""Where settings come from: flags, then environment variables, then a TOML file, then defaults.

    --workers 4            MLPSERVE_WORKERS=4            workers = 4

All that is wrong is said at once, each with the place that it came from.
"""

import argparse
import difflib
import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mlpserve.model.sync.urls import shown
from mlpserve.server.errors import StartError
from mlpserve.server.settings.declarations import Setting, problem, settings_of

VARIABLE_PREFIX: Final = "MLPSERVE_"
CONFIG_FLAG: Final = "--config"
CONFIG_VARIABLE: Final = f"{VARIABLE_PREFIX}CONFIG"
_LARGEST_FILE_BYTES: Final = 1 << 20


@dataclass(frozen=True)
class Given:
    """The value of a setting, and who gave it.

    Attributes:
        value: The value as its source has it: text of a flag or a variable, anything of a file.
        source: The flag, the variable, or the file and the key in it.
    """

    value: object
    source: str


def add_flags(parser: argparse.ArgumentParser, config: type[Any]) -> None:
    """Give a parser a flag for each setting, and ``--config``; none has a default of its own."""
    parser.add_argument(
        CONFIG_FLAG, metavar="FILE", help=f"TOML file with settings; default: ${CONFIG_VARIABLE}"
    )
    for setting in settings_of(config):
        help_text = f"{setting.help}; default: {default_text(setting)}"
        if setting.is_switch:
            parser.add_argument(setting.flag, action=argparse.BooleanOptionalAction, help=help_text)
        else:
            parser.add_argument(setting.flag, metavar=setting.metavar, help=help_text)


def given_settings(
    config: type[Any], options: Mapping[str, object], environment: Mapping[str, str]
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
    found = dict(_of_file(settings, options.get("config") or environment.get(CONFIG_VARIABLE)))
    for setting in settings:
        variable = variable_name(setting)
        if environment.get(variable):  # one that is empty counts as not set
            found[setting.name] = Given(environment[variable], variable)
        if (option := options.get(setting.name)) is not None:
            found[setting.name] = Given(option, setting.flag)
    return found


def values(config: type[Any], given: Mapping[str, Given]) -> dict[str, Any]:
    """Return the values that were given, read and checked.

    Raises:
        StartError: Some cannot be used; all of them are named, a line each.
    """
    read: dict[str, Any] = {}
    problems: list[str] = []
    for setting in settings_of(config):
        if setting.name in given:
            value, wrong = _read(setting, given[setting.name])
            read[setting.name] = value
            problems.extend([] if wrong is None else [wrong])
    if problems:
        raise StartError("\n".join(problems))
    return read


def variable_name(setting: Setting) -> str:
    """Return the environment variable of a setting."""
    return VARIABLE_PREFIX + setting.name.upper()


def default_text(setting: Setting) -> str:
    """Return how people are told of a default."""
    if isinstance(setting.default, bool):
        return "on" if setting.default else "off"
    return "none" if setting.default in {None, ""} else str(setting.default)


def unknown_variables(config: type[Any], environment: Mapping[str, str]) -> list[str]:
    """Return variables that look like misspelt settings: other programs of ours have their own."""
    known = {variable_name(setting) for setting in settings_of(config)} | {CONFIG_VARIABLE}
    candidates = [name for name in environment if name.startswith(VARIABLE_PREFIX)]
    return [
        f"{name}: there is no such setting{_hint(name, known)}"
        for name in candidates
        if name not in known and _hint(name, known)
    ]


def as_toml(config: Any, given: Mapping[str, Given]) -> str:  # noqa: ANN401 - any dataclass of settings
    """Return all settings as a TOML file, each with where its value came from.

    Secrets of URLs are not shown.
    """
    lines: list[str] = []
    for setting in settings_of(type(config)):
        value = getattr(config, setting.name)
        source = given[setting.name].source if setting.name in given else "default"
        line = f"{setting.name} = {_toml(value)}"
        lines.append(f"# {line}" if value is None else f"{line}  # {source}")
    return "\n".join(lines)


def as_markdown(config: type[Any]) -> str:
    """Return a table of all settings."""
    rows = [
        f"| `{setting.name}` | `{_usage(setting)}` | {setting.help} | {setting.expected} "
        f"| {default_text(setting)} |"
        for setting in settings_of(config)
    ]
    head = ("| setting | flag | what it is | values | default |", "|---|---|---|---|---|")
    return "\n".join((*head, *(row.replace("<", "&lt;") for row in rows)))


def _usage(setting: Setting) -> str:
    if setting.is_switch:
        return f"{setting.flag}, --no-{setting.flag.removeprefix('--')}"
    return f"{setting.flag} {setting.metavar}".replace("|", "\\|")


def _of_file(settings: list[Setting], path: object) -> Iterator[tuple[str, Given]]:
    if not path:
        return
    known = {setting.name for setting in settings}
    document = _document(Path(str(path)))
    unknown = [name for name in document if name not in known]
    if unknown:
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
            content = file.read(_LARGEST_FILE_BYTES + 1)
        if len(content) > _LARGEST_FILE_BYTES:
            raise StartError(
                f"{path}: expected a file of settings, got over {_LARGEST_FILE_BYTES} bytes"
            )
        return tomllib.loads(content.decode())
    except OSError as error:
        raise StartError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StartError(f"{path}: expected TOML: {error}") from error


def _read(setting: Setting, given: Given) -> tuple[object, str | None]:
    value = given.value
    if isinstance(value, str):
        try:
            value = setting.from_text(value)
        except ValueError:
            value = given.value  # which is none that is accepted
    return value, problem(setting, value, source=given.source)


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
