"""The page: one HTML file with all that the report shows, in the order in which one asks.

How good is it, how did it learn, where is it wrong, how far can it be trusted, what did it learn,
how was it made. The markup is in ``report.html.jinja``; each section's module makes its figures.
"""

from collections.abc import Sequence
from datetime import UTC
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from markupsafe import Markup

from mlpserve.datasets import Split
from mlpserve.model.metadata import Metadata
from mlpserve.model.weights import Model
from mlpserve.trainer.evaluation import Evaluation
from mlpserve.trainer.history import EpochRecord
from mlpserve.trainer.report.confidence import confidence_section
from mlpserve.trainer.report.curves import curves_section
from mlpserve.trainer.report.facts import facts_section, headline
from mlpserve.trainer.report.first_layer import first_layer_section
from mlpserve.trainer.report.formats import number, percent, printable
from mlpserve.trainer.report.mistakes import confusion_section, mistakes_section

if TYPE_CHECKING:
    from jinja2 import Template

_MAX_LABEL_LETTERS: Final = 40


def render_report(
    model: Model,
    history: Sequence[EpochRecord],
    evaluation: Evaluation,
    split: Split,
) -> str:
    """Return the report of a version: an HTML page that needs no other file and no network.

    The same arguments give the same page.

    Args:
        model: The version, as it is published.
        history: What each epoch found, in their order; may be empty.
        evaluation: What the network of ``model`` said of the test split.
        split: The test split.

    Raises:
        ValueError: The evaluation is not of this split or this model.
    """
    _check(model, evaluation, split)
    metadata = model.metadata
    labels = [_shown_label(label) for label in metadata.class_labels]
    return _template().render(
        title=f"{metadata.name} version {metadata.version}",
        subtitle=_subtitle(metadata),
        style_sheet=Markup(_text("style.css")),  # noqa: S704 - a file of ours
        warnings=metadata.training.warnings,
        class_labels=labels,
        headline=headline(metadata.training, history, evaluation),
        curves=curves_section(history),
        confusion=confusion_section(evaluation, labels),
        mistakes=mistakes_section(evaluation, split, metadata.input, labels),
        confidence=confidence_section(evaluation, metadata.training.calibration),
        first_layer=first_layer_section(model.network, metadata.input.shape, labels),
        facts=facts_section(model, evaluation),
    )


@cache
def _template() -> "Template":
    """Return the template; whatever is put into it is made printable and escaped."""
    # Only where a report is made: it is a seventh of the time that the command takes to start.
    from jinja2 import Environment, StrictUndefined  # noqa: PLC0415

    environment = Environment(
        autoescape=True,
        finalize=_finalized,
        lstrip_blocks=True,
        trim_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"number": number, "percent": percent}
    return environment.from_string(_text("report.html.jinja"))


def _finalized(value: object) -> object:
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _text(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8")


def _check(model: Model, evaluation: Evaluation, split: Split) -> None:
    if len(evaluation) != len(split) or (evaluation.labels != split.labels).any():
        raise ValueError(
            f"evaluation: expected what the network said of the {len(split)} images of the split, "
            f"got it of {len(evaluation)} others"
        )
    if evaluation.class_count != len(model.metadata.class_labels):
        raise ValueError(
            f"evaluation: expected the {len(model.metadata.class_labels)} classes of the model, "
            f"got {evaluation.class_count}"
        )


def _shown_label(label: str) -> str:
    """Return what a class is called on the page, where a name must leave room for others."""
    if len(label) > _MAX_LABEL_LETTERS:
        return f"{label[: _MAX_LABEL_LETTERS - 1]}…"
    return label if label.strip() else "(blank)"


def _subtitle(metadata: Metadata) -> str:
    training = metadata.training
    return (
        f"A {'-'.join(map(str, metadata.layer_sizes))} network, trained on {training.data_name} by "
        f"the recipe {training.recipe}, {training.created_at.astimezone(UTC):%Y-%m-%d}"
    )
