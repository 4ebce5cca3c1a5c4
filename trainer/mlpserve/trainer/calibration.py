"""Temperature scaling: probabilities that mean what they say.

A network that was trained for long is less often right than it is sure. So its logits z, the
weighted sums of the last layer, are divided by one temperature T, which is fitted on images that
the network did not learn from:

    probabilities = softmax(z / T)

T above 1 makes the network less sure, T below 1 surer; the order of the classes stays.
Source: Guo et al., On Calibration of Modern Neural Networks (2017), section 4.2.
"""

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mlpserve.datasets import Split
from mlpserve.model.activations import FloatArray, softmax
from mlpserve.model.inputs import InputSpec
from mlpserve.model.metadata import Calibration
from mlpserve.model.network import Layer, Network
from mlpserve.trainer.errors import TrainingError
from mlpserve.trainer.evaluation import Evaluation, evaluate, input_chunks
from mlpserve.trainer.learning.backprop import Labels
from mlpserve.trainer.reliability import expected_calibration_error

MIN_TEMPERATURE: Final = 0.05
MAX_TEMPERATURE: Final = 20.0
# One number is fitted to them, so more would only take memory: some five arrays of 64 MB.
_MAX_LOGITS: Final = 8 * 1024**2
_TOLERANCE: Final = 1e-9  # of 1 / T
_MAX_STEPS: Final = 100  # halving the range of 1 / T alone would need 35


def calibrate(
    network: Network, spec: InputSpec, *, validation: Split, test: Split
) -> tuple[Network, Calibration]:
    """Return the network with calibrated probabilities, and what that came to.

    Args:
        network: The trained network; not changed.
        spec: What it takes.
        validation: What the temperature is fitted on, or every so many of these images where they
            are very many; the network must not have learned from it.
        test: What the calibration errors are measured on.

    Raises:
        DatasetError: The images of a split are not the network's.
    """
    step = -(-len(validation) * network.layer_sizes[-1] // _MAX_LOGITS)
    fitted = validation if step == 1 else validation.select(np.arange(0, len(validation), step))
    temperature = fit_temperature(logits(network, spec, fitted), fitted.labels)
    calibrated = with_temperature(network, temperature)
    before, after = (
        expected_calibration_error(evaluate(each, spec, test)) for each in (network, calibrated)
    )
    return calibrated, Calibration(temperature, before, after)


def logits(network: Network, spec: InputSpec, split: Split) -> FloatArray:
    """Return the (N, K) weighted sums of the last layer for all images of a split.

    Raises:
        DatasetError: The images of the split are not the network's.
    """
    *hidden, last = network.layers
    chunks = []
    for _, outputs in input_chunks(network, spec, split):
        for layer in hidden:
            outputs = layer.forward(outputs)
        chunks.append(outputs @ last.weights + last.bias)
    return np.concatenate(chunks)


def fit_temperature(logits: FloatArray, labels: Labels) -> float:
    """Return the temperature from 0.05 to 20 with the lowest mean cross-entropy.

    Where no image has a more probable class than its true one, the cross-entropy only gets lower
    the surer the network is, and tells nothing of how sure it may be; then the answer is 1.

    With s = 1 / T and p = softmax(s z), an image with logits z and the true class c costs

        l(s)   = log sum_k exp(s z_k) - s z_c
        l'(s)  = sum_k p_k z_k - z_c                         the mean of z under p, less z_c
        l''(s) = sum_k p_k z_k^2 - (sum_k p_k z_k)^2         the variance of z under p

    A variance is at least 0, so the mean cost is convex in s, and lowest where its slope, which
    never falls, is 0. Newton's steps find that place; one that would leave the range in which the
    slope changes its sign is replaced by half of that range.

    Args:
        logits: (N, K), finite, N at least 1.
        labels: (N,) true classes, each from 0 to K - 1.
    """
    of_truth = logits[np.arange(len(labels)), labels].astype(np.float64)
    # What is subtracted from all of a row cancels out; so z_c becomes 0, and the slope simpler.
    relative = logits - of_truth[:, np.newaxis]
    if relative.max() <= 0:
        return 1.0
    low, high = 1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE
    if _slope_and_curvature(relative, low)[0] >= 0:
        return MAX_TEMPERATURE
    if _slope_and_curvature(relative, high)[0] <= 0:
        return MIN_TEMPERATURE
    return 1 / _root(relative, low, high)


def with_temperature(network: Network, temperature: float) -> Network:
    """Return a network whose probabilities are those of this one at a temperature.

    With the last layer's inputs a, weights W and bias b, ``softmax((a W + b) / T)`` is
    ``softmax(a (W / T) + b / T)``: dividing the parameters is all, and whoever runs the network
    need not know of it. Dividing all logits of an image by one positive number keeps their order,
    so the most probable class stays. Only where two probabilities are equal to within the rounding
    of the network's dtype may rounding decide otherwise than before.

    Raises:
        TrainingError: The temperature is not positive and finite.
    """
    if not (temperature > 0 and math.isfinite(temperature)):
        raise TrainingError(f"temperature: expected above 0, got {temperature}")
    *hidden, last = network.layers
    divided = Layer(last.weights / temperature, last.bias / temperature, last.activation)
    return Network((*hidden, divided))


def without_temperature(evaluation: Evaluation, temperature: float) -> Evaluation:
    """Return what a network would have said without its temperature.

    ``p = softmax(z / T)`` means ``log p = z / T - c`` with one c for each image. So ``T log p`` is
    ``z - T c``, and because what is subtracted from all of a row cancels out, its softmax is that
    of z.
    """
    with np.errstate(divide="ignore"):  # of a probability of 0: log 0 is -inf, and exp(-inf) is 0
        logarithms = np.log(evaluation.probabilities.astype(np.float64))
    probabilities = softmax(temperature * logarithms).astype(np.float32)
    return Evaluation(probabilities, evaluation.labels)


def _root(logits: npt.NDArray[np.float64], low: float, high: float) -> float:
    """Return where the slope is 0; it is below 0 at ``low`` and above at ``high``."""
    position = 1.0
    for _ in range(_MAX_STEPS):
        slope, curvature = _slope_and_curvature(logits, position)
        low, high = (position, high) if slope < 0 else (low, position)
        target = position - slope / curvature if curvature > 0 else math.inf
        # Written so that a step to nowhere, NaN or infinite, is replaced as well.
        target = target if low < target < high else (low + high) / 2
        if abs(target - position) <= _TOLERANCE:
            break
        position = target
    return position


def _slope_and_curvature(
    logits: npt.NDArray[np.float64], inverse_temperature: float
) -> tuple[float, float]:
    """Return l' and l'' of ``fit_temperature``, each the mean of the rows."""
    probabilities: npt.NDArray[Any] = softmax(inverse_temperature * logits)
    weighted = probabilities * logits
    means = weighted.sum(axis=1)
    variances = (weighted * logits).sum(axis=1) - means**2
    return float(means.mean()), float(variances.mean())
