"""Where an id's embedding starts: a pure function of (seed, vocabulary, id).

So an id seen first on day 11 starts at the same vector whether the model was trained on 14 days at
once or on ten and then four, whatever other ids came before it and on whichever machine.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from pandas.util import hash_array
from torch import Tensor

# standard deviation .05: embeddings of order 1 start with noise of every rare id in every logit,
# of order 1e-3 they need many steps to matter at all
INITIAL_BOUND = 0.05 * math.sqrt(3)
_HASH_KEY = "ranker embedding"  # 16 bytes, as SipHash wants them; changing it changes every model
_ROWS_PER_BLOCK = 65_536  # bounds the 64-bit temporaries of a large vocabulary
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def fill_initial_rows(
    rows: Tensor,
    ids: Sequence[int] | Sequence[str] | NDArray[np.generic],
    *,
    seed: int,
    vocabulary: str,
) -> None:
    """Give ``rows`` [N, width] the initial embeddings of N ids, uniform in ±`INITIAL_BOUND`.

    Each id is hashed, mixed with a key of seed and vocabulary, and drives a SplitMix64 stream
    (Steele et al., OOPSLA 2014), one draw a column; all in 64-bit integers, hence the same bits
    everywhere.

    Raises:
        ValueError: ids that are neither all integers nor all strings.
    """
    width = rows.shape[1]
    digest = hashlib.sha256(f"{seed}\0{vocabulary}".encode()).digest()
    key = np.frombuffer(digest[:8], dtype="<u8").astype(np.uint64)
    counters = np.arange(1, width + 1, dtype=np.uint64) * _GOLDEN  # [width]
    for start in range(0, len(ids), _ROWS_PER_BLOCK):
        block = slice(start, start + _ROWS_PER_BLOCK)
        states = _mix(_hash_ids(ids[block], vocabulary=vocabulary) ^ key)  # [block]
        bits = _mix(states[:, None] + counters) >> np.uint64(40)  # [block, width], 24 bits each
        values = ((bits + 0.5) * (2 * INITIAL_BOUND / 2**24)) - INITIAL_BOUND
        rows[block] = torch.from_numpy(values.astype(np.float32))


def _hash_ids(
    ids: Sequence[int] | Sequence[str] | NDArray[np.generic], *, vocabulary: str
) -> NDArray[np.uint64]:
    if len(ids) == 0:
        return np.empty(0, dtype=np.uint64)
    if isinstance(ids[0], str):
        # an object array: a fixed-width one would strip trailing NUL characters
        strings = np.array(ids, dtype=object)
        if all(isinstance(value, str) for value in strings):
            return hash_array(strings, hash_key=_HASH_KEY, categorize=False)
    else:
        numbers = np.asarray(ids)
        if numbers.dtype.kind in "iu":
            return hash_array(numbers.astype(np.int64))
    raise ValueError(
        f"vocabulary {vocabulary!r}: ids must be all integers or all strings, got "
        f"{sorted({type(value).__name__ for value in ids})}; cast the column in the log"
    )


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser: a bijection of 64 bits in which every input bit moves all others."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
