"""Where the network is wrong: which classes it takes for which, and how well it knows each."""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from mlpserve.trainer.evaluation import (
    Confusion,
    Evaluation,
    confusion_matrix,
    confusions,
    precisions,
    recalls,
)
from mlpserve.trainer.report.blocks import (
    counted,
    paragraph,
    percent,
    scrolling,
    section,
    table,
)
from mlpserve.trainer.report.markup import Markup, element

_MOST_MATRIX_CLASSES: Final = 64  # a larger matrix is not read, and its size is the square of it
_MOST_ROOMY_CLASSES: Final = 20
_MOST_CLASS_ROWS: Final = 64
_MOST_CONFUSION_ROWS: Final = 30
_SHORT_LABEL: Final = 3  # letters that fit above a column
_FAINTEST: Final = 0.12  # opacity of a cell's colour
_STRONGEST: Final = 0.6  # with which the figure on it can still be read


def confusion_section(evaluation: Evaluation, class_labels: Sequence[str]) -> Markup:
    """Return the confusion matrix, and precision and recall of each class."""
    found = confusions(evaluation)
    if len(class_labels) <= _MOST_MATRIX_CLASSES:
        overview = _matrix(evaluation, class_labels)
    else:
        overview = _confusion_table(found, class_labels)
    scores = _class_table(evaluation, found, class_labels)
    return section(
        "Where it is wrong",
        paragraph(_summary(evaluation, found, class_labels)),
        element("div", overview, scores, class_="beside-each-other"),
        paragraph(
            "Precision is the share of the images taken for a class that are of it; recall is the "
            "share of the images of a class that are taken for it."
        ),
    )


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


def _matrix(evaluation: Evaluation, class_labels: Sequence[str]) -> Markup:
    counts = confusion_matrix(evaluation)
    most_wrong = max(int((counts - np.diag(np.diagonal(counts))).max()), 1)
    caption = "Images of each class (rows), and what they were taken for (columns)"
    heads = [element("th", label, scope="col") for label in class_labels]
    rows = [
        element(
            "tr",
            element("th", label, scope="row"),
            *(
                _cell(int(count), truth, predicted, int(counts[truth].sum()), most_wrong)
                for predicted, count in enumerate(counts[truth])
            ),
        )
        for truth, label in enumerate(class_labels)
    ]
    matrix = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", element("td"), *heads)),
        element("tbody", *rows),
        class_=_matrix_style(class_labels),
    )
    return scrolling(caption, matrix)


def _matrix_style(class_labels: Sequence[str]) -> str:
    upright = " upright" if max(map(len, class_labels)) > _SHORT_LABEL else ""
    dense = " dense" if len(class_labels) > _MOST_ROOMY_CLASSES else ""
    return f"matrix{upright}{dense}"


def _cell(count: int, truth: int, predicted: int, total: int, most_wrong: int) -> Markup:
    if count == 0:
        return element("td")
    is_right = truth == predicted
    # Mistakes by the square root, so that a single one is seen beside many.
    share = count / total if is_right else math.sqrt(count / most_wrong)
    opacity = _FAINTEST + (_STRONGEST - _FAINTEST) * share
    kind = "right" if is_right else "wrong"
    return element("td", f"{count:,}", class_=kind, style=f"--opacity:{opacity:.2f}")


def _confusion_table(found: Sequence[Confusion], class_labels: Sequence[str]) -> Markup:
    shown = found[:_MOST_CONFUSION_ROWS]
    caption = (
        f"The {len(shown)} most frequent of {counted(len(found), 'confusion', 'confusions')} "
        f"(a matrix of {len(class_labels):,} classes would be too large to read)"
    )
    rows = (
        (class_labels[each.truth], class_labels[each.predicted], f"{each.count:,}")
        for each in shown
    )
    return table(caption, ("class", "taken for", "images"), rows)


def _class_table(
    evaluation: Evaluation, found: Sequence[Confusion], class_labels: Sequence[str]
) -> Markup:
    totals = np.bincount(evaluation.labels, minlength=evaluation.class_count)
    precision, recall = precisions(evaluation), recalls(evaluation)
    taken_for = _most_frequent_mistakes(found, class_labels)
    shown, caption = _shown_classes(recall)
    rows = (
        (
            class_labels[index],
            f"{totals[index]:,}",
            percent(float(precision[index])),
            percent(float(recall[index])),
            taken_for.get(index, ""),
        )
        for index in shown
    )
    heads = ("class", "images", "precision", "recall", "most often taken for")
    return table(caption, heads, rows)


def _shown_classes(recall: np.typing.NDArray[np.float64]) -> tuple[list[int], str]:
    """Return the classes that have a row, and what the table is called."""
    if len(recall) <= _MOST_CLASS_ROWS:
        return list(range(len(recall))), "Each class"
    worst = np.argsort(recall, kind="stable")[:_MOST_CLASS_ROWS]  # NaN comes last
    return (
        worst.tolist(),
        f"The {_MOST_CLASS_ROWS} of {len(recall):,} classes with the lowest recall",
    )


def _most_frequent_mistakes(
    found: Sequence[Confusion], class_labels: Sequence[str]
) -> dict[int, str]:
    mistakes: dict[int, str] = {}
    for each in found:  # the most frequent first
        mistakes.setdefault(each.truth, f"{class_labels[each.predicted]} ({each.count:,})")
    return mistakes
