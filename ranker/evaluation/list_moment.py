"""Lists are judged as they'd be ranked: at one moment, by one request.

A ranker orders candidates that share a request. Where a list is what a user saw in a window, its
impressions had requests of their own, and the user's features moved between them. They moved by
outcomes that are judged: of a list with a given number of clicks, fewer are left after each. So a
model that rightly expects more of a user who has just clicked would seem to order the list the
wrong way round (the bias of Miller and Sanjurjo, Econometrica 2018, on streaks). Hence the
request's features are those of the list's first impression, for all of its rows.
"""

from __future__ import annotations

import numpy as np

from ranker.data.store import EncodedStore
from ranker.evaluation.metrics import IntArray
from ranker.evaluation.rows import EvaluationRows


def request_rows(store: EncodedStore, rows: EvaluationRows) -> IntArray | None:
    """[N], the store's row whose request each row is ranked by: of its list's first impression.

    None where every row has its list's moment, as where lists are requests: its own is meant.
    """
    time_ms = np.asarray(store.column("time_ms")[rows.start : rows.stop], dtype=np.int64)
    _, first, code = np.unique(rows.lists, return_index=True, return_inverse=True)
    first_of_list = first[code]  # rows are in the order of time
    moved = time_ms[first_of_list] != time_ms
    if not moved.any():
        return None
    return rows.start + np.where(moved, first_of_list, np.arange(len(time_ms)))
