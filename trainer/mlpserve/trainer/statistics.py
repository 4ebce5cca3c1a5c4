"""Statistics of counts: how far a share, or the difference of two shares, may be luck."""

import math
from typing import Final

_Z_95: Final = 1.96  # 95 % of a normal distribution is within so many standard deviations
_NEGLIGIBLE: Final = 1e-17  # of a sum: less does not change it


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


def mcnemar_p_value(first_only: int, second_only: int) -> float:
    """Return how probable so uneven a split is where neither of two is better, 0 to 1.

    What both do rightly, or both wrongly, says nothing of which is better. Of the n others, each is
    as likely to speak for the first as for the second, if neither is better: how many speak for
    one of them has the binomial distribution of n tosses of a coin. With k the smaller count, and
    both sides alike, the p-value of the exact test is

        p = min(1, 2 P(X <= k)),  P(X <= k) = sum_(i=0..k) C(n, i) / 2^n

    The sum is taken from its largest term, C(n, k) / 2^n, downwards: C(n, i - 1) is
    C(n, i) i / (n - i + 1), so no number is too large for a float.

    Source: McNemar, Note on the Sampling Error of the Difference Between Correlated Proportions or
    Percentages (1947); exact by the binomial distribution, as the sign test.

    Args:
        first_only: How many only the first does rightly, b in McNemar's table.
        second_only: How many only the second does rightly, c.
    """
    count, fewer = first_only + second_only, min(first_only, second_only)
    log_largest = (
        math.lgamma(count + 1)
        - math.lgamma(fewer + 1)
        - math.lgamma(count - fewer + 1)
        - count * math.log(2)
    )
    term = total = 1.0
    for index in range(fewer, 0, -1):
        term *= index / (count - index + 1)
        total += term
        if term < _NEGLIGIBLE * total:
            break
    return min(1.0, 2 * math.exp(log_largest) * total)


def paired_difference_interval(
    first_only: int, second_only: int, count: int
) -> tuple[float, float]:
    """Return the 95 % confidence interval of how much more the second of two does rightly.

    Each of n things is worth 1 where only the second does it rightly, -1 where only the first
    does, and 0 elsewhere. With b and c the counts of ``mcnemar_p_value``, their mean is
    d = (c - b) / n, the mean of their squares (b + c) / n, and so the ends are

        d -+ z sqrt(((b + c) / n - d^2) / n)

    Half a count is added to each of the four cells of McNemar's table, to n therefore 2: without
    it, two that never differ would be known to be equal, however few the things.

    Source: Agresti and Min, Simple improved confidence intervals for comparing matched proportions
    (2005).
    """
    total = count + 2
    difference = (second_only - first_only) / total
    variance = (first_only + second_only + 1) / total - difference**2
    half = _Z_95 * math.sqrt(variance / total)
    return max(-1.0, difference - half), min(1.0, difference + half)
