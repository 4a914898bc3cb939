"""Points of which none is better in every respect."""

from __future__ import annotations

import numpy as np

from ranker.evaluation.metrics import FloatArray, IntArray


def non_dominated(points: FloatArray) -> IntArray:
    """Which of ``points`` [C, 2] no other dominates, by falling first coordinate.

    A point dominates another if it is at least as good in both coordinates and better in one;
    higher is better. Of equal points the first stays. Points that are not finite are left out.
    """
    usable = np.flatnonzero(np.isfinite(points).all(axis=1))
    first, second = points[usable].T
    order = usable[np.lexsort((usable, -second, -first))]
    best_before = np.concatenate([[-np.inf], np.maximum.accumulate(points[order, 1])[:-1]])
    return np.asarray(order[points[order, 1] > best_before], dtype=np.int64)
