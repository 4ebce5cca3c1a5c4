"""Events of a job around its publication: what is published already, kept, or new."""

from mlpserve.model.folder import is_model_name, versions
from mlpserve.model.weights import Model
from mlpserve.trainer.config import JobConfig
from mlpserve.trainer.descriptions import comparison_command, describe_version
from mlpserve.trainer.errors import TrainingError
from mlpserve.trainer.progress import Display
from mlpserve.trainer.publication import REPORT_FILE_NAME


def is_published(config: JobConfig, display: Display) -> bool:
    """Return whether the model has a version, for ``--unless-published``, and show it if so.

    Raises:
        TrainingError: There is no name to look for.
    """
    if config.name is None:
        raise TrainingError("--unless-published: expected --name, to know which model to look for")
    published = versions(config.models, model_name(config.name))
    if published:
        model = config.models / config.name
        display.event(
            "nothing-to-do",
            f"nothing to do: {model} has version {published[0]}",
            model=config.name,
            version=published[0],
        )
    return bool(published)


def show_kept(config: JobConfig, display: Display) -> None:
    """Show that nothing was published, and how it can be."""
    display.event(
        "kept",
        f"published nothing; the same without --no-publish and with --resume publishes what "
        f"{config.checkpoint_folder} holds",
        checkpoint=config.checkpoint_folder,
    )


def show_published(model: Model, config: JobConfig, display: Display) -> None:
    """Show what was published, and how it can be compared to what was there before."""
    metadata = model.metadata
    folder = config.models / metadata.name / str(metadata.version)
    report = folder / REPORT_FILE_NAME
    has_report = report.exists()
    display.event(
        "published",
        describe_version(model, config.models) + (f"; see {report}" if has_report else ""),
        model=metadata.name,
        version=metadata.version,
        folder=folder,
        train_accuracy=metadata.training.train_accuracy,
        validation_accuracy=metadata.training.validation_accuracy,
        test_accuracy=metadata.training.test_accuracy,
        report=report if has_report else None,
    )
    before = [each for each in versions(config.models, metadata.name) if each < metadata.version]
    if before:
        command = comparison_command(metadata, before[0], config)
        text = f"is it better than version {before[0]}? {command}"
        display.event("comparable", text, command=command)


def model_name(name: str) -> str:
    """Return the name of a model, if it may be one.

    Raises:
        TrainingError: It may not.
    """
    if not is_model_name(name):
        raise TrainingError(
            "name: expected 1 to 64 letters, digits, '.', '_' or '-', a letter or digit first, got "
            f"{name!r}; choose one with --name"
        )
    return name
