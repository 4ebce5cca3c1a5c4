"""Reliability of probabilities: how far those of a network are from how often it is right."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from mlpserve.trainer.evaluation import Evaluation

CALIBRATION_BINS: Final = 15  # as in the figures of Guo et al.


@dataclass(frozen=True)
class ReliabilityBin:
    """The images whose confidence is in one range: how sure the network was, how often right.

    Attributes:
        lower: The range's lower end, which is not in it.
        upper: The range's upper end, which is.
        count: How many images there are, at least 1.
        confidence: Their mean confidence, 0 to 1.
        accuracy: The share of them classified rightly, 0 to 1.
    """

    lower: float
    upper: float
    count: int
    confidence: float
    accuracy: float


def reliability(evaluation: Evaluation) -> list[ReliabilityBin]:
    """Return the confidences in 15 ranges of equal width; ranges without an image are left out."""
    confidences = evaluation.confidences.astype(np.float64)
    # Range m holds what is above m / 15 and up to (m + 1) / 15.
    ranges = np.clip(np.ceil(confidences * CALIBRATION_BINS).astype(int) - 1, 0, None)
    counts = np.bincount(ranges, minlength=CALIBRATION_BINS)
    confidence_sums = np.bincount(ranges, confidences, CALIBRATION_BINS)
    right = np.bincount(ranges[evaluation.is_right], minlength=CALIBRATION_BINS)
    return [
        ReliabilityBin(
            lower=index / CALIBRATION_BINS,
            upper=(index + 1) / CALIBRATION_BINS,
            count=int(counts[index]),
            confidence=float(confidence_sums[index] / counts[index]),
            accuracy=float(right[index] / counts[index]),
        )
        for index in np.flatnonzero(counts).tolist()
    ]


def expected_calibration_error(evaluation: Evaluation) -> float:
    """Return how far confidence and accuracy are apart, 0 to 1; 0 is perfectly calibrated.

    With B_m the images of range m of ``reliability``, and N all images:

        ECE = sum_m |B_m| / N * |accuracy(B_m) - confidence(B_m)|

    Source: Guo et al., On Calibration of Modern Neural Networks (2017), section 2.
    """
    return sum(
        part.count / len(evaluation) * abs(part.accuracy - part.confidence)
        for part in reliability(evaluation)
    )


def brier_score(evaluation: Evaluation) -> float:
    """Return the mean squared distance of the probabilities from the truth; 0 is perfect, 2 worst.

    With p_ik the probability of class k for image i, and y_ik 1 for its true class and 0 elsewhere:

        BS = 1/N sum_i sum_k (p_ik - y_ik)^2 = 1/N sum_i (sum_k p_ik^2 - 2 p_i,truth + 1)

    Source: Brier, Verification of Forecasts Expressed in Terms of Probability (1950), equation 2.
    """
    probabilities = evaluation.probabilities
    squares = np.einsum("ik,ik->i", probabilities, probabilities, dtype=np.float64)
    return float((squares - 2 * evaluation.of_truth.astype(np.float64) + 1).mean())
