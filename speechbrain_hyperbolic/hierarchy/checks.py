"""What distances and numbers must be, for all measures of hierarchy."""

import numbers

import numpy as np
import numpy.typing as npt

from speechbrain_hyperbolic.errors import InputError

# Further out, distances on the disk drown in rounding.
MAX_RADIUS = 14.0

# Of a matrix of distances, relative to the largest.
_TOLERANCE = 1e-2


def checked_distances(
    distances: npt.ArrayLike, least: int = 2, name: str = "distances"
) -> np.ndarray:
    """Distances as the measures need them.

    Arguments
    ---------
    distances : array_like
        Shape [N, N].
    least : int
        Number of points it takes.
    name : str
        Of the argument, for messages.

    Returns
    -------
    distances : np.ndarray
        A copy in float64, symmetric and with zeros on the diagonal.

    Raises
    ------
    InputError
        If these are no distances of so many points, or all points coincide.

    Example
    -------
    >>> checked_distances([[0, 1], [1.01, 0]])
    array([[0.   , 1.005],
           [1.005, 0.   ]])
    """
    distances = np.array(distances, dtype=np.float64)
    if distances.ndim != 2 or len(distances) != distances.shape[1]:
        raise InputError(
            f"{name} have shape {distances.shape}, expected (N, N)"
        )
    if len(distances) < least:
        raise InputError(
            f"{name} are of {len(distances)} points: give {least} or more"
        )
    wrong = np.argwhere(~(np.isfinite(distances) & (distances >= 0)))
    if len(wrong):
        i, j = wrong[0]
        raise InputError(
            f"{name}[{i}, {j}] is {distances[i, j]}, expected a finite number "
            ">= 0: leave that point out"
        )
    largest = distances.max()
    mended = (distances + distances.T) / 2
    np.fill_diagonal(mended, 0)
    if mended.max() == 0:
        raise InputError(f"{name} are all 0: the points coincide")
    i, j = divmod(int(abs(distances - mended).argmax()), len(distances))
    if abs(distances - mended)[i, j] > _TOLERANCE * largest:
        fault = (
            "expected 0: are these similarities?"
            if i == j
            else f"but [{j}, {i}] is {distances[j, i]:g}: expected the same"
        )
        raise InputError(f"{name}[{i}, {j}] is {distances[i, j]:g}, {fault}")
    return mended


def check_same_points(pairs: np.ndarray, others: np.ndarray, name: str) -> None:
    """Refuses distances of another number of points.

    Arguments
    ---------
    pairs : np.ndarray
        The distances, shape [N (N - 1) / 2].
    others : np.ndarray
        What should be of the same points.
    name : str
        Of the others.

    Raises
    ------
    InputError
        If their sizes differ.

    Example
    -------
    >>> check_same_points(np.ones(3), np.arange(3), "tree")
    """
    if pairs.size != others.size:
        raise InputError(
            f"{name} is of another number of points than the distances: give "
            "both of the same points, in the same order"
        )


def varied(values: np.ndarray, name: str) -> np.ndarray:
    """Values that something may correlate with.

    Arguments
    ---------
    values : np.ndarray
        Shape [N].
    name : str
        Of the values.

    Returns
    -------
    values : np.ndarray
        The same.

    Raises
    ------
    InputError
        If all are equal, up to rounding.

    Example
    -------
    >>> varied(np.arange(3), "x")
    array([0, 1, 2])
    """
    if np.ptp(values) <= 1e-12 * abs(values).max():
        raise InputError(f"{name} are all equal: nothing correlates with them")
    return values


def check_number(
    name: str, value: int, least: int, most: int | None = None
) -> None:
    """Refuses what is no whole number within limits.

    Arguments
    ---------
    name : str
    value : int
    least : int
    most : int
        None: no limit.

    Raises
    ------
    InputError
        If it's another.

    Example
    -------
    >>> check_number("draws", 100, 1)
    """
    whole = isinstance(value, numbers.Integral)
    if not (whole and value >= least and (most is None or value <= most)):
        limit = "" if most is None else f", at most {most}"
        raise InputError(
            f"{name} is {value}, expected a whole number >= {least}{limit}"
        )
