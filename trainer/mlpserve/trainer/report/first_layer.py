"""What the first layer looks for: its weights as pictures."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from mlpserve.model.network import Network
from mlpserve.trainer.report.blocks import counted, paragraph, section
from mlpserve.trainer.report.markup import Markup, element
from mlpserve.trainer.report.pictures import weights_uri

_MOST_UNITS: Final = 48
_FULL_COLOUR_SHARE: Final = 0.99  # of the weights shown; single larger ones would pale all others


def first_layer_section(
    network: Network, shape: tuple[int, ...], class_labels: Sequence[str]
) -> Markup:
    """Return the weights of the first layer's most influential units as pictures.

    Args:
        network: The network.
        shape: The shape of one image.
        class_labels: What each class is called.
    """
    chosen = influential_units(network)[:_MOST_UNITS]
    weights = network.layers[0].weights.T[chosen]
    largest = float(np.quantile(np.abs(weights), _FULL_COLOUR_SHARE)) or 1.0
    names = _names(network, class_labels)
    pictures = (
        _picture(names[unit], weights_uri(row, shape, largest))
        for unit, row in zip(chosen.tolist(), weights, strict=True)
    )
    return section(
        "What the first layer looks for",
        paragraph(
            _explanation(network, len(chosen)),
            " Bright parts of an image speak for the unit where it is ",
            element("span", "blue", class_="positive"),
            " and against it where it is ",
            element("span", "orange", class_="negative"),
            f". Full colour is a weight of {largest:.2g} or more.",
        ),
        element("div", *pictures, class_="pictures small"),
    )


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


def _picture(name: str, uri: str) -> Markup:
    return element(
        "figure",
        element("img", src=uri, alt=f"weights of {name}"),
        element("p", element("span", name, title=name)),
    )
