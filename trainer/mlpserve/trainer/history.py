"""History of a training run: a record for each epoch, which learning curves are drawn from."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EpochRecord:
    """The findings of one epoch; a list of these is the history of a run.

    Attributes:
        epoch: The index of the epoch, from 0.
        learning_rate: The learning rate of the epoch's last step.
        train_loss: The mean cross-entropy of the training images, in nats, each image judged just
            before the step that learned from it.
        train_accuracy: The share of these classified rightly, 0 to 1.
        validation_loss: The mean cross-entropy of the validation split after the epoch, in nats;
            None without such a split.
        validation_accuracy: The share of it classified rightly, 0 to 1; None without one.
        elapsed_s: Seconds from the start of the training to the end of the epoch.
        images_per_s: Training images per second of this epoch.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    train_accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None
    elapsed_s: float
    images_per_s: float
