"""Tensor parallelism: threads share out the parameters of a network, and not the rows of a batch.

Each thread has all rows, and a part of each layer, in pairs of layers. With C the columns of W_1
and elements of b_1 that are a thread's, which are as many outputs and rows of W_2:

    A_1[:, C] = f(A_0 @ W_1[:, C] + b_1[C])        Z_2 = sum over threads of A_1[:, C] @ W_2[C, :]
    D_1[:, C] = D_2 @ W_2[C, :].T * f'(...)        D_0 = sum over threads of D_1[:, C] @ W_1[:, C].T

So a part of a network is a network of narrower layers, and what a thread computes is what
``backprop`` does, but for those sums. Threads wait for each other only there: once a step, where
there is one hidden layer. There are no gradients to sum, each thread changes its own parameters
while it has their gradient in the cache, and no two of them pack the same weights for a product.
The bias of the second layer of a pair, and a last layer without a partner, are the same in all.
Source: Shoeybi et al., Megatron-LM (2019), section 3.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from typing import Final

import numpy as np

from mlpserve.model.activations import FloatArray
from mlpserve.model.network import Layer, Network
from mlpserve.trainer.learning.backprop import CHUNK_ROWS, Batch, BatchResult
from mlpserve.trainer.learning.numba_engine import fused_step, team
from mlpserve.trainer.learning.numba_engine.compiled import CompiledAdam, CompiledMovingAverage
from mlpserve.trainer.learning.numba_engine.fused_step import Part, Shared
from mlpserve.trainer.learning.numba_engine.products import matmul_address
from mlpserve.trainer.learning.optimizers import Step
from mlpserve.trainer.learning.parameters import Vector, aligned, vector_of, views
from mlpserve.trainer.learning.recipe import Recipe
from mlpserve.trainer.learning.thread_pool import ThreadPool, shard

_OUTPUTS_AT_ONCE: Final = 16  # a part has a multiple of so many, where it can


class TensorParallel:
    """Learns from batches with several threads, of which each has a part of the parameters."""

    def __init__(self, recipe: Recipe, network: Network, pool: ThreadPool) -> None:
        """Share out a network, which is not changed.

        Args:
            recipe: One that ``suits``.
            network: What to begin with.
            pool: The threads.
        """
        self._network = network
        self._pool = pool
        self._team = team.counters(pool.size)
        self._called = np.zeros(pool.size, np.bool_)
        self._followers: dict[int, Future[None]] = {}
        self._steps = 0  # since the team came together
        widths, dtype = network.layer_sizes, network.parameters[0].dtype
        self._shared = Shared(
            inputs=aligned((recipe.batch_size, widths[0]), dtype),
            columns=np.arange(widths[0]),
            labels=np.zeros(recipe.batch_size, np.int64),
            sizes=np.zeros(2, np.intp),
            label_smoothing=recipe.label_smoothing,
            learned_probability=recipe.learned_probability,
            factors=np.zeros(6, dtype),
            partials=aligned((2, pool.size, recipe.batch_size * max(widths[1:])), dtype),
            result=np.zeros(2),
        )
        self._parts: list[Part] = []
        self._names: tuple[str, ...] = ("parameters", "means", "squares")
        if recipe.average_decay:
            self._names += ("average",)
        for thread in range(pool.size):
            own = _part(network, thread, pool.size)
            parameters = vector_of(own)
            # Of these only the constants are used, beside the vectors.
            self._adam = CompiledAdam(parameters)
            self._average = CompiledMovingAverage(parameters, recipe.average_decay)
            mean = self._average.mean if recipe.average_decay else np.empty(0, dtype)
            vectors = {"parameters": parameters, "average": mean, **self._adam.state}
            self._parts.append(_arrays(own, recipe, (thread, pool.size), vectors))

    @staticmethod
    def suits(recipe: Recipe, network: Network, threads: int) -> bool:
        """Return whether a recipe can be trained so, by several threads."""
        *hidden, _ = network.activations
        return (
            0 < recipe.batch_size <= CHUNK_ROWS
            and set(hidden) == {"relu"}
            and min(network.layer_sizes[1:-1]) >= threads
            and recipe.optimizer == "adam"
            and not recipe.dropout
            and not recipe.teachers
            and matmul_address(network.parameters[0].dtype) is not None
        )

    def learned(self) -> Vector:
        """See ``Learner.learned``."""
        return self._joined("average" if "average" in self._names else "parameters")

    def step(self, batch: Batch, step: Step) -> BatchResult:
        """See ``Learner.step``."""
        shared, rows = self._shared, len(batch.labels)
        columns = batch.fill(slice(0, rows), shared.inputs[:rows])
        used = shared.inputs.shape[1] if columns is None else len(columns)
        shared.columns[:used] = np.arange(used) if columns is None else columns
        shared.labels[:rows] = batch.labels
        shared.sizes[:] = rows, used
        shared.factors[:] = *self._adam.factors(step), self._average.weight(step.number)
        try:
            team.announce(self._team, self._steps + 1, self._called)
            self._call()
            is_done = fused_step.learn(self._team, self._parts[0], shared, self._steps)
        except BaseException:
            team.fail(self._team)  # or the others would wait for this thread
            raise
        if not is_done:
            for follower in self._followers.values():
                follower.result()  # raises what it failed by
            raise RuntimeError("a thread of an earlier step was lost")
        self._steps += 1
        return BatchResult(float(shared.result[0]), int(shared.result[1]))

    def state(self) -> Mapping[str, Vector]:
        """See ``Learner.state``."""
        return {name: self._joined(name) for name in self._names}

    def restore(self, state: Mapping[str, Vector]) -> None:
        """See ``Learner.restore``."""
        for name in self._names:
            for part in self._parts:
                for whole, own in self._pairs(state[name], name, part):
                    own[...] = whole

    def _call(self) -> None:
        """Call the followers that have left."""
        for thread in np.flatnonzero(self._called).tolist():
            self._followers[thread] = self._pool.submit(self._follow, thread)

    def _follow(self, thread: int) -> None:
        try:
            fused_step.learn(self._team, self._parts[thread], self._shared, self._steps)
        except BaseException:
            team.fail(self._team)
            raise

    def _joined(self, name: str) -> Vector:
        """Return a vector of all parameters, or of what belongs to each, from all parts."""
        joined = np.empty(
            sum(array.size for array in self._network.parameters), self._shared.inputs.dtype
        )
        for part in self._parts:
            for whole, own in self._pairs(joined, name, part):
                whole[...] = own
        return joined

    def _pairs(
        self, vector: Vector, name: str, part: Part
    ) -> Iterator[tuple[FloatArray, FloatArray]]:
        """Yield views of a vector's part that is a thread's, and of the same in the thread's."""
        whole = self._network.with_parameters(views(vector, self._network))
        shared_out = _part(whole, part.thread, part.threads)
        own: Vector = getattr(part, name)
        yield from zip(shared_out.parameters, views(own, shared_out), strict=True)


def _part(network: Network, thread: int, threads: int) -> Network:
    """Return a thread's part of a network: views of its parameters."""
    layers: list[Layer] = []
    outputs = slice(None)
    for index, layer in enumerate(network.layers):
        weights, bias = layer.weights, layer.bias
        if index % 2:
            weights = weights[outputs]
        elif index < len(network.layers) - 1:
            outputs = _outputs(len(bias), thread, threads)
            weights, bias = weights[:, outputs], bias[outputs]
        layers.append(Layer(weights, bias, layer.activation))
    return Network(tuple(layers))


def _outputs(width: int, thread: int, threads: int) -> slice:
    """Return a thread's outputs of a layer: whole lines of the cache, where there are enough."""
    unit = _OUTPUTS_AT_ONCE if width >= _OUTPUTS_AT_ONCE * threads else 1
    part = shard(width // unit, thread, threads)
    return slice(part.start * unit, width if thread == threads - 1 else part.stop * unit)


def _arrays(
    own: Network, recipe: Recipe, place: tuple[int, int], vectors: Mapping[str, Vector]
) -> Part:
    """Allocate what a thread needs, beside vectors of what it learns."""
    widths, rows, dtype = own.layer_sizes, recipe.batch_size, vectors["parameters"].dtype
    kept = rows if recipe.learned_probability < 1 else 0
    thread, threads = place
    return Part(
        thread=thread,
        threads=threads,
        matmul=matmul_address(dtype) or 0,
        widths=np.array(widths),
        gradient=aligned(vectors["parameters"].shape, dtype),
        outputs=aligned((rows * sum(widths[1:]),), dtype),
        deltas=aligned((rows * sum(widths[1:-1]),), dtype),
        column_weights=aligned(widths[:2], dtype),
        column_gradient=aligned(widths[:2], dtype),
        kept_inputs=aligned((kept, widths[0]), dtype),
        **vectors,
    )
