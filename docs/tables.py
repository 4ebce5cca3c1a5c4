"""Writes the tables that are made from the code into their documents; `make tables`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from mlpserve.server.ray_serve.arguments import Replicas
from mlpserve.server.settings.config import ServerConfig
from mlpserve.server.settings.fields import Setting, settings_of
from mlpserve.server.telemetry.metrics import METRICS, Metric

FOLDER: Final = Path(__file__).parent


def with_current_table(name: str) -> str:
    """Return the text of a document with its table as the code has it."""
    begin, end = f"<!-- {_TITLES[name]}: begin -->\n", f"<!-- {_TITLES[name]}: end -->\n"
    before, _, rest = (FOLDER / name).read_text().partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}{_TABLES[name]()}\n{end}{after}"


def _settings() -> str:
    head = ("| setting | flag | what it is | values | default |", "|---|---|---|---|---|")
    return "\n".join((*head, *map(_setting_row, settings_of(ServerConfig))))


def _setting_row(setting: Setting) -> str:
    metavar = setting.kind.metavar.replace("|", "\\|")
    usage = f" {metavar}" if metavar else f", --no-{setting.flag.removeprefix('--')}"
    cells = (f"`{setting.flag}{usage}`", setting.help, setting.kind.expected, setting.default_text)
    return f"| `{setting.name}` | {' | '.join(cells)} |".replace("<", "&lt;")


def _arguments() -> str:
    head = ("| argument | what it is | values | default |", "|---|---|---|---|")
    return "\n".join((*head, *map(_argument_row, settings_of(Replicas))))


def _argument_row(setting: Setting) -> str:
    cells = (f"`{setting.name}`", setting.help, setting.kind.expected, setting.default_text)
    return f"| {' | '.join(cells)} |"


def _metrics() -> str:
    head = ("| metric | kind | labels | what it is |", "|---|---|---|---|")
    return "\n".join((*head, *map(_row, METRICS)))


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} |"


_TITLES: Final = {
    "configuration.md": "settings",
    "metrics.md": "metrics",
    "ray-serve.md": "arguments",
}
_TABLES: Final[Mapping[str, Callable[[], str]]] = {
    "configuration.md": _settings,
    "metrics.md": _metrics,
    "ray-serve.md": _arguments,
}

if __name__ == "__main__":
    for document in _TABLES:
        (FOLDER / document).write_text(with_current_table(document))
