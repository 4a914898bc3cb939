"""The best k of each request without sorting the rest.

`N` candidates sorted by request, `R` requests, `L` candidates of the longest in a group.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


def request_starts(request: IntArray) -> IntArray:
    """Where each request begins, and N: [R + 1]; ``request`` [N] must be sorted."""
    changes = np.flatnonzero(request[1:] != request[:-1]) + 1
    begin = [0] if len(request) else []
    return np.concatenate([begin, changes, [len(request)]]).astype(np.int64)


def contenders(score: FloatArray, starts: IntArray, *, k: int) -> Mask:
    """Which candidates could be among the best ``k`` of their request: [N].

    Those whose score is at least the request's k-th best: exactly k, and more only where others
    equal it.

    Args:
        score: [N], without NaN.
        starts: where each request begins, and N: [R + 1].
        k: >= 1.
    """
    lengths = np.diff(starts)
    kept = np.repeat(lengths <= k, lengths)  # [N]
    for requests in _of_similar_length(lengths, longer_than=k):
        width = int(lengths[requests].max())
        places = starts[requests][:, None] + np.arange(width)  # [r, L]
        missing = np.arange(width) >= lengths[requests][:, None]
        scores = np.where(missing, -np.inf, score[np.where(missing, 0, places)])
        worst = np.partition(scores, width - k, axis=1)[:, width - k, None]
        kept[places[(scores >= worst) & ~missing]] = True
    return kept


def best_first(score: FloatArray, starts: IntArray, *, k: int) -> tuple[IntArray, IntArray]:
    """Order the rows of each request, the highest score first, where scores alone decide.

    Args:
        score: [N], without NaN.
        starts: where each request begins, and N: [R + 1].
        k: requests with more rows are left undecided.

    Returns:
        The ordered rows of the decided requests, and the rows of the undecided, whose scores are
        partly equal; both sorted by request.
    """
    lengths = np.diff(starts)
    short = lengths <= k
    columns = np.arange(int(lengths[short].max(initial=0)))
    missing = columns >= lengths[short, None]  # [r, k]
    places = np.where(missing, 0, starts[:-1][short, None] + columns)
    # NaN comes last in any sort, also after the plus infinity of a score of minus infinity.
    falling = np.where(missing, np.nan, -score[places])
    order = np.argsort(falling, axis=1)
    ordered = np.take_along_axis(falling, order, axis=1)
    decided = short.copy()
    decided[short] = (ordered[:, 1:] != ordered[:, :-1]).all(axis=1)
    rows = np.take_along_axis(places, order, axis=1)
    of_decided = ~missing & decided[short, None]
    return rows[of_decided], np.flatnonzero(np.repeat(~decided, lengths))


def _of_similar_length(lengths: IntArray, *, longer_than: int) -> list[IntArray]:
    """Requests in groups whose lengths differ less than twofold: padding at most doubles them."""
    long = np.flatnonzero(lengths > longer_than)
    magnitude = np.frexp(lengths[long].astype(np.float64))[1]
    return [long[magnitude == m] for m in np.unique(magnitude)]
