"""Statistics of counts: how far a share, or the difference of two shares, may be luck."""

import math
from typing import Final

_Z_95: Final = 1.96  # 95 % of a normal distribution is within so many standard deviations


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of a share that was counted among ``count``.

    With p the share, n the count and z = 1.96, the interval holds each share q from which p is no
    more than z standard deviations away, ``|p - q| <= z sqrt(q (1 - q) / n)``. Squared, that is a
    quadratic inequality in q, and between its roots are

        (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)

    Source: Wilson, Probable Inference (1927).
    """
    square = _Z_95**2 / count
    half = _Z_95 * math.sqrt(share * (1 - share) / count + square / (4 * count))
    middle = share + square / 2
    return max(0.0, (middle - half) / (1 + square)), min(1.0, (middle + half) / (1 + square))
