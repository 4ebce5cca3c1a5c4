"""The algorithm on one page: a network of any number of layers and its training, in plain NumPy.

    x -> z = x W + b -> a = tanh(z) -> z = a W + b -> ... -> p = softmax(z) -> loss = -log p[class]

``python -m mlpserve.trainer.learning.plain --data mnist`` trains the tutorial's 784-16-16-10 and
prints its table. ``mlpserve-train`` does the same faster, in ``backprop`` and ``training``; its
gradients are tested against those of this page.

Shapes: N images of D values, K classes; a layer turns fan_in values into fan_out.
"""

import argparse
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from mlpserve.datasets import DatasetError, load_dataset
from mlpserve.datasets.flags import add_data_dir
from mlpserve.datasets.source import DATA_HELP
from mlpserve.model.inputs import InputSpec

Array: TypeAlias = npt.NDArray[np.floating[Any]]
Labels: TypeAlias = npt.NDArray[np.int64]
Layer: TypeAlias = tuple[Array, Array]  # W (fan_in, fan_out), b (fan_out,)

LAST_FAST_ITERATION: Final = 75

# Each activation a = f(z) of the hidden layers, and its derivative f'(z) written in terms of a.
ACTIVATIONS: Final[dict[str, Any]] = {
    "tanh": (np.tanh, lambda a: 1 - a**2),
    "relu": (lambda z: np.maximum(z, 0), lambda a: a > 0),
    "sigmoid": (lambda z: 1 / (1 + np.exp(-z)), lambda a: a * (1 - a)),
}


def initialize(layer_sizes: Sequence[int], seed: int) -> list[Layer]:
    """Return layers with small random weights, so that they differ, and biases of 0."""
    random = np.random.RandomState(seed)  # the numbers of the tutorial's np.random.seed
    return [
        # The tutorial has images as columns, so it draws its matrices the other way round.
        (0.1 * random.randn(fan_out, fan_in).T, np.zeros(fan_out))  # (fan_in, fan_out), (fan_out,)
        for fan_in, fan_out in pairwise(layer_sizes)
    ]


def softmax(z: Array) -> Array:
    """Return exp(z) / sum(exp(z)) of each row: probabilities."""
    # What is subtracted from all of a row cancels out; so no exponent is above 0.
    exponentials = np.exp(z - z.max(axis=1, keepdims=True))  # (N, K)
    probabilities: Array = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities


def forward(layers: list[Layer], images: Array, activation: str = "tanh") -> list[Array]:
    """Return the images, the outputs of each hidden layer, and last the probabilities."""
    function, _ = ACTIVATIONS[activation]
    outputs = [images]  # (N, D)
    for weights, bias in layers[:-1]:
        outputs.append(function(outputs[-1] @ weights + bias))  # (N, fan_out)
    weights, bias = layers[-1]
    outputs.append(softmax(outputs[-1] @ weights + bias))  # (N, K)
    return outputs


def loss(probabilities: Array, labels: Labels) -> float:
    """Return the mean cross-entropy: -log of the true class's probability, which is kept off 0."""
    of_truth = probabilities[np.arange(len(labels)), labels]  # (N,)
    return float(-np.log(of_truth + 1e-8).mean())


def backward(
    layers: list[Layer], outputs: list[Array], labels: Labels, activation: str = "tanh"
) -> list[Layer]:
    """Return the derivative of the loss with respect to each layer's weights and bias."""
    _, derivative = ACTIVATIONS[activation]
    count, classes = outputs[-1].shape
    # delta is the derivative of the loss with respect to a layer's z. The last layer: of an image
    # of class c, log p_c = z_c - log(sum_k exp(z_k)), so d(-log p_c) / dz_j = p_j - [j = c]. The
    # loss is the mean of N of these.
    delta = (outputs[-1] - np.eye(classes)[labels]) / count  # (N, K)
    gradients: list[Layer] = []
    for index in reversed(range(len(layers))):
        # z = a W + b, where a are the outputs before: each image adds a_i delta_j to the derivative
        # of W_ij, and delta_j to that of b_j.
        gradients.append((outputs[index].T @ delta, delta.sum(axis=0)))  # shapes of W and b
        if index > 0:
            # The chain rule, through z_j = sum_i a_i W_ij and then through a_i = f(z_i) before it.
            weights, _ = layers[index]
            delta = delta @ weights.T * derivative(outputs[index])  # (N, fan_in)
    return gradients[::-1]


def update(layers: list[Layer], gradients: list[Layer], learning_rate: float) -> list[Layer]:
    """Return the layers after a step downhill: against the gradient."""
    return [
        (weights - learning_rate * weight_gradient, bias - learning_rate * bias_gradient)
        for (weights, bias), (weight_gradient, bias_gradient) in zip(layers, gradients, strict=True)
    ]


def train(
    images: Array,
    labels: Labels,
    *,
    hidden_sizes: Sequence[int] = (16, 16),
    activation: str = "tanh",
    iterations: int = 150,
    seed: int = 2,
) -> list[Layer]:
    """Return the layers that the tutorial's gradient descent comes to, all images in each step."""
    classes = int(labels.max()) + 1
    layers = initialize((images.shape[1], *hidden_sizes, classes), seed)
    for iteration in range(iterations):
        outputs = forward(layers, images, activation)
        if iteration % 10 == 0:
            cost = loss(outputs[-1], labels) / classes  # the tutorial's mean is over classes, too
            accuracy = 100 * np.mean(outputs[-1].argmax(axis=1) == labels)
            print(f"iteration {iteration:3}: cost {cost:.6f}, accuracy {accuracy:.6f} %")
        learning_rate = 0.5 if iteration <= LAST_FAST_ITERATION else 0.1
        layers = update(layers, backward(layers, outputs, labels, activation), learning_rate)
    return layers


def main(arguments: Sequence[str] | None = None) -> None:
    """Train on a data set and print the table."""
    parser = argparse.ArgumentParser(description="Print the tutorial's table.")
    parser.add_argument("--data", default="mnist", help=f"{DATA_HELP}; default: mnist")
    add_data_dir(parser)
    options = parser.parse_args(arguments)
    try:
        split = load_dataset(options.data, data_dir=options.data_dir).train
    except DatasetError as error:
        parser.error(str(error))
    images = InputSpec(split.images.shape[1:]).scale(split.images, np.float64)
    train(images, split.labels)


if __name__ == "__main__":
    main()
