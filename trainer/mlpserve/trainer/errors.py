"""What the trainer itself refuses; data and files have errors of their own."""


class TrainingError(Exception):
    """A setting is out of its range, or the training went wrong; the message says what to do."""


class ExportError(Exception):
    """A version cannot be written in another format; the message says what to do."""
