"""Random numbers that belong to a request and one of its items, whatever shard they are in.

A pure function of (seed, draw, request, item): the order of the rows, the shards and the workers
change nothing, and a slate can be drawn again from its log.

Shapes: ``N`` candidates.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import numpy.typing as npt

from ranker.data.row_hash import mixed_bits

HashArray = npt.NDArray[np.uint64]
FloatArray = npt.NDArray[np.float64]

_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio: the step of splitmix64's sequence
_MASK = 0xFFFFFFFFFFFFFFFF


class Draw(IntEnum):
    """What is drawn; no two draws share their numbers."""

    ITEMS = 1
    COINS = 2


def uniforms(seed: int, draw: Draw, *, request: HashArray, key: HashArray) -> FloatArray:
    """Numbers in (0, 1): [N].

    splitmix64's finaliser (Steele, Lea & Flood, OOPSLA 2014), once on the request and once on the
    request's state advanced by the key.

    Args:
        seed: >= 0.
        draw: see `Draw`.
        request: hashes, [N].
        key: hashes of items, or ranks, [N]; different within a request.
    """
    start = np.uint64((seed * _GOLDEN + (int(draw) << 56)) & _MASK)
    state = mixed_bits(request ^ mixed_bits(np.array([start])))
    bits = mixed_bits(state + (key + np.uint64(1)) * np.uint64(_GOLDEN))
    # 52 bits and a half: never 0, never 1
    return ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


def gumbels(uniform: FloatArray) -> FloatArray:
    """Standard Gumbel noise of numbers in (0, 1), [N].

    The highest of logit + noise is item i with probability exp(logit_i) / sum_j exp(logit_j), the
    second highest likewise among the rest (Gumbel top-k; Kool et al., ICML 2019).
    """
    return -np.log(-np.log(uniform))
