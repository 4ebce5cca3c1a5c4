import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpserve.datasets import DatasetError, Split
from mlpserve.model.inputs import InputSpec
from mlpserve.model.network import Layer, Network
from mlpserve.trainer.evaluation import (
    Confusion,
    Evaluation,
    confusion_matrix,
    confusions,
    evaluate,
    most_confident_mistakes,
    precisions,
    recalls,
    scores,
)
from mlpserve.trainer.reliability import (
    ReliabilityBin,
    brier_score,
    expected_calibration_error,
    reliability,
)

IDENTITY = Network((Layer(np.eye(2, dtype=np.float32), np.zeros(2, np.float32), "softmax"),))


def said(*rows: tuple[float, ...], labels: list[int]) -> Evaluation:
    return Evaluation(np.array(rows, np.float32), np.array(labels))


def by_hand() -> Evaluation:
    """Return five images of classes 0, 0, 1, 1, 1 of four; classes 2 and 3 have none.

    They are taken for 0, 1, 1, 0, 2 with confidences 0.9, 0.6, 0.8, 0.7, 0.5.
    """
    return said(
        (0.9, 0.1, 0.0, 0.0),
        (0.4, 0.6, 0.0, 0.0),
        (0.2, 0.8, 0.0, 0.0),
        (0.7, 0.25, 0.05, 0.0),
        (0.25, 0.25, 0.5, 0.0),
        labels=[0, 0, 1, 1, 1],
    )


@st.composite
def evaluations(draw: st.DrawFn) -> Evaluation:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    count, classes = draw(st.integers(1, 60)), draw(st.integers(1, 7))
    sharpness = draw(st.sampled_from([0.1, 1.0, 10.0, 300.0]))
    exponentials = np.exp(sharpness * rng.uniform(-1, 0, (count, classes)))
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    return Evaluation(probabilities.astype(np.float32), rng.integers(0, classes, count))


def split_of_two_classes(count: int) -> Split:
    """Return images that ``IDENTITY`` takes for 0, 1, 0, 1, ...; all are of class 0."""
    images = np.resize(np.array([[[255, 0]], [[0, 255]]], np.uint8), (count, 1, 2))
    return Split(images, np.zeros(count, np.int64))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_evaluation_is_what_the_network_says_of_all_images_at_once(dtype: Any) -> None:
    split = split_of_two_classes(2500)  # more than are run at a time
    network = IDENTITY.astype(dtype)
    evaluation = evaluate(network, InputSpec((1, 2)), split)
    expected = network.probabilities(InputSpec((1, 2)).scale(split.images, dtype))
    assert evaluation.probabilities.dtype == np.float32
    np.testing.assert_allclose(evaluation.probabilities, expected, rtol=1e-6)
    assert len(evaluation) == 2500
    assert evaluation.accuracy == 0.5


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scores_are_the_figures_of_an_evaluation_to_the_bit(dtype: Any) -> None:
    rng = np.random.default_rng(3)
    split = Split(rng.integers(0, 256, (2500, 1, 2), np.uint8), rng.integers(0, 2, 2500))
    network, spec = IDENTITY.astype(dtype), InputSpec((1, 2))
    evaluation, found = evaluate(network, spec, split), scores(network, spec, split)
    assert found.accuracy == evaluation.accuracy
    assert found.cross_entropy == evaluation.cross_entropy


def test_figures_worked_by_hand() -> None:
    evaluation = by_hand()
    assert evaluation.predicted.tolist() == [0, 1, 1, 0, 2]
    assert evaluation.accuracy == 2 / 5
    expected = -sum(math.log(p) for p in (0.9, 0.4, 0.8, 0.25, 0.25)) / 5
    assert evaluation.cross_entropy == pytest.approx(expected, rel=1e-6)
    assert confusion_matrix(evaluation).tolist() == [
        [1, 1, 0, 0],
        [1, 1, 1, 0],
        [0, 0, 0, 0],
        [0, 0, 0, 0],
    ]
    assert confusions(evaluation) == [Confusion(0, 1, 1), Confusion(1, 0, 1), Confusion(1, 2, 1)]


def test_a_precision_or_recall_of_nothing_is_not_a_number() -> None:
    # Taken for 0: two, one rightly. For 1: two, one rightly. For 2: one, wrongly. For 3: none.
    np.testing.assert_array_equal(precisions(by_hand()), [0.5, 0.5, 0, np.nan])
    # Of class 0: two, one found. Of class 1: three, one found. Of 2 and 3: none.
    np.testing.assert_array_equal(recalls(by_hand()), [0.5, 1 / 3, np.nan, np.nan])


def test_the_most_frequent_confusion_comes_first() -> None:
    evaluation = said((0, 1, 0), (0, 0, 1), (0, 0, 1), labels=[0, 1, 1])
    assert confusions(evaluation) == [Confusion(1, 2, 2), Confusion(0, 1, 1)]


def test_the_most_confident_mistakes_come_first_and_equal_ones_in_their_order() -> None:
    assert most_confident_mistakes(by_hand(), 9).tolist() == [3, 1, 4]
    assert most_confident_mistakes(by_hand(), 2).tolist() == [3, 1]
    equal = said((0, 1), (0, 1), (1, 0), labels=[0, 0, 0])
    assert most_confident_mistakes(equal, 9).tolist() == [0, 1]


def test_a_network_without_mistakes_has_none() -> None:
    evaluation = said((1, 0), labels=[0])
    assert confusions(evaluation) == []
    assert most_confident_mistakes(evaluation, 9).tolist() == []


def test_calibration_worked_by_hand() -> None:
    # Ranges are 1/15 wide. 0.68 and 0.70 are in the eleventh, from 0.667 to 0.733; one of the two
    # is right. 0.95 and 1 are in the last; both are right.
    #   ECE = 2/4 |1/2 - 0.69| + 2/4 |1 - 0.975| = 0.095 + 0.0125
    evaluation = said((0.68, 0.32), (0.7, 0.3), (0.95, 0.05), (1, 0), labels=[0, 1, 0, 0])
    middle, last = reliability(evaluation)
    assert middle == ReliabilityBin(10 / 15, 11 / 15, 2, middle.confidence, 0.5)
    assert last == ReliabilityBin(14 / 15, 1.0, 2, last.confidence, 1.0)
    assert [middle.confidence, last.confidence] == pytest.approx([0.69, 0.975])
    assert expected_calibration_error(evaluation) == pytest.approx(0.1075)


def test_a_network_that_is_sure_and_always_wrong_is_as_badly_calibrated_as_can_be() -> None:
    assert expected_calibration_error(said((1, 0), (1, 0), labels=[1, 1])) == 1


def test_brier_score_worked_by_hand() -> None:
    # Squared distances: 0.2^2 + 0.2^2 = 0.08 from (1, 0), and 0.7^2 + 0.7^2 = 0.98 from (0, 1).
    assert brier_score(said((0.8, 0.2), (0.7, 0.3), labels=[0, 1])) == pytest.approx(0.53)
    assert brier_score(said((1, 0), labels=[0])) == 0
    assert brier_score(said((1, 0), labels=[1])) == 2


@given(evaluation=evaluations())
def test_brier_score_is_the_mean_squared_distance_from_the_truth(evaluation: Evaluation) -> None:
    truth = np.eye(evaluation.class_count)[evaluation.labels]
    distances = ((evaluation.probabilities.astype(np.float64) - truth) ** 2).sum(axis=1)
    assert brier_score(evaluation) == pytest.approx(distances.mean(), abs=1e-6)


@given(evaluation=evaluations())
def test_calibration_error_is_a_share_and_every_image_is_in_one_range(
    evaluation: Evaluation,
) -> None:
    assert 0 <= expected_calibration_error(evaluation) <= 1
    parts = reliability(evaluation)
    assert sum(part.count for part in parts) == len(evaluation)
    for part in parts:
        assert part.lower - 1e-6 < part.confidence < part.upper + 1e-6


@given(evaluation=evaluations())
def test_all_counts_of_one_evaluation_agree(evaluation: Evaluation) -> None:
    matrix = confusion_matrix(evaluation)
    right = np.diagonal(matrix)
    assert matrix.sum() == len(evaluation)
    assert right.sum() == round(evaluation.accuracy * len(evaluation))
    assert sum(confusion.count for confusion in confusions(evaluation)) == (
        matrix.sum() - right.sum()
    )
    for confusion in confusions(evaluation):
        assert matrix[confusion.truth, confusion.predicted] == confusion.count
    for shares, totals in (
        (precisions(evaluation), matrix.sum(axis=0)),
        (recalls(evaluation), matrix.sum(axis=1)),
    ):
        assert np.isnan(shares).tolist() == (totals == 0).tolist()
        np.testing.assert_allclose(np.nan_to_num(shares) * totals, right)


@given(evaluation=evaluations())
def test_cross_entropy_is_finite_however_sure_the_network_is(evaluation: Evaluation) -> None:
    # A little below 0 where all are surely right: the offset makes 1 a little more than 1.
    assert -1e-7 < evaluation.cross_entropy <= -math.log(1e-8) + 1e-9


@pytest.mark.parametrize(
    ("shape", "labels", "message"),
    [
        ((3, 1, 3), [0, 0, 0], r"images: the network takes images of \(1, 2\), got \(1, 3\)"),
        ((3, 1, 2), [0, 1, 2], "labels: the network knows 2 classes, from 0, but a label is 2"),
    ],
    ids=["images", "labels"],
)
def test_a_split_that_is_not_the_networks_is_refused(
    shape: tuple[int, ...], labels: list[int], message: str
) -> None:
    split = Split(np.zeros(shape, np.uint8), np.array(labels))
    with pytest.raises(DatasetError, match=message):
        evaluate(IDENTITY, InputSpec((1, 2)), split)


def test_labels_that_are_not_one_for_each_image_are_refused() -> None:
    probabilities: npt.NDArray[np.float32] = np.ones((3, 1), np.float32)
    with pytest.raises(DatasetError, match=r"labels: expected one for each of the 3 images"):
        Evaluation(probabilities, np.zeros(2, np.int64))
