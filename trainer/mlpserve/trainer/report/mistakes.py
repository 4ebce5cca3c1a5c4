"""The most confident mistakes, as pictures."""

from collections.abc import Sequence
from typing import Final

from mlpserve.datasets import Split
from mlpserve.trainer.evaluation import Evaluation, most_confident_mistakes
from mlpserve.trainer.report.blocks import paragraph, percent, section
from mlpserve.trainer.report.markup import Markup, element
from mlpserve.trainer.report.pictures import image_uri

_MOST_PICTURES: Final = 24
_SHORT_LABEL: Final = 3  # letters that fit below a small picture


def mistakes_section(
    evaluation: Evaluation, split: Split, shape: tuple[int, ...], class_labels: Sequence[str]
) -> Markup:
    """Return pictures of the wrongly classified images that the network was surest of.

    Args:
        evaluation: What the network said of the split.
        split: The images.
        shape: The shape of one image.
        class_labels: What each class is called.
    """
    chosen = most_confident_mistakes(evaluation, _MOST_PICTURES).tolist()
    title = "Its most confident mistakes"
    if not chosen:
        return section(title, paragraph("There is none: every test image is classified rightly."))
    pictures = (_picture(evaluation, split, index, shape, class_labels) for index in chosen)
    is_wide = max(map(len, class_labels)) > _SHORT_LABEL
    count = int((~evaluation.is_right).sum())
    which = "All of them" if len(chosen) == count else f"The first {len(chosen)} of {count:,}"
    return section(
        title,
        paragraph(
            f"{which}, the surest first: what the network said and how sure it was, and what the "
            "image is and how probable the network found that."
        ),
        element("div", *pictures, class_="pictures wide" if is_wide else "pictures"),
    )


def _picture(
    evaluation: Evaluation,
    split: Split,
    index: int,
    shape: tuple[int, ...],
    class_labels: Sequence[str],
) -> Markup:
    thought = class_labels[evaluation.predicted[index]]
    truth = class_labels[evaluation.labels[index]]
    sureness = percent(float(evaluation.confidences[index]), decimals=1)
    of_truth = percent(float(evaluation.probabilities[index, evaluation.labels[index]]), decimals=1)
    return element(
        "figure",
        element(
            "img",
            src=image_uri(split.images[index].reshape(shape)),
            alt=f"test image {index}: {truth}, taken for {thought}",
            title=f"test image {index}",
        ),
        _line("wrong", "said", thought, sureness),
        _line("right", "is", truth, of_truth),
    )


def _line(style: str, verb: str, label: str, probability: str) -> Markup:
    return element(
        "p",
        element("span", verb),
        element("b", label, title=label),
        element("span", probability, class_="probability"),
        class_=style,
    )
