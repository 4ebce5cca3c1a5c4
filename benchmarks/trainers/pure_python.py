"""The seed recipe with lists of floats and loops over them, without NumPy.

60,000 images would take minutes, so the gradients of the first hundred are timed and scaled to all;
the update of the parameters, once an iteration, is timed apart and not scaled.
"""

import math
import time
from typing import Final

from mlpserve.datasets import Dataset
from trainers.tasks import Outcome, Task
from trainers.tutorial import LOG_OFFSET, columns, initial_layers, learning_rate

Vector = list[float]
Matrix = list[Vector]
Layer = tuple[Matrix, Vector]  # weights (fan_out, fan_in), bias (fan_out,)

_IMAGES: Final = 100


def run(task: Task, dataset: Dataset) -> Outcome:
    """Train on the first images; the seconds are those that all images would take."""
    images: Matrix = columns(dataset.train.images[:_IMAGES]).T.tolist()
    labels: list[int] = dataset.train.labels[:_IMAGES].tolist()
    layer_sizes = (len(images[0]), *task.hidden_sizes, len(dataset.class_labels))
    layers: list[Layer] = [
        (layer.weights.tolist(), layer.bias[:, 0].tolist()) for layer in initial_layers(layer_sizes)
    ]
    scale = len(dataset.train) / len(images)
    seconds, costs = [], []
    for iteration in range(task.epochs + 1):
        started = time.perf_counter()
        cost, gradients = cost_and_gradients(layers, images, labels)
        between = time.perf_counter()
        layers = _updated(layers, gradients, learning_rate(iteration) / len(images))
        seconds.append((between - started) * scale + time.perf_counter() - between)
        costs.append(cost)
    return Outcome(seconds[1:], costs=costs)


def cost_and_gradients(
    layers: list[Layer], images: Matrix, labels: list[int]
) -> tuple[float, list[Layer]]:
    """Return the tutorial's cost, and the sums over the images of all gradients."""
    gradients = [
        ([[0.0] * len(row) for row in weights], [0.0] * len(bias)) for weights, bias in layers
    ]
    cost = 0.0
    for image, label in zip(images, labels, strict=True):
        outputs = _forward(layers, image)
        cost -= math.log(outputs[-1][label] + LOG_OFFSET)
        _add_gradients(gradients, layers, outputs, label)
    classes = len(layers[-1][1])
    return cost / len(images) / classes, gradients


def _forward(layers: list[Layer], image: Vector) -> list[Vector]:
    outputs = [image]
    for number, (weights, bias) in enumerate(layers, start=1):
        sums = [
            sum(weight * value for weight, value in zip(row, outputs[-1], strict=True)) + offset
            for row, offset in zip(weights, bias, strict=True)
        ]
        is_last = number == len(layers)
        outputs.append(_softmax(sums) if is_last else [math.tanh(value) for value in sums])
    return outputs


def _softmax(sums: Vector) -> Vector:
    largest = max(sums)
    exponentials = [math.exp(value - largest) for value in sums]
    total = sum(exponentials)
    return [exponential / total for exponential in exponentials]


def _add_gradients(
    gradients: list[Layer], layers: list[Layer], outputs: list[Vector], label: int
) -> None:
    """Add the gradients of one image; the formulas are those of ``learning/plain.py``."""
    delta = list(outputs[-1])
    delta[label] -= 1
    for index in reversed(range(len(layers))):
        weight_gradient, bias_gradient = gradients[index]
        inputs = outputs[index]
        for unit, error in enumerate(delta):
            row = weight_gradient[unit]
            for position, value in enumerate(inputs):
                row[position] += error * value
            bias_gradient[unit] += error
        if index > 0:
            delta = _delta_before(layers[index][0], delta, inputs)


def _delta_before(weights: Matrix, delta: Vector, outputs: Vector) -> Vector:
    return [
        sum(row[unit] * error for row, error in zip(weights, delta, strict=True)) * (1 - output**2)
        for unit, output in enumerate(outputs)
    ]


def _updated(layers: list[Layer], gradients: list[Layer], rate: float) -> list[Layer]:
    return [
        (
            [_stepped(row, slopes, rate) for row, slopes in zip(weights, rows, strict=True)],
            _stepped(bias, bias_slopes, rate),
        )
        for (weights, bias), (rows, bias_slopes) in zip(layers, gradients, strict=True)
    ]


def _stepped(values: Vector, slopes: Vector, rate: float) -> Vector:
    return [value - rate * slope for value, slope in zip(values, slopes, strict=True)]
