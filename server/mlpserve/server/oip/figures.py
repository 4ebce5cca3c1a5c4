"""The figures of models as a snapshot carries them, so that those of all processes add up.

A figure is named by the way to it: ``by_size.16.running.ns``.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, TypeAlias

from mlpserve.model.folder import VersionKey
from mlpserve.server.inference.compiled import CompiledModel
from mlpserve.server.telemetry import metrics
from mlpserve.server.telemetry.snapshots import MetricsSnapshot, merged
from mlpserve.server.telemetry.statistics import Figures, PassFigures, Statistics

_Parts: TypeAlias = Mapping[str, Any]


def statistics_snapshot(statistics: Statistics) -> MetricsSnapshot:
    """Return the snapshot that carries the figures of all models of this process."""
    return merged(_snapshot(model, figures) for model, figures in statistics.figures())


def figures_of(snapshot: MetricsSnapshot) -> dict[VersionKey, Figures]:
    """Return the figures that a snapshot carries."""
    found: dict[VersionKey, Figures] = {}
    for (name, version, part), value in snapshot.get(metrics.FIGURES.name, ()):
        figures = found.setdefault(VersionKey(name, int(version)), Figures())
        _set(figures, part.split("."), _whole(value))
    for (name, version), value in snapshot.get(metrics.LAST_PASS.name, ()):
        figures = found.setdefault(VersionKey(name, int(version)), Figures())
        figures.last_pass_ms = _whole(value)
    return found


def _snapshot(model: CompiledModel, figures: Figures) -> MetricsSnapshot:
    labels = [model.metadata.name, str(model.metadata.version)]
    parts = asdict(figures)
    last_pass_ms = parts.pop("last_pass_ms")
    return {
        metrics.FIGURES.name: [([*labels, part], value) for part, value in _flat(parts)],
        metrics.LAST_PASS.name: [(labels, last_pass_ms)],
    }


def _flat(parts: _Parts, *way: str) -> Iterator[tuple[str, int]]:
    for name, value in parts.items():
        if isinstance(value, Mapping):
            yield from _flat(value, *way, str(name))
        else:
            yield ".".join((*way, str(name))), value


def _set(figures: Figures, way: list[str], value: int) -> None:
    *parents, last = way
    target: Any = figures
    for parent in parents:
        if isinstance(target, dict):
            target = target.setdefault(int(parent), PassFigures())
        else:
            target = getattr(target, parent)
    setattr(target, last, value)


def _whole(value: object) -> int:
    if not isinstance(value, int | float):
        raise TypeError(f"expected a number, got {value!r}")
    return int(value)
