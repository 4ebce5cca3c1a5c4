"""Sections of the page: accuracy, classes, confusions, calibration, speed and size, pictures."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mlpserve.trainer.comparison.comparison import Comparison, Contender
from mlpserve.trainer.comparison.figures import compared, points, signed
from mlpserve.trainer.comparison.speed import HOW_MEASURED, Speed
from mlpserve.trainer.evaluation import Evaluation, recalls
from mlpserve.trainer.reliability import CALIBRATION_BINS
from mlpserve.trainer.report.axes import linear_axis
from mlpserve.trainer.report.charts import Interval, IntervalPlot
from mlpserve.trainer.report.confidence import reliability_chart, reliability_table
from mlpserve.trainer.report.formats import Table, counted, percent
from mlpserve.trainer.report.mistakes import (
    FAINTEST,
    MAX_CLASS_ROWS,
    MAX_CONFUSION_ROWS,
    MAX_MATRIX_CLASSES,
    STRONGEST,
    matrix_style,
    picture_uri,
    pictures_style,
)
from mlpserve.trainer.statistics import wilson_interval

_MAX_PICTURES: Final = 24  # of each kind
_MAX_PLOTTED_CLASSES: Final = 20
_ROOM: Final = 7  # letters of a name that fit below a small picture, beside a short class label
_STYLES: Final = ("first", "second")


def accuracy_section(comparison: Comparison) -> Mapping[str, Any]:
    """Return McNemar's table, and a plot of both accuracies."""
    only_first, only_second = comparison.disagreements
    first, second = comparison.short_names
    return {
        "table": (
            "Images that are classified rightly, or not",
            ("", f"{second} right", f"{second} wrong"),
            (
                (f"{first} right", f"{comparison.both_right:,}", f"{only_first:,}"),
                (f"{first} wrong", f"{only_second:,}", f"{comparison.both_wrong:,}"),
            ),
        ),
        "plot": _accuracy_plot(comparison),
    }


def classes_section(comparison: Comparison, labels: Sequence[str]) -> Mapping[str, Any]:
    """Return how often each class is recognised by either."""
    shares = [recalls(said) for said in _said(comparison)]
    totals = np.bincount(comparison.split.labels, minlength=len(labels))
    changed = np.argsort(-np.nan_to_num(np.abs(shares[1] - shares[0])), kind="stable")
    plotted = np.sort([each for each in changed if totals[each]][:_MAX_PLOTTED_CLASSES])
    return {
        "plot": _class_plot(comparison, labels, plotted, shares, totals),
        "table": _class_table(comparison, labels, shares, totals, changed),
    }


def confusions_section(comparison: Comparison, labels: Sequence[str]) -> Mapping[str, Any]:
    """Return which classes are confused more or less often by the second."""
    if len(labels) > MAX_MATRIX_CLASSES:
        return {"matrix": None, "table": _confusion_table(comparison, labels)}
    changes = comparison.confusion_changes
    largest = max(int(np.abs(changes).max()), 1)
    cells = [
        [
            _cell(int(change), largest, is_diagonal=row == column)
            for column, change in enumerate(many)
        ]
        for row, many in enumerate(changes)
    ]
    return {"matrix": cells, "style": matrix_style(labels)}


def calibration_section(comparison: Comparison) -> Mapping[str, Any]:
    """Return reliability charts of both."""
    both = list(zip(comparison.short_names, _STYLES, _said(comparison), strict=True))
    return {
        "bins": CALIBRATION_BINS,
        "charts": [reliability_chart(f"of {name}", style, said) for name, style, said in both],
        "tables": [reliability_table(name, said) for name, _, said in both],
    }


def figures_section(comparison: Comparison, speeds: Sequence[Speed]) -> Mapping[str, Any]:
    """Return all figures of both in one table."""
    heads = ("", *comparison.short_names, "difference")
    return {
        "table": ("Figures of both", heads, list(compared(comparison, speeds))),
        "how": HOW_MEASURED,
    }


def pictures_section(comparison: Comparison, labels: Sequence[str]) -> Mapping[str, Any]:
    """Return pictures of the images of which the two say different classes."""
    first, second = comparison.short_names
    wrong_twice = comparison.is_different & ~(
        comparison.only_first_right | comparison.only_second_right
    )
    kinds = (
        (f"Only {second} is right", comparison.only_second_right),
        (f"Only {first} is right", comparison.only_first_right),
        ("Both are wrong, and disagree", wrong_twice),
    )
    count = int(comparison.is_different.sum())
    return {
        "count": counted(count, "image", "images"),
        "share": percent(count / len(comparison)),
        "style": pictures_style([*labels, *(_initials(name)[_ROOM:] for name in (first, second))]),
        "groups": [_group(comparison, labels, title, which) for title, which in kinds],
    }


def facts_section(contender: Contender) -> Mapping[str, str]:
    """Return how a version was made."""
    model = contender.model
    metadata, training = model.metadata, model.metadata.training
    return {
        "file": contender.file,
        "layers": "-".join(map(str, metadata.layer_sizes)),
        "activations": ", ".join(metadata.activations),
        "recipe": f"{training.recipe}, seed {training.seed}",
        "data": training.data_name,
        "digest of the data": training.data_digest,
        "test accuracy then": percent(training.test_accuracy),
        "trained at": f"{training.created_at:%Y-%m-%d %H:%M:%S} UTC",
    }


def _said(comparison: Comparison) -> tuple[Evaluation, Evaluation]:
    return comparison.said_first, comparison.said_second


def _accuracy_plot(comparison: Comparison) -> IntervalPlot:
    rows = [
        (name, [_interval(style, said.accuracy, len(said), name)])
        for name, style, said in zip(
            comparison.short_names, _STYLES, _said(comparison), strict=True
        )
    ]
    return _plot("Accuracy, with its 95 % confidence interval", rows)


def _class_plot(
    comparison: Comparison,
    labels: Sequence[str],
    plotted: npt.NDArray[np.int64],
    shares: Sequence[npt.NDArray[np.float64]],
    totals: npt.NDArray[np.int64],
) -> IntervalPlot:
    rows = [
        (
            labels[each],
            [
                _interval(style, float(share[each]), int(totals[each]), name)
                for name, style, share in zip(comparison.short_names, _STYLES, shares, strict=True)
            ],
        )
        for each in plotted
    ]
    which = "" if len(rows) == len(labels) else f" (the {len(rows)} that changed most)"
    return _plot(f"Images of each class that are classified rightly{which}", rows)


def _interval(style: str, share: float, count: int, name: str) -> Interval:
    low, high = wilson_interval(share, count)
    text = f"{name}: {percent(share)} of {counted(count, 'image', 'images')}"
    return Interval(style, 100 * low, 100 * share, 100 * high, text)


def _plot(title: str, rows: Sequence[tuple[str, Sequence[Interval]]]) -> IntervalPlot:
    shown = [value for _, row in rows for each in row for value in (each.low, each.high)]
    said = "; ".join(f"{name}: {', '.join(each.text for each in row)}" for name, row in rows)
    axis = linear_axis(shown, suffix=" %", lowest=0, highest=100)
    return IntervalPlot(title, f"{title}. {said}", axis, rows)


def _class_table(
    comparison: Comparison,
    labels: Sequence[str],
    shares: Sequence[npt.NDArray[np.float64]],
    totals: npt.NDArray[np.int64],
    changed: npt.NDArray[np.int64],
) -> Table:
    only = [
        np.bincount(comparison.split.labels[which], minlength=len(labels))
        for which in (comparison.only_first_right, comparison.only_second_right)
    ]
    first, second = comparison.short_names
    heads = ("class", "images", first, second, "difference", f"only {first}", f"only {second}")
    all_are_shown = len(labels) <= MAX_CLASS_ROWS
    rows = [
        (
            labels[each],
            f"{totals[each]:,}",
            percent(float(shares[0][each])),
            percent(float(shares[1][each])),
            points(float(shares[1][each] - shares[0][each])),
            f"{only[0][each]:,}",
            f"{only[1][each]:,}",
        )
        for each in (range(len(labels)) if all_are_shown else changed[:MAX_CLASS_ROWS])
    ]
    caption = "Each class"
    if not all_are_shown:
        caption = f"The {MAX_CLASS_ROWS} of {len(labels):,} classes that changed most"
    return caption, heads, rows


def _confusion_table(comparison: Comparison, labels: Sequence[str]) -> Table:
    """Return the largest changes of what is taken for what, without a matrix of all classes."""
    pairs: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]] = []
    for said in _said(comparison):
        wrong = ~said.is_right
        codes = said.labels[wrong] * len(labels) + said.predicted[wrong]
        pairs.append(np.unique(codes, return_counts=True))
    changes: dict[int, int] = {}
    for sign, (codes, counts) in zip((-1, 1), pairs, strict=True):
        for code, count in zip(codes.tolist(), counts.tolist(), strict=True):
            changes[code] = changes.get(code, 0) + sign * count
    largest = sorted(
        (code for code in changes if changes[code]), key=lambda code: -abs(changes[code])
    )
    rows = [
        (labels[code // len(labels)], labels[code % len(labels)], signed(changes[code]))
        for code in largest[:MAX_CONFUSION_ROWS]
    ]
    caption = f"The {len(rows)} largest of {counted(len(largest), 'change', 'changes')}"
    return caption, ("class", "taken for", f"{comparison.short_names[1]} more often"), rows


def _cell(change: int, largest: int, *, is_diagonal: bool) -> Mapping[str, str] | None:
    if change == 0:
        return None
    is_better = (change > 0) == is_diagonal
    # By the square root, so that a single one is seen beside many.
    opacity = FAINTEST + (STRONGEST - FAINTEST) * math.sqrt(abs(change) / largest)
    kind = "right" if is_better else "wrong"
    return {"kind": kind, "opacity": f"{opacity:.2f}", "count": signed(change)}


def _group(
    comparison: Comparison, labels: Sequence[str], title: str, which: npt.NDArray[np.bool_]
) -> Mapping[str, Any]:
    found = np.flatnonzero(which)
    # Where even the less sure of the two is sure, they contradict one another the most.
    sure = np.minimum(*(said.confidences[found] for said in _said(comparison)))
    shown = found[np.argsort(-sure, kind="stable")][:_MAX_PICTURES].tolist()
    count = counted(len(found), "image", "images")
    return {
        "title": f"{title}: {count}",
        "which": "" if len(shown) == len(found) else f"The first {len(shown)} of them.",
        "pictures": [_picture(comparison, labels, index) for index in shown],
    }


def _initials(name: str) -> str:
    """Return what a version is called below a small picture."""
    return name.replace("version ", "v")


def _picture(comparison: Comparison, labels: Sequence[str], index: int) -> Mapping[str, Any]:
    spec = comparison.first.model.metadata.input
    truth = labels[comparison.split.labels[index]]
    answers = [
        {
            "name": name,
            "initials": _initials(name),
            "said": labels[said.predicted[index]],
            "is_right": bool(said.is_right[index]),
            "confidence": float(said.confidences[index]),
        }
        for name, said in zip(comparison.short_names, _said(comparison), strict=True)
    ]
    said = " and ".join(f"{each['said']} by {each['name']}" for each in answers)
    return {
        "index": index,
        "uri": picture_uri(comparison.split, index, spec),
        "truth": truth,
        "answers": answers,
        "alt": f"test image {index}: {truth}, taken for {said}",
    }
