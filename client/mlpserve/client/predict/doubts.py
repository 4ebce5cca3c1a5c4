"""Doubts about a picture: whether it looks like what models learn from.

Models of digits, and of most small grey pictures, learn light things on a dark ground. A photograph
of ink on paper is the other way round, and its paper is grey.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

_HALF: Final = 0.5
_GREY_PAPER: Final = 0.25
_WHITE_PAPER: Final = 0.75
_EVEN: Final = 0.15
"""The standard deviation of a border that is one thing: paper, or a ground, but for noise."""


def doubt(picture: npt.NDArray[Any], *, white: float = 255) -> str:
    """Return what may be wrong with a picture as the model gets it; "" for nothing.

    Args:
        picture: (height, width) values from 0, black, to ``white``.
        white: The value of white.
    """
    values = np.asarray(picture, np.float64) / white
    if values.min() == values.max():
        return "is of one grey; if its ink is dark on transparent: --invert"
    border = np.concatenate([values[0], values[-1], values[1:-1, 0], values[1:-1, -1]])
    if _GREY_PAPER < border.mean() < _WHITE_PAPER and border.std() < _EVEN:
        return (
            f"its border is grey, {100 * border.mean():.0f} % of white, as paper is in a "
            "photograph; models of digits want black there: --preprocess"
        )
    if values.mean() > _HALF:
        return "looks dark on light; models of digits want light on dark: --invert, or --preprocess"
    return ""
