"""Correlation, and how sure it is where speakers have many utterances."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import tqdm
from scipy.stats import rankdata

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.hierarchy.checks import check_number, varied
from speechbrain_hyperbolic.significance import MIN_SPEAKERS, p_value


class RankCorrelation(NamedTuple):
    """Spearman's rank correlation.

    Arguments
    ---------
    rho : float
    interval : tuple of float
        Of 95 %: (low, high).
    p_value : float
        Of rho = 0, two-sided.
    """

    rho: float
    interval: tuple
    p_value: float


def rank_correlation(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    replicates: int = 1000,
    seed: int = 0,
    groups: npt.ArrayLike | None = None,
) -> RankCorrelation:
    """Spearman's rank correlation, with a bootstrap over groups.

    Utterances of a speaker are not independent: with speakers as groups, each
    replicate draws as many speakers as there are, with replacement, and all
    utterances of each. The interval is that of the percentiles, and the
    p-value inverts it, as ``significance.compare_systems`` does. Replicates
    in which x or y is all equal are skipped.

    Arguments
    ---------
    x : array_like
        Shape [N], finite.
    y : array_like
        Shape [N], finite.
    replicates : int
        Above 0; the smallest p-value is 2 / (replicates + 1).
    seed : int
        Of the draws.
    groups : array_like
        Shape [N]: identifier of the speaker; None: each its own.

    Returns
    -------
    correlation : RankCorrelation

    Raises
    ------
    InputError
        If x or y is all equal, not finite or of another length, there are
        fewer than 10 groups, or ``replicates`` is out of range.

    Example
    -------
    >>> x = np.arange(20)
    >>> found = rank_correlation(x, x**2, groups=x // 2)
    >>> round(found.rho, 9), found.p_value < 0.01
    (1.0, True)
    """
    check_number("replicates", replicates, 1)
    x = varied(_column("x", x), "x")
    y = varied(_column("y", y, x.size), "y")
    if groups is None:
        groups = np.arange(x.size)
    groups = _column("groups", groups, x.size, dtype=None)
    names, members = np.unique(groups, return_inverse=True)
    if len(names) < MIN_SPEAKERS:
        raise InputError(
            f"there are {len(names)} groups: a bootstrap needs "
            f"{MIN_SPEAKERS} or more"
        )
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in tqdm.trange(
        replicates, desc="Bootstrap", delay=5, dynamic_ncols=True
    ):
        counts = rng.multinomial(
            len(names), np.full(len(names), 1 / len(names))
        )
        rows = np.repeat(np.arange(x.size), counts[members])
        if np.ptp(x[rows]) > 0 and np.ptp(y[rows]) > 0:
            drawn.append(_spearman(x[rows], y[rows]))
    if not drawn:
        raise InputError(
            f"x or y is all equal in each of {replicates} bootstrap "
            "replicates: give more replicates, or more groups"
        )
    low, high = np.quantile(drawn, [0.025, 0.975])
    # What is 0 may differ from it in the last digits.
    p = p_value(np.round(drawn, 12))
    return RankCorrelation(_spearman(x, y), (float(low), float(high)), p)


def pearson(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's correlation.

    Arguments
    ---------
    x : np.ndarray
        Shape [N], not all equal.
    y : np.ndarray
        Shape [N], not all equal.

    Returns
    -------
    correlation : float
        In [-1, 1].

    Example
    -------
    >>> round(pearson(np.arange(3), np.array([6, 4, 2])), 9)
    -1.0
    """
    # Of equal columns the product may be off 1 in the last digit.
    return float(np.clip(unit(x) @ unit(y), -1, 1))


def unit(values: np.ndarray) -> np.ndarray:
    """Shifts and scales values to mean 0 and length 1.

    Arguments
    ---------
    values : np.ndarray
        Shape [N], not all equal.

    Returns
    -------
    values : np.ndarray
        Shape [N]. The product of two such is their correlation.

    Example
    -------
    >>> unit(np.array([3, 5])).round(3)
    array([-0.707,  0.707])
    """
    values = values - values.mean()
    return values / np.linalg.norm(values)


def _spearman(x: np.ndarray, y: np.ndarray) -> float:
    return pearson(rankdata(x), rankdata(y))


def _column(
    name: str,
    values: npt.ArrayLike,
    n: int | None = None,
    dtype: npt.DTypeLike | None = np.float64,
) -> np.ndarray:
    values = np.asarray(values, dtype=dtype)
    if values.ndim != 1 or n not in (None, values.size):
        raise InputError(
            f"{name} has shape {values.shape}, expected ({n or 'N'},): give "
            "one value a point"
        )
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise InputError(
            f"{name} is {values[~np.isfinite(values)][0]} at index "
            f"{np.flatnonzero(~np.isfinite(values))[0]}: leave that point out"
        )
    return values
