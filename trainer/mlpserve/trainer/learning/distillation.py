"""Distillation: learning what trained networks, the teachers, say of each image.

A label says that an image is a 4; a teacher, that it is almost a 9. With P the probabilities of the
network that learns, and Q those of a teacher, each is softened by a temperature t:

    P_t = softmax(Z / t) = P^(1/t) / sum_k P_k^(1/t)

for ``log P = Z - log sum_k exp(Z_k)``, and what is the same for a whole row cancels out. Without it
the small probabilities, which tell what an image is almost like, would hardly count. With several
teachers Q_t is their mean. The loss of N rows, with the targets T of the labels and the teachers'
share w, is

    (1 - w) (-sum(T log P)) / N + w t^2 (-sum(Q_t log P_t)) / N

As for any targets that sum to 1, the second sum has the derivative ``P_t - Q_t`` with respect to
``Z / t``, so ``(P_t - Q_t) / t`` with respect to Z. The factor t^2 makes it as large as the first
whatever t is. Together, with ``D_L = (P - T) / N`` of ``backprop``:

    D = (1 - w) D_L + w t (P_t - Q_t) / N

Source: Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network (2015), section 2.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mlpserve.model.activations import FloatArray
from mlpserve.model.network import Network


@dataclass(frozen=True, eq=False)
class Distillation:
    """Teachers, and how they teach.

    Attributes:
        teachers: At least one, of the inputs, classes and dtype of the network that learns.
        share: w above, above 0 and up to 1.
        temperature: t above, at least 1.
    """

    teachers: Sequence[Network]
    share: float
    temperature: float

    def change(
        self, delta: FloatArray, probabilities: FloatArray, inputs: FloatArray, batch_size: int
    ) -> None:
        """Turn the (rows, K) D_L of some rows of a batch into D, in its place.

        Args:
            delta: D_L.
            probabilities: (rows, K) P, as the network said them.
            inputs: (rows, D) what both saw.
            batch_size: N.
        """
        softened = self._softened(probabilities)
        for teacher in self.teachers:
            said = self._softened(teacher.probabilities(inputs))
            said *= 1 / len(self.teachers)
            softened -= said
        softened *= self.share * self.temperature / batch_size
        delta *= 1 - self.share
        delta += softened

    def _softened(self, probabilities: FloatArray) -> FloatArray:
        powers: FloatArray = probabilities ** (1 / self.temperature)
        powers /= powers.sum(axis=1, keepdims=True)
        return powers
