"""Mistakes: which classes are taken for which, how well each is known, the surest mistakes."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from mlpserve.datasets import Split
from mlpserve.model.inputs import InputSpec
from mlpserve.trainer.evaluation import (
    Confusion,
    Evaluation,
    confusion_matrix,
    confusions,
    most_confident_mistakes,
    precisions,
    recalls,
)
from mlpserve.trainer.report.formats import Table, counted, percent
from mlpserve.trainer.report.pictures import image_uri

MAX_MATRIX_CLASSES: Final = 64  # a larger matrix is not read, and its size is the square of it
_MAX_ROOMY_CLASSES: Final = 20
MAX_CLASS_ROWS: Final = 64
MAX_CONFUSION_ROWS: Final = 30
_MAX_PICTURES: Final = 24
_SHORT_LABEL: Final = 3  # letters that fit above a column, or below a small picture
FAINTEST: Final = 0.12  # opacity of a cell's colour
STRONGEST: Final = 0.6  # with which the figure on it can still be read


def confusion_section(evaluation: Evaluation, class_labels: Sequence[str]) -> Mapping[str, Any]:
    """Return the confusion matrix, and precision and recall of each class.

    Where there are too many classes for a matrix, the most frequent confusions take its place.
    """
    found = confusions(evaluation)
    has_matrix = len(class_labels) <= MAX_MATRIX_CLASSES
    return {
        "summary": _summary(evaluation, found, class_labels),
        "matrix": _matrix(evaluation) if has_matrix else None,
        "matrix_style": matrix_style(class_labels),
        "confusions": _confusion_table(found, class_labels),
        "classes": _class_table(evaluation, found, class_labels),
    }


def mistakes_section(
    evaluation: Evaluation, split: Split, spec: InputSpec, class_labels: Sequence[str]
) -> Mapping[str, Any]:
    """Return pictures of the wrongly classified images that the network was surest of.

    Args:
        evaluation: What the network said of the split.
        split: The images.
        spec: How one image is shaped, and its values are scaled.
        class_labels: What each class is called.
    """
    chosen = most_confident_mistakes(evaluation, _MAX_PICTURES).tolist()
    count = int((~evaluation.is_right).sum())
    return {
        "which": "All of them" if len(chosen) == count else f"The first {len(chosen)} of {count:,}",
        "style": pictures_style(class_labels),
        "pictures": [
            {
                "index": index,
                "uri": picture_uri(split, index, spec),
                "predicted": class_labels[evaluation.predicted[index]],
                "confidence": float(evaluation.confidences[index]),
                "truth": class_labels[evaluation.labels[index]],
                "truth_probability": float(
                    evaluation.probabilities[index, evaluation.labels[index]]
                ),
            }
            for index in chosen
        ],
    }


def matrix_style(class_labels: Sequence[str]) -> str:
    """Return the classes of a confusion matrix in the style sheet."""
    upright = " upright" if max(map(len, class_labels)) > _SHORT_LABEL else ""
    dense = " dense" if len(class_labels) > _MAX_ROOMY_CLASSES else ""
    return f"matrix{upright}{dense}"


def pictures_style(class_labels: Sequence[str]) -> str:
    """Return the classes of pictures below which classes are named, in the style sheet."""
    return "pictures wide" if max(map(len, class_labels)) > _SHORT_LABEL else "pictures"


def picture_uri(split: Split, index: int, spec: InputSpec) -> str:
    """Return one of the images as a picture; see ``image_uri``."""
    return image_uri(spec.scale(split.images[index][np.newaxis]).reshape(spec.shape))


def _summary(
    evaluation: Evaluation, found: Sequence[Confusion], class_labels: Sequence[str]
) -> str:
    images = counted(len(evaluation), "test image", "test images")
    if not found:
        return f"It classifies all {images} rightly."
    wrong = sum(confusion.count for confusion in found)
    most = found[0]
    return (
        f"It classifies {wrong:,} of {images} wrongly. Most often it takes "
        f"{class_labels[most.truth]} for {class_labels[most.predicted]}: "
        f"{counted(most.count, 'time', 'times')}."
    )


def _matrix(evaluation: Evaluation) -> Sequence[Sequence[Mapping[str, str] | None]]:
    """Return the cells of the matrix, row by row; None for those in which nothing is shown."""
    counts = confusion_matrix(evaluation)
    max_wrong = max(int((counts - np.diag(np.diagonal(counts))).max()), 1)
    return [
        [
            _cell(int(count), truth, predicted, int(row.sum()), max_wrong)
            for predicted, count in enumerate(row)
        ]
        for truth, row in enumerate(counts)
    ]


def _cell(
    count: int, truth: int, predicted: int, total: int, max_wrong: int
) -> Mapping[str, str] | None:
    if count == 0:
        return None
    is_right = truth == predicted
    # Mistakes by the square root, so that a single one is seen beside many.
    share = count / total if is_right else math.sqrt(count / max_wrong)
    opacity = FAINTEST + (STRONGEST - FAINTEST) * share
    kind = "right" if is_right else "wrong"
    return {"kind": kind, "opacity": f"{opacity:.2f}", "count": f"{count:,}"}


def _confusion_table(found: Sequence[Confusion], class_labels: Sequence[str]) -> Table:
    shown = found[:MAX_CONFUSION_ROWS]
    caption = (
        f"The {len(shown)} most frequent of {counted(len(found), 'confusion', 'confusions')} "
        f"(a matrix of {len(class_labels):,} classes would be too large to read)"
    )
    rows = [
        (class_labels[each.truth], class_labels[each.predicted], f"{each.count:,}")
        for each in shown
    ]
    return caption, ("class", "taken for", "images"), rows


def _class_table(
    evaluation: Evaluation, found: Sequence[Confusion], class_labels: Sequence[str]
) -> Table:
    totals = np.bincount(evaluation.labels, minlength=evaluation.class_count)
    precision, recall = precisions(evaluation), recalls(evaluation)
    taken_for = _most_frequent_mistakes(found, class_labels)
    shown, caption = _shown_classes(recall)
    rows = [
        (
            class_labels[index],
            f"{totals[index]:,}",
            percent(float(precision[index])),
            percent(float(recall[index])),
            taken_for.get(index, ""),
        )
        for index in shown
    ]
    heads = ("class", "images", "precision", "recall", "most often taken for")
    return caption, heads, rows


def _shown_classes(recall: np.typing.NDArray[np.float64]) -> tuple[list[int], str]:
    """Return the classes that have a row, and what the table is called."""
    if len(recall) <= MAX_CLASS_ROWS:
        return list(range(len(recall))), "Each class"
    worst = np.argsort(recall, kind="stable")[:MAX_CLASS_ROWS]  # NaN comes last
    return (
        worst.tolist(),
        f"The {MAX_CLASS_ROWS} of {len(recall):,} classes with the lowest recall",
    )


def _most_frequent_mistakes(
    found: Sequence[Confusion], class_labels: Sequence[str]
) -> dict[int, str]:
    mistakes: dict[int, str] = {}
    for each in found:  # the most frequent first
        mistakes.setdefault(each.truth, f"{class_labels[each.predicted]} ({each.count:,})")
    return mistakes
