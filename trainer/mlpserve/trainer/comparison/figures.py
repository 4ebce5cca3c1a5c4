"""Figures of two versions side by side, for the terminal, the page and programs."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from mlpserve.model.command_line import percent
from mlpserve.trainer.comparison.comparison import Comparison, Contender
from mlpserve.trainer.comparison.speed import Speed
from mlpserve.trainer.evaluation import Evaluation, recalls
from mlpserve.trainer.reliability import brier_score, expected_calibration_error
from mlpserve.trainer.statistics import wilson_interval

_SMALLEST_P: Final = 1e-4  # that is told exactly
# A figure's name, that of the first, that of the second, and the second's less the first's, or by
# how many times it is larger.
Row: TypeAlias = tuple[str, str, str, str]


def compared(comparison: Comparison, speeds: Sequence[Speed]) -> Iterator[Row]:
    """Yield all figures of both, one after the other."""
    said = (comparison.said_first, comparison.said_second)
    yield _row("accuracy", (percent(each.accuracy) for each in said), points(comparison.difference))
    intervals = (wilson_interval(each.accuracy, len(each)) for each in said)
    yield _row("95 % interval", map(_range, intervals), _range(comparison.difference_interval, "+"))
    wrong = [int((~each.is_right).sum()) for each in said]
    yield _row("wrong", map("{:,}".format, wrong), signed(wrong[1] - wrong[0]))
    errors = [expected_calibration_error(each) for each in said]
    yield _row("calibration error", map(percent, errors), points(errors[1] - errors[0]))
    for name, scores in (
        ("Brier score", [brier_score(each) for each in said]),
        ("log loss, nats", [each.cross_entropy for each in said]),
    ):
        yield _row(name, map("{:.4f}".format, scores), f"{scores[1] - scores[0]:+.4f}")
    for speed in speeds:
        times = f"{speed.ratio:.2f} times"
        yield _row(
            f"images/s, {speed.batch:,} at a time", map("{:,.0f}".format, speed.images_per_s), times
        )
    contenders = (comparison.first, comparison.second)
    parameters = [each.parameters for each in contenders]
    yield _row("parameters", map("{:,}".format, parameters), _times(parameters))
    sizes = [each.file_bytes for each in contenders]
    yield _row("bytes of the file", map("{:,}".format, sizes), _times(sizes))


def verdict(comparison: Comparison) -> str:
    """Return what the accuracies come to, in two sentences."""
    only_first, only_second = comparison.disagreements
    first, second = comparison.first.name, comparison.second.name
    if not only_first and not only_second:
        return f"{first} and {second} are right on the same images."
    counts = (
        f"of {only_first + only_second:,} images that only one of them classifies rightly, "
        f"{only_first:,} are {first}'s and {only_second:,} are {second}'s "
        f"(McNemar's exact test: p {p_text(comparison.p_value)})"
    )
    if not comparison.is_significant:
        return f"Neither is known to be better, for luck may explain the difference: {counts}."
    better, other = (second, first) if only_second > only_first else (first, second)
    return f"{better} is better than {other}, by more than luck explains: {counts}."


def warnings(comparison: Comparison) -> Iterator[str]:
    """Yield what makes the comparison say less than it seems to."""
    trainings = [each.model.metadata.training for each in (comparison.first, comparison.second)]
    if comparison.has_equal_weights:
        yield "both have the same weights, so all that differs is the time that they take"
    elif trainings[0].data_digest != trainings[1].data_digest:
        names = list(dict.fromkeys(each.data_name for each in trainings))
        called = " and ".join(names) if len(names) > 1 else f"both called {names[0]}"
        yield (
            f"they were trained on different data ({called}): one that has learned from some of "
            "these images has an unfair advantage"
        )


def document(comparison: Comparison, speeds: Sequence[Speed]) -> dict[str, Any]:
    """Return all figures for programs; a share is null where there is nothing to take it of."""
    only_first, only_second = comparison.disagreements
    both = (
        (comparison.first, comparison.said_first),
        (comparison.second, comparison.said_second),
    )
    return {
        "data": comparison.data,
        "images": len(comparison),
        "versions": [
            _version(
                contender, said, {str(each.batch): each.images_per_s[place] for each in speeds}
            )
            for place, (contender, said) in enumerate(both)
        ],
        "both_right": comparison.both_right,
        "only_first_right": only_first,
        "only_second_right": only_second,
        "both_wrong": comparison.both_wrong,
        "different_answers": int(comparison.is_different.sum()),
        "accuracy_difference": comparison.difference,
        "accuracy_difference_interval": comparison.difference_interval,
        "mcnemar_p_value": comparison.p_value,
        "speed_ratios": {str(each.batch): each.ratio for each in speeds},
        "classes": _classes(comparison),
        "warnings": list(warnings(comparison)),
    }


def points(difference: float) -> str:
    """Return the difference of two shares in percentage points; a dash where there is none."""
    return "-" if math.isnan(difference) else f"{100 * difference:+.2f} points"


def signed(count: int) -> str:
    """Return the difference of two counts."""
    return f"{count:+,}" if count else "0"


def p_text(p_value: float) -> str:
    """Return a p-value as it stands after the letter p."""
    return f"= {p_value:.4f}" if p_value >= _SMALLEST_P else f"< {_SMALLEST_P:.4f}"


def _row(name: str, both: Iterable[str], difference: str) -> Row:
    first, second = both
    return name, first, second, difference


def _range(ends: tuple[float, float], sign: str = "") -> str:
    low, high = (f"{100 * end:{sign}.2f}" for end in ends)
    return f"{low} to {high}"


def _times(numbers: Sequence[float]) -> str:
    return f"{numbers[1] / numbers[0]:.2f} times"


def _version(
    contender: Contender, said: Evaluation, images_per_s: Mapping[str, float]
) -> dict[str, Any]:
    metadata = contender.model.metadata
    return {
        "model": metadata.name,
        "version": metadata.version,
        "file": contender.file,
        "accuracy": said.accuracy,
        "accuracy_interval": wilson_interval(said.accuracy, len(said)),
        "expected_calibration_error": expected_calibration_error(said),
        "brier_score": brier_score(said),
        "cross_entropy_nats": said.cross_entropy,
        "images_per_s": images_per_s,
        "parameters": contender.parameters,
        "file_bytes": contender.file_bytes,
    }


def _classes(comparison: Comparison) -> list[dict[str, Any]]:
    shares = [
        [None if math.isnan(share) else share for share in recalls(said).tolist()]
        for said in (comparison.said_first, comparison.said_second)
    ]
    return [
        {"label": label, "recalls": both}
        for label, *both in zip(comparison.class_labels, *shares, strict=True)
    ]
