"""First layer: what it looks for, its weights as pictures."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mlpserve.model.network import Network
from mlpserve.trainer.report.formats import counted
from mlpserve.trainer.report.pictures import weights_uri

_MAX_UNITS: Final = 48
_FULL_COLOUR_SHARE: Final = 0.99  # of the weights shown; single larger ones would pale all others


def first_layer_section(
    network: Network, shape: tuple[int, ...], class_labels: Sequence[str]
) -> Mapping[str, Any]:
    """Return the weights of the first layer's most influential units as pictures.

    Args:
        network: The network.
        shape: The shape of one image.
        class_labels: What each class is called.
    """
    chosen = influential_units(network)[:_MAX_UNITS]
    weights = network.layers[0].weights.T[chosen]
    largest = float(np.quantile(np.abs(weights), _FULL_COLOUR_SHARE)) or 1.0
    names = _names(network, class_labels)
    return {
        "explanation": _explanation(network, len(chosen)),
        "largest": f"{largest:.2g}",
        "pictures": [
            (names[unit], weights_uri(row, shape, largest))
            for unit, row in zip(chosen.tolist(), weights, strict=True)
        ],
    }


def influential_units(network: Network) -> npt.NDArray[np.int64]:
    """Return the units of the first layer, those with the largest weights in and out first.

    A unit's influence is the norm of the weights that lead to it, times the norm of those that lead
    away from it. The outputs of a network without a hidden layer stay in their order.
    """
    first = network.layers[0].weights
    if len(network.layers) == 1:
        return np.arange(first.shape[1])
    inward = np.linalg.norm(first, axis=0)
    outward = np.linalg.norm(network.layers[1].weights, axis=1)
    return np.argsort(-inward * outward, kind="stable")


def _names(network: Network, class_labels: Sequence[str]) -> Sequence[str]:
    if len(network.layers) == 1:
        return class_labels
    return [f"unit {number}" for number in range(1, network.layer_sizes[1] + 1)]


def _explanation(network: Network, shown: int) -> str:
    count = network.layer_sizes[1]
    if len(network.layers) == 1:
        which = "Each class" if shown == count else f"The first {shown} of {count:,} classes"
        return f"{which}: the network has no hidden layer, so this is all that it knows."
    if shown == count:
        return f"All {counted(count, 'unit', 'units')}, the most influential first."
    return f"The {shown} most influential of {count:,} units."
