import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DataType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DATA_TYPE_UNSPECIFIED: _ClassVar[DataType]
    DATA_TYPE_UINT8: _ClassVar[DataType]
    DATA_TYPE_FLOAT32: _ClassVar[DataType]

class ExplanationMethod(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EXPLANATION_METHOD_UNSPECIFIED: _ClassVar[ExplanationMethod]
    EXPLANATION_METHOD_GRADIENT_TIMES_INPUT: _ClassVar[ExplanationMethod]
    EXPLANATION_METHOD_INTEGRATED_GRADIENTS: _ClassVar[ExplanationMethod]
DATA_TYPE_UNSPECIFIED: DataType
DATA_TYPE_UINT8: DataType
DATA_TYPE_FLOAT32: DataType
EXPLANATION_METHOD_UNSPECIFIED: ExplanationMethod
EXPLANATION_METHOD_GRADIENT_TIMES_INPUT: ExplanationMethod
EXPLANATION_METHOD_INTEGRATED_GRADIENTS: ExplanationMethod

class ImageBatch(_message.Message):
    __slots__ = ("count", "data_type", "data")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    DATA_TYPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    count: int
    data_type: DataType
    data: bytes
    def __init__(self, count: _Optional[int] = ..., data_type: _Optional[_Union[DataType, str]] = ..., data: _Optional[bytes] = ...) -> None: ...

class PredictRequest(_message.Message):
    __slots__ = ("model_name", "model_version", "images", "model_label", "with_timings", "with_ood_scores")
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    MODEL_LABEL_FIELD_NUMBER: _ClassVar[int]
    WITH_TIMINGS_FIELD_NUMBER: _ClassVar[int]
    WITH_OOD_SCORES_FIELD_NUMBER: _ClassVar[int]
    model_name: str
    model_version: int
    images: ImageBatch
    model_label: str
    with_timings: bool
    with_ood_scores: bool
    def __init__(self, model_name: _Optional[str] = ..., model_version: _Optional[int] = ..., images: _Optional[_Union[ImageBatch, _Mapping]] = ..., model_label: _Optional[str] = ..., with_timings: bool = ..., with_ood_scores: bool = ...) -> None: ...

class PredictResponse(_message.Message):
    __slots__ = ("model_name", "model_version", "probabilities", "labels", "timings", "ood_scores")
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    OOD_SCORES_FIELD_NUMBER: _ClassVar[int]
    model_name: str
    model_version: int
    probabilities: bytes
    labels: bytes
    timings: Timings
    ood_scores: bytes
    def __init__(self, model_name: _Optional[str] = ..., model_version: _Optional[int] = ..., probabilities: _Optional[bytes] = ..., labels: _Optional[bytes] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., ood_scores: _Optional[bytes] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("model_name", "model_version", "images", "model_label", "with_timings", "method", "steps", "classes")
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    MODEL_LABEL_FIELD_NUMBER: _ClassVar[int]
    WITH_TIMINGS_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    model_name: str
    model_version: int
    images: ImageBatch
    model_label: str
    with_timings: bool
    method: ExplanationMethod
    steps: int
    classes: bytes
    def __init__(self, model_name: _Optional[str] = ..., model_version: _Optional[int] = ..., images: _Optional[_Union[ImageBatch, _Mapping]] = ..., model_label: _Optional[str] = ..., with_timings: bool = ..., method: _Optional[_Union[ExplanationMethod, str]] = ..., steps: _Optional[int] = ..., classes: _Optional[bytes] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("model_name", "model_version", "probabilities", "labels", "timings", "attributions", "classes", "logits", "baseline_logits")
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTIONS_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    LOGITS_FIELD_NUMBER: _ClassVar[int]
    BASELINE_LOGITS_FIELD_NUMBER: _ClassVar[int]
    model_name: str
    model_version: int
    probabilities: bytes
    labels: bytes
    timings: Timings
    attributions: bytes
    classes: bytes
    logits: bytes
    baseline_logits: bytes
    def __init__(self, model_name: _Optional[str] = ..., model_version: _Optional[int] = ..., probabilities: _Optional[bytes] = ..., labels: _Optional[bytes] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., attributions: _Optional[bytes] = ..., classes: _Optional[bytes] = ..., logits: _Optional[bytes] = ..., baseline_logits: _Optional[bytes] = ...) -> None: ...

class Timings(_message.Message):
    __slots__ = ("queue_s", "compute_s")
    QUEUE_S_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_S_FIELD_NUMBER: _ClassVar[int]
    queue_s: float
    compute_s: float
    def __init__(self, queue_s: _Optional[float] = ..., compute_s: _Optional[float] = ...) -> None: ...

class PredictStreamRequest(_message.Message):
    __slots__ = ("model_name", "model_version", "images", "model_label", "with_timings", "with_ood_scores")
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    MODEL_LABEL_FIELD_NUMBER: _ClassVar[int]
    WITH_TIMINGS_FIELD_NUMBER: _ClassVar[int]
    WITH_OOD_SCORES_FIELD_NUMBER: _ClassVar[int]
    model_name: str
    model_version: int
    images: ImageBatch
    model_label: str
    with_timings: bool
    with_ood_scores: bool
    def __init__(self, model_name: _Optional[str] = ..., model_version: _Optional[int] = ..., images: _Optional[_Union[ImageBatch, _Mapping]] = ..., model_label: _Optional[str] = ..., with_timings: bool = ..., with_ood_scores: bool = ...) -> None: ...

class PredictStreamResponse(_message.Message):
    __slots__ = ("model_name", "model_version", "probabilities", "labels", "timings", "ood_scores")
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    OOD_SCORES_FIELD_NUMBER: _ClassVar[int]
    model_name: str
    model_version: int
    probabilities: bytes
    labels: bytes
    timings: Timings
    ood_scores: bytes
    def __init__(self, model_name: _Optional[str] = ..., model_version: _Optional[int] = ..., probabilities: _Optional[bytes] = ..., labels: _Optional[bytes] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., ood_scores: _Optional[bytes] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("model_name", "model_version", "model_label")
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    MODEL_LABEL_FIELD_NUMBER: _ClassVar[int]
    model_name: str
    model_version: int
    model_label: str
    def __init__(self, model_name: _Optional[str] = ..., model_version: _Optional[int] = ..., model_label: _Optional[str] = ...) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: Model
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "versions", "max_batch_images", "labels", "default_version", "quarantined_versions", "shadow")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_IMAGES_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_VERSION_FIELD_NUMBER: _ClassVar[int]
    QUARANTINED_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    SHADOW_FIELD_NUMBER: _ClassVar[int]
    name: str
    versions: _containers.RepeatedCompositeFieldContainer[ModelVersion]
    max_batch_images: int
    labels: _containers.RepeatedCompositeFieldContainer[ModelLabel]
    default_version: int
    quarantined_versions: _containers.RepeatedCompositeFieldContainer[QuarantinedVersion]
    shadow: Shadow
    def __init__(self, name: _Optional[str] = ..., versions: _Optional[_Iterable[_Union[ModelVersion, _Mapping]]] = ..., max_batch_images: _Optional[int] = ..., labels: _Optional[_Iterable[_Union[ModelLabel, _Mapping]]] = ..., default_version: _Optional[int] = ..., quarantined_versions: _Optional[_Iterable[_Union[QuarantinedVersion, _Mapping]]] = ..., shadow: _Optional[_Union[Shadow, _Mapping]] = ...) -> None: ...

class Shadow(_message.Message):
    __slots__ = ("label", "version", "compared_images", "agreeing_images", "dropped_images", "failed_images")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    COMPARED_IMAGES_FIELD_NUMBER: _ClassVar[int]
    AGREEING_IMAGES_FIELD_NUMBER: _ClassVar[int]
    DROPPED_IMAGES_FIELD_NUMBER: _ClassVar[int]
    FAILED_IMAGES_FIELD_NUMBER: _ClassVar[int]
    label: str
    version: int
    compared_images: int
    agreeing_images: int
    dropped_images: int
    failed_images: int
    def __init__(self, label: _Optional[str] = ..., version: _Optional[int] = ..., compared_images: _Optional[int] = ..., agreeing_images: _Optional[int] = ..., dropped_images: _Optional[int] = ..., failed_images: _Optional[int] = ...) -> None: ...

class ModelLabel(_message.Message):
    __slots__ = ("label", "version")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    label: str
    version: int
    def __init__(self, label: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class QuarantinedVersion(_message.Message):
    __slots__ = ("version", "reason")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    version: int
    reason: str
    def __init__(self, version: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class ModelVersion(_message.Message):
    __slots__ = ("version", "layer_sizes", "activations", "input_shape", "input_data_types", "class_labels", "training", "value_range", "ood_threshold")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LAYER_SIZES_FIELD_NUMBER: _ClassVar[int]
    ACTIVATIONS_FIELD_NUMBER: _ClassVar[int]
    INPUT_SHAPE_FIELD_NUMBER: _ClassVar[int]
    INPUT_DATA_TYPES_FIELD_NUMBER: _ClassVar[int]
    CLASS_LABELS_FIELD_NUMBER: _ClassVar[int]
    TRAINING_FIELD_NUMBER: _ClassVar[int]
    VALUE_RANGE_FIELD_NUMBER: _ClassVar[int]
    OOD_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    version: int
    layer_sizes: _containers.RepeatedScalarFieldContainer[int]
    activations: _containers.RepeatedScalarFieldContainer[str]
    input_shape: _containers.RepeatedScalarFieldContainer[int]
    input_data_types: _containers.RepeatedScalarFieldContainer[DataType]
    class_labels: _containers.RepeatedScalarFieldContainer[str]
    training: Training
    value_range: ValueRange
    ood_threshold: float
    def __init__(self, version: _Optional[int] = ..., layer_sizes: _Optional[_Iterable[int]] = ..., activations: _Optional[_Iterable[str]] = ..., input_shape: _Optional[_Iterable[int]] = ..., input_data_types: _Optional[_Iterable[_Union[DataType, str]]] = ..., class_labels: _Optional[_Iterable[str]] = ..., training: _Optional[_Union[Training, _Mapping]] = ..., value_range: _Optional[_Union[ValueRange, _Mapping]] = ..., ood_threshold: _Optional[float] = ...) -> None: ...

class ValueRange(_message.Message):
    __slots__ = ("low", "high")
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    low: float
    high: float
    def __init__(self, low: _Optional[float] = ..., high: _Optional[float] = ...) -> None: ...

class Training(_message.Message):
    __slots__ = ("recipe", "seed", "data_name", "data_digest", "train_accuracy", "test_accuracy", "create_time", "warnings")
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    DATA_NAME_FIELD_NUMBER: _ClassVar[int]
    DATA_DIGEST_FIELD_NUMBER: _ClassVar[int]
    TRAIN_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    TEST_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    recipe: str
    seed: int
    data_name: str
    data_digest: str
    train_accuracy: float
    test_accuracy: float
    create_time: _timestamp_pb2.Timestamp
    warnings: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, recipe: _Optional[str] = ..., seed: _Optional[int] = ..., data_name: _Optional[str] = ..., data_digest: _Optional[str] = ..., train_accuracy: _Optional[float] = ..., test_accuracy: _Optional[float] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., warnings: _Optional[_Iterable[str]] = ...) -> None: ...
