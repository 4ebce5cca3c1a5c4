"""The tutorial's own code written out: what the seed recipe is measured against.

It keeps its ways, the slow and the wrong ones too; none of them is to be repeated elsewhere:

- images are columns, and all 60,000 go through the network at once, in float64: no array of it
  stays in the processor's cache;
- tanh is made of exp, which takes four of them, and overflows to NaN from |z| about 709 on;
- softmax subtracts the largest value of the whole batch, not of each image: where an image's own
  values all lie far below that, they all become 0, and it divides 0 by 0;
- the classes become a one-hot matrix, and the cost is the mean over the classes, too.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from mlpserve.datasets import Dataset
from mlpserve.model.inputs import InputSpec
from trainers.tasks import Outcome, Stopwatch, Task

Matrix = npt.NDArray[np.float64]

RANDOM_SEED: Final = 2
WEIGHT_SCALE: Final = 0.1
LOG_OFFSET: Final = 1e-8
LAST_FAST_ITERATION: Final = 75


@dataclass
class Weights:
    """One layer: ``weights`` is (fan_out, fan_in), ``bias`` is (fan_out, 1)."""

    weights: Matrix
    bias: Matrix


def run(task: Task, dataset: Dataset) -> Outcome:
    """Train for all iterations; each computes its cost and its accuracy, as ours does."""
    classes = len(dataset.class_labels)
    images = columns(dataset.train.images)
    one_hot = np.eye(classes)[dataset.train.labels].T
    layers = initial_layers((len(images), *task.hidden_sizes, classes))
    stopwatch, costs = Stopwatch(), []
    for iteration in range(task.epochs + 1):
        outputs = forward(layers, images)
        costs.append(float(-np.mean(one_hot * np.log(outputs[-1] + LOG_OFFSET))))
        np.mean(np.argmax(outputs[-1], axis=0) == dataset.train.labels)
        update(layers, outputs, one_hot, learning_rate(iteration))
        stopwatch.end_epoch()
    found = np.argmax(forward(layers, columns(dataset.test.images))[-1], axis=0)
    return Outcome(stopwatch.seconds(), float(np.mean(found == dataset.test.labels)), costs)


def columns(images: npt.NDArray[np.generic]) -> Matrix:
    """Return images as the columns of a (D, N) matrix, from 0 to 1."""
    scaled = InputSpec(images.shape[1:]).scale(images, np.float64)
    return scaled.astype(np.float64, copy=False).T


def initial_layers(layer_sizes: tuple[int, ...]) -> list[Weights]:
    """Return the layers that ``np.random.seed(2)`` gives."""
    random = np.random.RandomState(RANDOM_SEED)
    return [
        Weights(random.randn(fan_out, fan_in) * WEIGHT_SCALE, np.zeros((fan_out, 1)))
        for fan_in, fan_out in pairwise(layer_sizes)
    ]


def learning_rate(iteration: int) -> float:
    """Return the rate that the published output comes from."""
    return 0.1 if iteration > LAST_FAST_ITERATION else 0.5


def tanh(z: Matrix) -> Matrix:
    """Return tanh, by its definition."""
    outputs: Matrix = (np.exp(z) - np.exp(-z)) / (np.exp(z) + np.exp(-z))
    return outputs


def softmax(z: Matrix) -> Matrix:
    """Return softmax along each column."""
    exponentials: Matrix = np.exp(z - np.max(z))
    probabilities: Matrix = exponentials / np.sum(exponentials, axis=0)
    return probabilities


def forward(layers: list[Weights], images: Matrix) -> list[Matrix]:
    """Return the images and the output of every layer."""
    outputs = [images]
    for layer in layers[:-1]:
        outputs.append(tanh(layer.weights @ outputs[-1] + layer.bias))
    outputs.append(softmax(layers[-1].weights @ outputs[-1] + layers[-1].bias))
    return outputs


def update(layers: list[Weights], outputs: list[Matrix], one_hot: Matrix, rate: float) -> None:
    """Take one step of gradient descent."""
    count = one_hot.shape[1]
    delta = outputs[-1] - one_hot
    for index in reversed(range(len(layers))):
        layer, inputs = layers[index], outputs[index]
        weight_gradient = delta @ inputs.T / count
        bias_gradient = np.sum(delta, axis=1, keepdims=True) / count
        if index > 0:
            delta = layer.weights.T @ delta * (1 - inputs**2)
        layer.weights = layer.weights - rate * weight_gradient
        layer.bias = layer.bias - rate * bias_gradient
