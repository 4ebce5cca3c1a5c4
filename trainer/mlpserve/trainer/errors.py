"""Errors of the trainer; data and files have errors of their own.

TrainingError            a setting is out of its range, or the training went wrong
|-- CheckpointError      a checkpoint cannot be written, read, or is of another run
|   `-- FolderInUseError another run writes its checkpoints into the folder
`-- NotGoodEnoughError   the network is worse than what was asked for, so it is not published
ExportError              a file cannot be written where, or in the format, that was asked for
StoppedError             a training was told to stop, and can be resumed
"""


class TrainingError(Exception):
    """A setting is out of its range, or the training went wrong; the message says what to do."""


class CheckpointError(TrainingError):
    """A checkpoint cannot be written or read, or is of another run."""


class FolderInUseError(CheckpointError):
    """Another run writes its checkpoints into the folder."""


class NotGoodEnoughError(TrainingError):
    """The network is worse than what was asked for, so it is not published."""


class ExportError(Exception):
    """A file cannot be written where, or in the format, asked for; the message says what to do."""


class StoppedError(Exception):
    """A training was told to stop before its end; a checkpoint was written first."""
