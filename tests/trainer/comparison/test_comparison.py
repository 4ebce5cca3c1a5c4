from dataclasses import replace

import numpy as np
import pytest

from contenders import comparison_of, contender, model_of, split_of
from mlpserve.datasets import DatasetError, Split
from mlpserve.model.inputs import InputSpec, ValueRange
from mlpserve.model.metadata import Metadata
from mlpserve.model.network import Layer, Network
from mlpserve.model.weights import Model
from mlpserve.trainer.comparison.comparison import compare
from mlpserve.trainer.evaluation import confusion_matrix
from mlpserve.trainer.statistics import mcnemar_p_value


def test_counts_are_those_of_going_through_the_images_one_by_one(metadata: Metadata) -> None:
    found = comparison_of(metadata.training)
    tables = {(True, True): 0, (True, False): 0, (False, True): 0, (False, False): 0}
    different = 0
    for truth, first, second in zip(
        found.split.labels, found.said_first.predicted, found.said_second.predicted, strict=True
    ):
        tables[bool(first == truth), bool(second == truth)] += 1
        different += bool(first != second)
    assert min(tables.values()) > 0
    assert found.both_right == tables[True, True]
    assert found.disagreements == (tables[True, False], tables[False, True])
    assert found.both_wrong == tables[False, False]
    assert found.is_different.sum() == different
    assert found.difference == pytest.approx(found.said_second.accuracy - found.said_first.accuracy)
    assert found.p_value == mcnemar_p_value(tables[True, False], tables[False, True])
    assert not found.has_equal_weights
    changes = confusion_matrix(found.said_second) - confusion_matrix(found.said_first)
    assert (found.confusion_changes == changes).all()
    assert changes.sum() == 0


def test_classes_in_another_order_are_the_same_classes(metadata: Metadata) -> None:
    model = model_of(metadata.training)
    last = model.network.layers[-1]
    turned = Layer(last.weights[:, [2, 0, 1]].copy(), last.bias[[2, 0, 1]], last.activation)
    other = Model(
        Network((*model.network.layers[:-1], turned)),
        replace(model.metadata, version=2, class_labels=("bird", "cat", "dog")),
    )
    found = compare(contender(model), contender(other), split_of(model), "pets")
    assert not found.is_different.any()
    assert found.said_second.accuracy == found.said_first.accuracy
    np.testing.assert_allclose(
        found.said_second.probabilities, found.said_first.probabilities, atol=1e-6
    )


def test_flat_images_are_those_of_a_plane(metadata: Metadata) -> None:
    plane, flat = model_of(metadata.training), model_of(metadata.training, version=2, shape=(16,))
    found = compare(contender(plane), contender(flat), split_of(plane), "pets")
    assert not found.is_different.any()
    assert found.has_equal_weights
    assert found.p_value == 1


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (
            {"class_labels": ("cat", "dog", "cow")},
            "classes: expected two versions that tell apart the same ones, but only tiny:1 knows "
            "'bird', only tiny:2 knows 'cow'",
        ),
        (
            {"class_labels": ("cat", "dog", "bird", *"abcdef")},
            "classes: expected two versions that tell apart the same ones, but only tiny:2 knows "
            "'a', 'b', 'c', 'd', 'e' and 1 more",
        ),
        (
            {"shape": (2, 8)},
            "images: expected two versions that take the same ones, but tiny:1 takes 4 x 4 values, "
            "tiny:2 2 x 8",
        ),
        (
            {"shape": (15,)},
            "images: expected two versions that take the same ones, but tiny:1 takes 4 x 4 values, "
            "tiny:2 15",
        ),
    ],
    ids=["other classes", "more classes", "other shape", "other size"],
)
def test_versions_for_different_questions_are_refused(
    metadata: Metadata, changed: dict[str, tuple[int, ...]], sentence: str
) -> None:
    first = model_of(metadata.training)
    second = model_of(metadata.training, version=2, **changed)  # type: ignore[arg-type] # one of two
    with pytest.raises(DatasetError) as refused:
        compare(contender(first), contender(second), split_of(first), "pets")
    assert str(refused.value) == sentence


def test_version_that_cannot_take_the_values_is_named(metadata: Metadata) -> None:
    first, second = (model_of(metadata.training, version=version) for version in (1, 2))
    spec = InputSpec((4, 4), value_range=ValueRange(0, 16))
    narrow = Model(second.network, replace(second.metadata, input=spec))
    with pytest.raises(DatasetError, match="^tiny:2: images: expected uint8 values from 0 to 16"):
        compare(contender(first), contender(narrow), split_of(first), "pets")


def test_labels_beyond_the_classes_are_refused(metadata: Metadata) -> None:
    first, second = (model_of(metadata.training, version=version) for version in (1, 2))
    split = split_of(first)
    beyond = Split(split.images, split.labels + 1)
    with pytest.raises(DatasetError, match="^tiny:1: labels: the network knows 3 classes"):
        compare(contender(first), contender(second), beyond, "pets")
