"""Paired comparisons: the t interval of a mean difference, and the smallest difference that a number of pairs can
detect.

All functions assume that the differences are independent draws from one normal distribution. Seeds of one fold share
its labels and are not independent, so that more seeds do not replace more folds.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy import optimize, stats

LEVEL = 0.05  # level of the two-sided test; the interval covers 1 - LEVEL
POWER = 0.8  # probability of finding a detectable effect
INTERVAL = "95 % t interval"
DETECTABLE = (
    "the true mean difference that a two-sided paired t test at 5 % finds with 80 % power, if the true standard "
    "deviation of the differences is the observed one"
)
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class PairedDifference:
    """Differences of pairs, in the unit of the scores; None: too few pairs."""

    pairs: int
    mean: float | None
    std: float | None  # sample standard deviation (n - 1); needs two pairs, as the next two values
    interval: tuple[float, float] | None  # t interval of the mean
    detectable_effect: float | None


def paired_difference(scores: Mapping[Key, float], baseline: Mapping[Key, float]) -> PairedDifference:
    """Mean, deviation, interval and detectable effect of `scores` minus `baseline`, over the keys (runs) that both
    have."""
    keys = [key for key in scores if key in baseline]
    values = np.array([scores[key] - baseline[key] for key in keys])  # (pairs,)
    if len(values) < 2:
        return PairedDifference(len(values), float(values[0]) if len(values) else None, None, None, None)
    std = float(values.std(ddof=1))
    detectable = detectable_effect(std=std, pairs=len(values))
    return PairedDifference(len(values), float(values.mean()), std, t_interval(values), detectable)


def t_interval(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Lower and upper end of the 95 % t interval of the mean; a point if all values are equal.

    Raises:
        ValueError: fewer than two values.
    """
    values = np.asarray(values, dtype=float)  # (n,)
    _check(len(values))
    quantile = stats.t.ppf(1 - LEVEL / 2, len(values) - 1)
    half = float(quantile * values.std(ddof=1) / math.sqrt(len(values)))
    mean = float(values.mean())
    return mean - half, mean + half


def power(effect: float, *, std: float, pairs: int) -> float:
    """Probability that a two-sided paired t test at 5 % finds a true mean difference `effect`.

    `std`: true standard deviation of the differences, in the unit of `effect`.

    Raises:
        ValueError: fewer than two pairs, or a negative deviation.
    """
    _check(pairs, std=std)
    if effect == 0:
        return LEVEL
    if std == 0:
        return 1.0
    # With a true effect, t follows a noncentral t distribution and t^2 a noncentral F distribution, whose upper tail
    # holds both tails of t. scipy's noncentral t can give NaN for the far tail.
    square = stats.t.ppf(1 - LEVEL / 2, pairs - 1) ** 2
    with np.errstate(divide="ignore"):  # older versions of scipy warn, but the value is right
        return float(stats.ncf.sf(square, 1, pairs - 1, pairs * (effect / std) ** 2))


def detectable_effect(*, std: float, pairs: int) -> float:
    """The true mean difference that a two-sided paired t test at 5 % finds with 80 % power, in the unit of `std`.

    Raises:
        ValueError: fewer than two pairs, or a negative deviation.
    """
    _check(pairs, std=std)
    high = 1.0  # in standard deviations
    while power(high, std=1.0, pairs=pairs) < POWER:
        high *= 2
    return std * float(optimize.brentq(lambda effect: power(effect, std=1.0, pairs=pairs) - POWER, 0.0, high))


def _check(pairs: int, *, std: float = 0.0) -> None:
    """Raises ValueError if there are fewer than two pairs or the deviation is negative."""
    if pairs < 2:
        raise ValueError(f"{pairs} paired differences: a standard deviation, and so a t interval, needs at least 2")
    if not std >= 0:
        raise ValueError(f"std: {std} is not a standard deviation, which is 0 or more")
