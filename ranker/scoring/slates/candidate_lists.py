"""The candidates of a shard as slates are made of them: what may be shown, by request.

`N` candidates, `R` requests, `K` ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from ranker.scoring.slates.capped import Cap
from ranker.scoring.slates.chance import Draw, uniforms
from ranker.scoring.slates.selection import request_starts
from ranker.scoring.slates.slate_config import SlateConfig

IntArray = npt.NDArray[np.int64]
HashArray = npt.NDArray[np.uint64]
Float64Array = npt.NDArray[np.float64]
FloatArray = npt.NDArray[np.floating]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SlateCandidates:
    """What is known of candidates besides their scores; see `slate_candidates`.

    Attributes:
        request: codes, [N]; one row per request and item.
        item: ids, integers or strings, [N].
        may_be_shown: False where an item is too old, [N]; None where all may.
        cap_codes: by name of `SlateConfig.max_per`: equal codes are equal values, -1 none, [N].
        request_hash, item_hash: what the draws follow, [N]; not needed without exploration.
    """

    request: IntArray
    item: npt.NDArray[np.generic]
    may_be_shown: Mask | None = None
    cap_codes: Mapping[str, IntArray]
    request_hash: HashArray | None = None
    item_hash: HashArray | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CandidateLists:
    """The candidates that may be shown, by request; what follows counts rows among these.

    Attributes:
        rows: of all candidates, [N].
        request: 0 .. R - 1, ascending, [N].
        starts: where each begins, and N: [R + 1].
        item: numbers in the order of the ids, [N].
        size: K.
    """

    rows: IntArray
    request: IntArray
    starts: IntArray
    item: IntArray
    caps: tuple[Cap, ...]
    size: int


def candidate_lists(candidates: SlateCandidates, config: SlateConfig) -> CandidateLists:
    """Sort what may be shown by request.

    Raises:
        ValueError: a cap on what the candidates have no codes of.
    """
    missing = sorted(set(config.max_per) - set(candidates.cap_codes))
    if missing:
        raise ValueError(f"slate: max_per caps {missing}, whose codes the candidates lack")
    rows = np.arange(len(candidates.request), dtype=np.int64)
    if candidates.may_be_shown is not None:
        rows = rows[candidates.may_be_shown]
    rows = rows[rows_by_request(candidates.request[rows])]
    starts = request_starts(candidates.request[rows])
    request = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    return CandidateLists(
        rows=rows,
        request=request,
        starts=starts,
        item=sortable(candidates.item[rows]),
        caps=tuple(
            Cap(code=candidates.cap_codes[name][rows], most=most)
            for name, most in config.max_per.items()
        ),
        # no more ranks than the longest list can fill
        size=min(config.size, int(np.diff(starts).max(initial=1))),
    )


def item_luck(candidates: SlateCandidates, lists: CandidateLists, seed: int) -> Float64Array:
    """A number in (0, 1) for each candidate: [N]."""
    assert candidates.request_hash is not None and candidates.item_hash is not None
    request, item = candidates.request_hash[lists.rows], candidates.item_hash[lists.rows]
    return uniforms(seed, Draw.ITEMS, request=request, key=item)


def rank_coins(candidates: SlateCandidates, lists: CandidateLists, seed: int) -> Float64Array:
    """A number in (0, 1) for each rank: [R, K]."""
    assert candidates.request_hash is not None
    request = candidates.request_hash[lists.rows[lists.starts[:-1]]]
    ranks = np.arange(lists.size, dtype=np.uint64)
    coins = uniforms(
        seed,
        Draw.COINS,
        request=np.repeat(request, lists.size),
        key=np.tile(ranks, len(request)),
    )
    return coins.reshape(len(request), lists.size)


def check_columns(request: IntArray, item: npt.NDArray[np.generic], score: FloatArray) -> None:
    """Raise ValueError for columns of unequal length, scores that are NaN, or items of no use."""
    if not len(request) == len(item) == len(score):
        raise ValueError(
            "slate: request, item and score must have equal lengths, got "
            f"{len(request)}, {len(item)}, {len(score)}"
        )
    missing = np.isnan(score)
    if missing.any():
        raise ValueError(
            f"slate: request {request[missing.argmax()]} has a candidate whose score is NaN "
            f"(such rows: {int(missing.sum()):,}); a candidate without a score can't be ranked"
        )
    is_text = item.dtype.kind in "OUT" and pd.api.types.infer_dtype(item, skipna=False) in (
        "string",
        "empty",
    )
    if not (np.issubdtype(item.dtype, np.integer) or is_text):
        raise ValueError(
            f"slate: items must be integers or strings, got {item.dtype} values; "
            "give the log's item column as it is"
        )


def rows_by_request(request: IntArray) -> IntArray | slice:
    """What sorts rows by request and keeps their order otherwise; rows mostly come sorted."""
    if (request[1:] >= request[:-1]).all():
        return slice(None)
    return np.argsort(request, kind="stable")


def sortable(item: npt.NDArray[np.generic]) -> IntArray:
    """Integers as they are, strings as their ranks among the distinct ones: sorting is faster."""
    if np.issubdtype(item.dtype, np.integer):
        return item.astype(np.int64, copy=False)
    values = item.tolist()
    code_by_id = {value: code for code, value in enumerate(sorted(set(values)))}
    return np.fromiter((code_by_id[value] for value in values), dtype=np.int64, count=len(values))
