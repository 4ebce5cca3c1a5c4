"""Errors of models, one class for each reaction of the caller.

ModelError
|-- NetworkError        the layers do not make a network: mend what builds it
|-- ValueRangeError     no range of values for images: name another
|-- WeightsFileError    this file cannot be used: publish the version anew
|-- LabelsFileError     the labels cannot be read: mend the file, or delete it and set them anew
|-- NoVersionError      nothing has this name: name something else
|-- ImagesError         the model does not take these images: mend them
|-- ModelsFolderError   the folder cannot be read or written: mend the folder or its rights
|-- SyncError           the URL or the folder cannot be synchronised: name another, or install more
`-- StoreError          an object store is away, or refuses something: try again later
"""


class ModelError(Exception):
    """A model cannot be used; the message says what was expected and what came."""


class NetworkError(ModelError):
    """The layers do not make a network."""


class ValueRangeError(ModelError):
    """A lowest and a highest value make no range that images could be scaled by."""


class WeightsFileError(ModelError):
    """A weights file is damaged, foreign, or does not describe a network."""


class LabelsFileError(ModelError):
    """The labels of a model are damaged, or cannot be read."""


class NoVersionError(ModelError):
    """A model, version or label is not there, or may not be called so."""


class ImagesError(ModelError):
    """A model does not take these images."""


class ModelsFolderError(ModelError):
    """A models folder cannot be read or written."""


class SyncError(ModelError):
    """No folder can be kept equal to this URL, or not this folder."""


class StoreError(ModelError):
    """An object store is away, refuses something, or does not hold what it listed."""
