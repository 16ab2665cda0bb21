"""Paired comparisons: the t interval of a mean difference, the exact sign-flip test, Holm's correction, and the power
of a number of pairs.

All functions but the sign-flip test assume that the differences are independent draws from one normal distribution; the
sign-flip test assumes that they are independent and, if the methods are equally good, symmetric about 0. Seeds of one
fold share its labels and are not independent, so that more seeds do not replace more folds.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from scipy import optimize, stats

LEVEL = 0.05  # level of the two-sided test; the interval covers 1 - LEVEL
POWER = 0.8  # probability of finding a detectable effect
EXACT_PAIRS = 40  # up to here, the sign-flip test takes all signs; each half of the pairs has at most 2^20
RANDOM_SIGNS = 100_000  # and above, this many random ones
INTERVAL = "95 % t interval"
DETECTABLE = (
    "the true mean difference that a two-sided paired t test at 5 % finds with 80 % power, if the true standard "
    "deviation of the differences is the observed one"
)
SIGN_FLIP = (
    "the share of all assignments of signs to the differences whose mean is at least as far from 0 as the observed one"
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
    p: float | None  # of the sign-flip test; needs one pair


def paired_difference(scores: Mapping[Key, float], baseline: Mapping[Key, float]) -> PairedDifference:
    """Mean, deviation, interval and detectable effect of `scores` minus `baseline`, over the keys (runs) that both
    have."""
    keys = [key for key in scores if key in baseline]
    values = np.array([scores[key] - baseline[key] for key in keys])  # (pairs,)
    p = sign_flip_p(values) if len(values) else None
    if len(values) < 2:
        return PairedDifference(len(values), float(values[0]) if len(values) else None, None, None, None, p)
    std = float(values.std(ddof=1))
    detectable = detectable_effect(std=std, pairs=len(values))
    return PairedDifference(len(values), float(values.mean()), std, t_interval(values), detectable, p)


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


def sign_flip_p(values: Sequence[float] | np.ndarray) -> float:
    """Two-sided p value of the sign-flip (Fisher-Pitman) test that the differences are symmetric about 0: the share of
    the 2^n assignments of signs whose sum is at least as far from 0 as the observed sum.

    Up to `EXACT_PAIRS` differences it is exact: all sums of the first half of the differences are combined with the
    sorted sums of the second half. With more it is estimated from random signs, always the same ones.

    Raises:
        ValueError: no value.
    """
    values = np.asarray(values, dtype=float)  # (n,)
    if not len(values):
        raise ValueError("no difference to test")
    # Sums that differ by rounding alone count as equal.
    limit = abs(values.sum()) - 1e-9 * np.abs(values).sum()
    if len(values) <= EXACT_PAIRS:
        half = len(values) // 2
        first, second = signed_sums(values[:half]), np.sort(signed_sums(values[half:]))
        above = len(second) - np.searchsorted(second, limit - first, side="left")
        below = np.searchsorted(second, -limit - first, side="right")
        share = float((above + below).sum()) / 2.0 ** len(values)
        return min(share, 1.0)  # at a limit of 0 or less, sums of 0 would count on both sides
    generator = torch.Generator().manual_seed(0)
    signs = 2.0 * torch.randint(2, (RANDOM_SIGNS, len(values)), generator=generator) - 1
    extreme = int((np.abs(signs.double().numpy() @ values) >= limit).sum())
    return (1 + extreme) / (1 + RANDOM_SIGNS)


def signed_sums(values: np.ndarray) -> np.ndarray:
    """(n,) values -> (2^n,) sums with every assignment of signs."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def holm(p_values: Mapping[Key, float]) -> dict[Key, float]:
    """p values adjusted for testing several hypotheses (Holm, 1979): rejecting all of at most .05 keeps the probability
    of any false rejection at 5 %, whatever the dependence among the tests."""
    adjusted, largest = {}, 0.0
    for rank, key in enumerate(sorted(p_values, key=lambda k: p_values[k])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[key]))
        adjusted[key] = largest
    return {key: adjusted[key] for key in p_values}


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
