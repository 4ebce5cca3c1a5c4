"""JAX in its fastest form: an epoch is one compiled call, a scan over its steps.

Parameters and moments stay on JAX's side and are donated to each call, so that they are changed in
place. Adam is written out; it is the same as everybody's.
"""

from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from mlpserve.datasets import Dataset
from mlpserve.model.inputs import InputSpec
from trainers.tasks import Outcome, Stopwatch, Task

Array: TypeAlias = jax.Array
Parameters: TypeAlias = list[tuple[Array, Array]]  # the weights and the bias of each layer
Activation: TypeAlias = Callable[[Array], Array]

_LEARNING_RATE: Final = 1e-3
_BATCH_SIZE: Final = 128
_MEAN_DECAY: Final = 0.9
_SQUARE_DECAY: Final = 0.999
_EPSILON: Final = 1e-8
_ACTIVATIONS: Final = {"relu": jax.nn.relu, "tanh": jnp.tanh}


class State(NamedTuple):
    """The parameters, the running means of their gradients and squares, and the steps so far."""

    parameters: Parameters
    means: Parameters
    squares: Parameters
    steps: Array


def run(task: Task, dataset: Dataset) -> Outcome:
    """Train with Adam on shuffled batches, from normal weights of variance gain / fan_in."""
    spec = InputSpec(dataset.input_shape)
    inputs = jnp.asarray(spec.scale(dataset.train.images))
    labels = jnp.asarray(dataset.train.labels.astype(np.int32))
    rng = np.random.default_rng(task.seed)
    layer_sizes = (inputs.shape[1], *task.hidden_sizes, len(dataset.class_labels))
    state = _initial_state(layer_sizes, task.activation, rng)
    activation = _ACTIVATIONS[task.activation]
    epoch = jax.jit(_epoch_of(activation), donate_argnums=0)
    stopwatch = Stopwatch()
    for _ in range(task.epochs + 1):
        # JAX's own permutation sorts random numbers, which takes longer.
        order = rng.permutation(len(inputs)).astype(np.int32)
        state = jax.block_until_ready(epoch(state, inputs, labels, order))
        stopwatch.end_epoch()
    logits = _logits(state.parameters, jnp.asarray(spec.scale(dataset.test.images)), activation)
    correct = np.asarray(logits).argmax(axis=1) == dataset.test.labels
    return Outcome(stopwatch.seconds(), test_accuracy=float(correct.mean()))


def _initial_state(
    layer_sizes: tuple[int, ...], activation: str, rng: np.random.Generator
) -> State:
    parameters: Parameters = []
    for index in range(1, len(layer_sizes)):
        fan_in, fan_out = layer_sizes[index - 1 : index + 1]
        is_before_relu = activation == "relu" and index < len(layer_sizes) - 1
        scale = np.sqrt((2 if is_before_relu else 1) / fan_in)
        weights = jnp.asarray(rng.normal(0, scale, (fan_in, fan_out)), jnp.float32)
        parameters.append((weights, jnp.zeros(fan_out)))
    means, squares = (jax.tree.map(jnp.zeros_like, parameters) for _ in range(2))
    return State(parameters, means, squares, jnp.zeros(()))


def _logits(parameters: Parameters, inputs: Array, activation: Activation) -> Array:
    *hidden, last = parameters
    for weights, bias in hidden:
        inputs = activation(inputs @ weights + bias)
    return inputs @ last[0] + last[1]


def _epoch_of(activation: Activation) -> Callable[[State, Array, Array, Array], State]:
    """Return the function that takes a state through one epoch, in the order of its last argument.

    A scan wants all its steps alike, so the last, shorter batch is a step after it.
    """

    def loss(parameters: Parameters, inputs: Array, labels: Array) -> Array:
        log_probabilities = jax.nn.log_softmax(_logits(parameters, inputs, activation))
        return -jnp.take_along_axis(log_probabilities, labels[:, None], axis=1).mean()

    def epoch(state: State, inputs: Array, labels: Array, order: Array) -> State:
        def step(state: State, rows: Array) -> tuple[State, None]:
            gradients = jax.grad(loss)(state.parameters, _rows(inputs, rows), _rows(labels, rows))
            return _adam(state, gradients), None

        whole = len(order) // _BATCH_SIZE * _BATCH_SIZE
        state, _ = jax.lax.scan(step, state, order[:whole].reshape(-1, _BATCH_SIZE))
        return step(state, order[whole:])[0] if whole < len(order) else state

    return epoch


def _rows(array: Array, rows: Array) -> Array:
    """Return rows of an array, unchecked, which is a little faster."""
    return array.at[rows].get(mode="promise_in_bounds")


def _adam(state: State, gradients: Parameters) -> State:
    parameters, means, squares, steps = state
    steps = steps + 1
    means = jax.tree.map(
        lambda mean, gradient: _MEAN_DECAY * mean + (1 - _MEAN_DECAY) * gradient, means, gradients
    )
    squares = jax.tree.map(
        lambda square, gradient: _SQUARE_DECAY * square + (1 - _SQUARE_DECAY) * gradient**2,
        squares,
        gradients,
    )
    rate = _LEARNING_RATE / (1 - _MEAN_DECAY**steps)
    square_scale = 1 / (1 - _SQUARE_DECAY**steps)
    parameters = jax.tree.map(
        lambda parameter, mean, square: (
            parameter - rate * mean / (jnp.sqrt(square * square_scale) + _EPSILON)
        ),
        parameters,
        means,
        squares,
    )
    return State(parameters, means, squares, steps)
