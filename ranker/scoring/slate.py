"""From scores to slates: the best k items of each request.

`N` candidates, `M` rows of all slates together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ranker.candidates.protocol import rank_within

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.floating]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SlateRows:
    """The slates as rows of the candidates they were made of, sorted by request, then rank.

    Attributes:
        row_index: [M], into the N candidates.
        rank: [M], 1, 2, ... within a request.
    """

    row_index: IntArray
    rank: npt.NDArray[np.int32]


def top_k(
    request: IntArray, item: npt.NDArray[np.generic], score: FloatArray, *, k: int
) -> SlateRows:
    """Rank each request's candidates by score, highest first, and keep the first ``k``.

    Equal scores go by item, ascending (integers by value, strings by code point), so slates don't
    depend on the order of the rows. A request has at most one row per item.

    Args:
        request: [N], in any order.
        item: [N], item ids or indices: integers, or all strings.
        score: [N].
        k: the slates' length; shorter where a request has fewer candidates.

    Raises:
        ValueError: ``k`` < 1, columns of unequal length, items that are neither integers nor
            strings, or a score that is NaN.
    """
    if k < 1:
        raise ValueError(f"slate: k must be >= 1, got {k}")
    if not len(request) == len(item) == len(score):
        raise ValueError(
            "slate: request, item and score must have equal lengths, got "
            f"{len(request)}, {len(item)}, {len(score)}"
        )
    missing = np.isnan(score)
    if missing.any():
        raise ValueError(
            f"slate: request {request[missing.argmax()]} has a candidate whose score is NaN "
            f"({int(missing.sum())} such rows); a candidate without a score can't be ranked"
        )
    order = np.lexsort((_sortable(item), -score.astype(np.float64), request))
    rank = rank_within(request[order])
    kept = rank <= k
    return SlateRows(row_index=order[kept].astype(np.int64), rank=rank[kept])


def _sortable(item: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Integers as they are, strings as their ranks among the distinct ones: lexsort is faster."""
    if np.issubdtype(item.dtype, np.integer):
        return item
    values = item.tolist()
    if not all(isinstance(value, str) for value in values):
        raise ValueError(
            f"slate: items must be integers or strings, got {item.dtype} values; "
            "give the log's item column as it is"
        )
    code_by_id = {value: code for code, value in enumerate(sorted(set(values)))}
    return np.fromiter((code_by_id[value] for value in values), dtype=np.int64, count=len(values))
