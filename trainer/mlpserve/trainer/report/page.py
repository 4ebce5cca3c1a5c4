"""The page: one HTML file with all that the report shows, in the order in which one asks.

How good is it, how did it learn, where is it wrong, how far can it be trusted, what did it learn,
how was it made. The markup is in ``report.html.jinja``; each section's module makes its figures.
"""

from collections.abc import Sequence
from datetime import UTC

from mlpserve.datasets import Split
from mlpserve.model.metadata import Metadata
from mlpserve.model.weights import Model
from mlpserve.trainer.evaluation import Evaluation
from mlpserve.trainer.history import EpochRecord
from mlpserve.trainer.report.confidence import confidence_section
from mlpserve.trainer.report.curves import curves_section
from mlpserve.trainer.report.facts import facts_section, headline
from mlpserve.trainer.report.first_layer import first_layer_section
from mlpserve.trainer.report.mistakes import confusion_section, mistakes_section
from mlpserve.trainer.report.templates import render, shown_label
from mlpserve.trainer.report.trials import trials_section
from mlpserve.trainer.trials import Sweep


def render_report(
    model: Model,
    history: Sequence[EpochRecord],
    evaluation: Evaluation,
    split: Split,
    *,
    sweep: Sweep | None = None,
) -> str:
    """Return the report of a version: an HTML page that needs no other file and no network.

    The same arguments give the same page.

    Args:
        model: The version, as it is published.
        history: What each epoch found, in their order; may be empty.
        evaluation: What the network of ``model`` said of the test split.
        split: The test split.
        sweep: The sweep that found its settings, if one did.

    Raises:
        ValueError: The evaluation is not of this split or this model.
    """
    _check(model, evaluation, split)
    metadata = model.metadata
    labels = [shown_label(label) for label in metadata.class_labels]
    return render(
        "report.html.jinja",
        title=f"{metadata.name} version {metadata.version}",
        subtitle=_subtitle(metadata),
        warnings=metadata.training.warnings,
        class_labels=labels,
        headline=headline(metadata.training, history, evaluation),
        curves=curves_section(history),
        trials=trials_section(sweep),
        confusion=confusion_section(evaluation, labels),
        mistakes=mistakes_section(evaluation, split, metadata.input, labels),
        confidence=confidence_section(evaluation, metadata.training.calibration),
        first_layer=first_layer_section(model.network, metadata.input.shape, labels),
        facts=facts_section(model, evaluation),
    )


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


def _subtitle(metadata: Metadata) -> str:
    training = metadata.training
    return (
        f"A {'-'.join(map(str, metadata.layer_sizes))} network, trained on {training.data_name} by "
        f"the recipe {training.recipe}, {training.created_at.astimezone(UTC):%Y-%m-%d}"
    )
