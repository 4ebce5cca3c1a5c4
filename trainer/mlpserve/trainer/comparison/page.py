"""The page of a comparison: one HTML file, in the order in which one asks.

Which is better, in which classes, how far can they be trusted, what do they cost, and on which
images do they differ. The markup is in ``comparison.html.jinja`` beside the report's.
"""

from collections.abc import Sequence
from typing import Final

from mlpserve.trainer.comparison.comparison import Comparison
from mlpserve.trainer.comparison.figures import p_text, points, verdict, warnings
from mlpserve.trainer.comparison.sections import (
    accuracy_section,
    calibration_section,
    classes_section,
    confusions_section,
    facts_section,
    figures_section,
    pictures_section,
)
from mlpserve.trainer.comparison.speed import Speed
from mlpserve.trainer.report.formats import counted, percent
from mlpserve.trainer.report.templates import render, shown_label
from mlpserve.trainer.statistics import wilson_interval

_NO_BREAK: Final = "\N{NO-BREAK SPACE}"


def render_comparison(comparison: Comparison, speeds: Sequence[Speed]) -> str:
    """Return the page of a comparison: HTML that needs no other file and no network.

    The same arguments give the same page.

    Args:
        comparison: Two versions and what they say of the same images.
        speeds: How fast they are.
    """
    labels = [shown_label(label) for label in comparison.class_labels]
    first, second = comparison.first, comparison.second
    images = counted(len(comparison), "test image", "test images")
    p_value = p_text(comparison.p_value)
    return render(
        "comparison.html.jinja",
        title=f"{second.name} compared to {first.name}",
        subtitle=f"Judged by the same {images} of {comparison.data}",
        warnings=[f"{text[0].upper()}{text[1:]}." for text in warnings(comparison)],
        names=comparison.short_names,
        verdict=verdict(comparison).replace(f"p {p_value}", f"p {p_value}".replace(" ", _NO_BREAK)),
        class_labels=labels,
        headline=_headline(comparison),
        figures=figures_section(comparison, speeds),
        accuracy=accuracy_section(comparison),
        classes=classes_section(comparison, labels),
        confusions=confusions_section(comparison, labels),
        calibration=calibration_section(comparison),
        pictures=pictures_section(comparison, labels),
        facts={each.name: facts_section(each) for each in (first, second)},
    )


def _headline(comparison: Comparison) -> Sequence[tuple[str, str, str]]:
    first, second = comparison.short_names
    low, high = comparison.difference_interval
    count = int(comparison.is_different.sum())
    return [
        *(
            (
                f"Accuracy of {name}",
                percent(said.accuracy),
                _interval(said.accuracy, len(said)),
            )
            for name, said in (
                (first, comparison.said_first),
                (second, comparison.said_second),
            )
        ),
        (
            "Difference",
            points(comparison.difference),
            f"95 %: {100 * low:+.2f} to {100 * high:+.2f}",
        ),
        ("Luck alone", f"p {p_text(comparison.p_value)}", "McNemar's exact test"),
        ("Different answers", f"{count:,}", f"{percent(count / len(comparison))} of the images"),
    ]


def _interval(accuracy: float, count: int) -> str:
    low, high = wilson_interval(accuracy, count)
    return f"95 %: {100 * low:.2f} to {100 * high:.2f} %"
