"""From scores to slates: the best k items of each request, within constraints, or drawn by chance.

`N` candidates, `M` rows of all slates together, `R` requests, `K` ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import assert_never

import numpy as np
import numpy.typing as npt

from ranker.candidates.protocol import rank_within
from ranker.scoring.slates.candidate_lists import (
    CandidateLists,
    SlateCandidates,
    candidate_lists,
    check_columns,
    item_luck,
    rank_coins,
    rows_by_request,
    sortable,
)
from ranker.scoring.slates.capped import Queue, fill, last_ranks
from ranker.scoring.slates.chance import gumbels
from ranker.scoring.slates.propensity import (
    Admissible,
    mixed_propensities,
    plackett_luce_propensities,
)
from ranker.scoring.slates.selection import best_first, contenders, request_starts
from ranker.scoring.slates.slate_config import EpsilonMix, NoExploration, PlackettLuce, SlateConfig

IntArray = npt.NDArray[np.int64]
HashArray = npt.NDArray[np.uint64]
Float64Array = npt.NDArray[np.float64]
FloatArray = npt.NDArray[np.floating]
Mask = npt.NDArray[np.bool_]

# Caps and chance seldom reach further down than so many slates; where they do, all is sorted.
FIRST_DEPTH = 2

# Scaled logits further below the best than this leave the noise that is added to them too few
# digits; nobody will ever draw them, so who asks for it means no exploration.
MAX_SPREAD = 1e9


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SlateRows:
    """The slates as rows of the candidates they were made of, sorted by request, then rank.

    Attributes:
        row_index: [M], into the N candidates.
        rank: [M], 1, 2, ... within a request.
        propensity: [M], P(this item at this rank, given the items above it); all 1 where nothing
            is left to chance. The product over a slate is the slate's.
    """

    row_index: IntArray
    rank: npt.NDArray[np.int32]
    propensity: Float64Array


def top_k(
    request: IntArray, item: npt.NDArray[np.generic], score: FloatArray, *, k: int
) -> SlateRows:
    """Rank each request's candidates by score, highest first, and keep the first ``k``.

    Equal scores go by item, ascending (integers by value, strings by code point), so slates don't
    depend on the order of the rows. A request has at most one row per item. Only what could be
    among the k is sorted; rows that come sorted by request are not sorted again.

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
    check_columns(request, item, score)
    order = rows_by_request(request)
    codes, scores = request[order], np.asarray(score[order], dtype=np.float64)
    kept = np.flatnonzero(contenders(scores, request_starts(codes), k=k))
    decided, undecided = best_first(scores[kept], request_starts(codes[kept]), k=k)
    tied = kept[undecided]
    tied = tied[np.lexsort((sortable(item[order][tied]), -scores[tied], codes[tied]))]
    chosen = np.append(kept[decided], tied)
    chosen = chosen[np.argsort(codes[chosen], kind="stable")]
    rank = rank_within(codes[chosen])
    chosen, rank = chosen[rank <= k], rank[rank <= k]
    rows = np.arange(len(request), dtype=np.int64)[order][chosen]
    return SlateRows(row_index=rows, rank=rank, propensity=np.ones(len(rows)))


def make_slates(
    candidates: SlateCandidates,
    scores: FloatArray,
    *,
    logits: FloatArray,
    config: SlateConfig,
    seed: int,
) -> SlateRows:
    """Fill each request's slate rank by rank with what the constraints still allow.

    Without exploration the best score first, ties by item, as in `top_k`. What is drawn is a
    function of (seed, request, item) alone.

    Args:
        candidates: what else is known of them, [N].
        scores: [N], which order the best.
        logits: [N], what Plackett–Luce draws by; see `score_logits`.
        config: size, constraints, exploration.
        seed: of the draws, >= 0.

    Raises:
        ValueError: as in `top_k`; with Plackett–Luce also logits that are not finite, or a
            temperature too low for them.
    """
    check_columns(candidates.request, candidates.item, scores)
    if isinstance(config.exploration, NoExploration) and not config.max_per:
        return _best_allowed(candidates, scores, k=config.size)
    lists = candidate_lists(candidates, config)
    score = np.asarray(scores[lists.rows], dtype=np.float64)
    match config.exploration:
        case NoExploration():
            made = _best(lists, score)
        case PlackettLuce(temperature=temperature):
            logit = np.asarray(logits[lists.rows], dtype=np.float64)
            made = _draw_plackett_luce(
                lists, logit, item_luck(candidates, lists, seed), temperature=temperature
            )
        case EpsilonMix(epsilon=epsilon):
            luck = item_luck(candidates, lists, seed)
            made = _draw_mixed(
                lists, score, luck, rank_coins(candidates, lists, seed), epsilon=epsilon
            )
        case _:
            assert_never(config.exploration)
    return replace(made, row_index=lists.rows[made.row_index])


def _best_allowed(candidates: SlateCandidates, scores: FloatArray, *, k: int) -> SlateRows:
    """The plain case, which needs no more than `top_k`."""
    if candidates.may_be_shown is None:
        return top_k(candidates.request, candidates.item, scores, k=k)
    rows = np.flatnonzero(candidates.may_be_shown)
    made = top_k(candidates.request[rows], candidates.item[rows], scores[rows], k=k)
    return replace(made, row_index=rows[made.row_index])


def _best(lists: CandidateLists, key: Float64Array) -> SlateRows:
    """The highest keys first, as far as the caps allow."""
    if not lists.caps:
        return top_k(lists.request, lists.item, key, k=lists.size)
    shown, _ = _fill(lists, [key], np.zeros((len(lists.starts) - 1, lists.size), dtype=np.int8))
    return _as_rows(shown)


def _fill(
    lists: CandidateLists, keys: Sequence[Float64Array], which: npt.NDArray[np.int8]
) -> tuple[IntArray, IntArray]:
    """`fill` from queues by ``keys``, of which mostly only the beginning has to be sorted."""
    request, lengths = lists.request, np.diff(lists.starts)
    depth = FIRST_DEPTH * lists.size
    queues = [_queue(lists, key, slice(None), depth=depth) for key in keys]
    shown, first = fill(queues, which, request=request, caps=lists.caps)
    short = (lengths > depth) & ((shown < 0) | (first < 0)).any(axis=1)  # its queue ended too soon
    if short.any():
        rows = np.flatnonzero(short[request])
        queues = [_queue(lists, key, rows, depth=int(lengths.max())) for key in keys]
        shown_too, first_too = fill(queues, which, request=request, caps=lists.caps)
        shown[short], first[short] = shown_too[short], first_too[short]
    return shown, first


def _queue(
    lists: CandidateLists, key: Float64Array, rows: IntArray | slice, *, depth: int
) -> Queue:
    """The first ``depth`` of ``rows`` of each request by ``key``, the highest first."""
    request = lists.request[rows]
    best = top_k(request, lists.item[rows], key[rows], k=depth).row_index
    best = best if isinstance(rows, slice) else rows[best]
    starts = np.searchsorted(lists.request[best], np.arange(len(lists.starts)))
    return Queue(rows=best, starts=starts)


def _draw_plackett_luce(
    lists: CandidateLists, logit: Float64Array, luck: Float64Array, *, temperature: float
) -> SlateRows:
    """Order by logit / temperature + Gumbel noise: skipping what a cap excludes changes nothing.

    The item of the highest key among a set is drawn by the softmax over that set; given it, the
    keys of the others are independent Gumbels cut off at its key. What may be shown at the next
    rank is a subset of those, chosen without looking at their keys, so its highest is again drawn
    by the softmax over that subset.
    """
    highest = np.repeat(np.maximum.reduceat(logit, lists.starts[:-1]), np.diff(lists.starts))
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = (logit - highest) / temperature
    if not (scaled >= -MAX_SPREAD).all():
        raise ValueError(
            f"slate: plackett_luce needs finite logits that differ by at most {MAX_SPREAD:g} "
            f"temperatures within a request, got {np.nanmin(logit):g} to {np.nanmax(logit):g} at "
            f"temperature {temperature:g}; raise it, or take exploration kind none"
        )
    made = _best(lists, scaled + gumbels(luck))
    return replace(
        made,
        propensity=plackett_luce_propensities(scaled, _admissible(lists, made), temperature=1.0),
    )


def _draw_mixed(
    lists: CandidateLists,
    score: Float64Array,
    luck: Float64Array,
    coins: Float64Array,
    *,
    epsilon: float,
) -> SlateRows:
    """At each rank the best of what is left, or where the coin says so the luckiest."""
    which = (coins < epsilon).astype(np.int8)  # [R, K]
    shown, best = _fill(lists, [score, luck], which)
    made = _as_rows(shown)
    is_best = (shown == best)[shown >= 0]
    propensity = mixed_propensities(is_best, _admissible(lists, made), epsilon=epsilon)
    return replace(made, propensity=propensity)


def _admissible(lists: CandidateLists, made: SlateRows) -> Admissible:
    last = last_ranks(
        made.row_index,
        made.rank,
        request=lists.request,
        caps=lists.caps,
        size=lists.size,
    )
    return Admissible(request=lists.request, last=last, shown=made.row_index, rank=made.rank)


def _as_rows(shown: IntArray) -> SlateRows:
    """Slates as rows, of rows by request and rank [R, K], -1 past the end."""
    ranks = np.broadcast_to(np.arange(1, shown.shape[1] + 1, dtype=np.int32), shown.shape)
    filled = shown >= 0
    return SlateRows(
        row_index=shown[filled], rank=ranks[filled], propensity=np.ones(int(filled.sum()))
    )
