"""The exposure log: what an offline judge has to know of a slate besides its items.

Beside the request, user, time and item, which candidates bring along, each shown row says

- ``rank``, ``score``, ``logit``: its place and what it was placed by;
- ``propensity``: P(this item at this rank, given the items above it, among the candidates that the
  constraints allowed there); the product over a slate's rows is the slate's;
- ``exploration``, ``temperature``, ``epsilon``: the policy's kind of chance;
- ``candidate_set``: a digest of the ids of all candidates of the request;
- ``bundle``, ``score_weights``: digests of what ranked; both are constant, so they cost nothing in
  Parquet, and a log joined from many nights still tells its policies apart;
- on request ``candidate_items`` and ``candidate_logits``: in the row of rank 1 the ids and logits
  of all candidates that could have been shown, nulls in the others.

`N` candidates, `M` shown rows, `R` requests.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ranker.data.row_hash import mixed_bits
from ranker.scoring.slates.candidate_lists import SlateCandidates
from ranker.scoring.slates.selection import request_starts
from ranker.scoring.slates.slate import SlateRows
from ranker.scoring.slates.slate_config import EpsilonMix, Exploration, PlackettLuce, SlateConfig

IntArray = npt.NDArray[np.int64]
HashArray = npt.NDArray[np.uint64]
FloatArray = npt.NDArray[np.float64]

EXPOSURE_COLUMNS = (
    "rank",
    "score",
    "logit",
    "propensity",
    "exploration",
    "temperature",
    "epsilon",
    "candidate_set",
    "bundle",
    "score_weights",
    "candidate_items",
    "candidate_logits",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyDigests:
    """Which model and which score weights made a slate (sha256)."""

    bundle: str
    score_weights: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SlateCounts:
    """How the constraints worked out; adds up over shards.

    Attributes:
        requests: with at least one candidate.
        shown: rows of all slates.
        short_slates: requests whose slate has fewer items than asked for.
        missing_items: how many fewer, in all.
        empty_slates: requests of which nothing could be shown.
        hidden_by_freshness: candidates that were too old, or of unknown age.
        without_value: cap -> candidates without a value, which it leaves alone.
    """

    requests: int = 0
    shown: int = 0
    short_slates: int = 0
    missing_items: int = 0
    empty_slates: int = 0
    hidden_by_freshness: int = 0
    without_value: dict[str, int]

    def __add__(self, other: SlateCounts) -> SlateCounts:
        """The counts of both."""
        names = {*self.without_value, *other.without_value}
        return SlateCounts(
            requests=self.requests + other.requests,
            shown=self.shown + other.shown,
            short_slates=self.short_slates + other.short_slates,
            missing_items=self.missing_items + other.missing_items,
            empty_slates=self.empty_slates + other.empty_slates,
            hidden_by_freshness=self.hidden_by_freshness + other.hidden_by_freshness,
            without_value={
                name: self.without_value.get(name, 0) + other.without_value.get(name, 0)
                for name in sorted(names)
            },
        )


def count_slates(candidates: SlateCandidates, slates: SlateRows, *, size: int) -> SlateCounts:
    """Count what the constraints left of the slates."""
    requests = np.unique(candidates.request)
    shown = np.bincount(
        np.searchsorted(requests, candidates.request[slates.row_index]), minlength=len(requests)
    )
    hidden = 0 if candidates.may_be_shown is None else int((~candidates.may_be_shown).sum())
    return SlateCounts(
        requests=len(requests),
        shown=len(slates.row_index),
        short_slates=int((shown < size).sum()),
        missing_items=int((size - shown).sum()),
        empty_slates=int((shown == 0).sum()),
        hidden_by_freshness=hidden,
        without_value={n: int((codes < 0).sum()) for n, codes in candidates.cap_codes.items()},
    )


def score_logits(scores: FloatArray, combination: str) -> FloatArray:
    """What Plackett–Luce draws by: the logarithm of a weighted product, other scores themselves.

    A product's logarithm is the weighted sum of its tasks' log gains, so a temperature means the
    same for slates of good and of bad candidates.
    """
    return np.log(scores) if combination == "weighted_product" else scores.astype(np.float64)


def candidate_sets(request: IntArray, item_hash: HashArray) -> IntArray:
    """A digest of all items of each row's request, in whatever order they come: [N].

    The mixed sum of the items' mixed hashes and their number; 64 bits.
    """
    order = np.argsort(request, kind="stable")
    starts = request_starts(request[order])
    if not len(request):
        return np.zeros(0, dtype=np.int64)
    sums = np.add.reduceat(mixed_bits(item_hash[order]), starts[:-1])
    lengths = np.diff(starts)
    digests = mixed_bits(sums + lengths.astype(np.uint64))
    of_rows = np.empty(len(request), dtype=np.uint64)
    of_rows[order] = np.repeat(digests, lengths)
    return of_rows.view(np.int64)


def exposure_columns(
    candidates: SlateCandidates,
    slates: SlateRows,
    *,
    logits: FloatArray,
    item_hash: HashArray,
    config: SlateConfig,
    policy: PolicyDigests,
) -> dict[str, pa.Array]:
    """The columns that `EXPOSURE_COLUMNS` adds to rank and score: name -> [M].

    Args:
        candidates, logits: what the slates were made of, [N].
        slates: as `make_slates` made them.
        item_hash: see `item_hashes`, [N].
        config: how they were made.
        policy: what scored them.
    """
    rows = slates.row_index
    exploration = config.exploration
    columns = {
        "logit": pa.array(logits[rows]),
        "propensity": pa.array(slates.propensity),
        "exploration": _constant(exploration.kind, len(rows)),
        "temperature": _constant_float(_temperature(exploration), len(rows)),
        "epsilon": _constant_float(_epsilon(exploration), len(rows)),
        "candidate_set": pa.array(candidate_sets(candidates.request, item_hash)[rows]),
        "bundle": _constant(policy.bundle, len(rows)),
        "score_weights": _constant(policy.score_weights, len(rows)),
    }
    if config.log_candidates:
        columns |= _candidate_lists(candidates, slates, logits)
    return columns


def _candidate_lists(
    candidates: SlateCandidates, slates: SlateRows, logits: FloatArray
) -> dict[str, pa.Array]:
    """Ids and logits of what could be shown, in the row of rank 1."""
    allowed = candidates.may_be_shown
    rows = np.arange(len(candidates.request)) if allowed is None else np.flatnonzero(allowed)
    # By id, so that a log does not depend on the order in which candidates came.
    rows = rows[np.lexsort((_order_of(candidates.item[rows]), candidates.request[rows]))]
    lengths = np.diff(request_starts(candidates.request[rows]))
    is_first = slates.rank == 1  # of as many slates as there are requests with something to show
    per_row = np.zeros(len(is_first), dtype=np.int64)
    per_row[is_first] = lengths
    ends = np.append(0, np.cumsum(per_row)).astype(np.int32)
    offsets = pa.array(ends, mask=np.append(~is_first, False))
    return {
        "candidate_items": pa.ListArray.from_arrays(offsets, pa.array(candidates.item[rows])),
        "candidate_logits": pa.ListArray.from_arrays(offsets, pa.array(logits[rows])),
    }


def _order_of(item: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    return (
        item if np.issubdtype(item.dtype, np.integer) else np.unique(item, return_inverse=True)[1]
    )


def _constant(value: str, length: int) -> pa.Array:
    return pa.repeat(pa.scalar(value, pa.string()), length)


def _constant_float(value: float | None, length: int) -> pa.Array:
    return pa.nulls(length, pa.float64()) if value is None else pa.array(np.full(length, value))


def _temperature(exploration: Exploration) -> float | None:
    return exploration.temperature if isinstance(exploration, PlackettLuce) else None


def _epsilon(exploration: Exploration) -> float | None:
    return exploration.epsilon if isinstance(exploration, EpsilonMix) else None
