"""Where the world's chance comes from, so that nothing depends on how the work is divided.

Two sources, both pure functions of a seed and of what is drawn: a generator for each chunk of users
on each day (`generator`), and a hash for whatever belongs to one request and one of its items
(`uniforms`). The noise of an item in a request is then the same whichever other requests, arms or
workers there are; two rankings of one request meet the same luck.

Shapes: ``R`` requests, ``C`` items of a request.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio: the step of the Weyl sequence
_MASK = 0xFFFFFFFFFFFFFFFF


class Source(IntEnum):
    """What is drawn; no two draws share a source."""

    USERS = 1
    ITEMS = 2
    SESSIONS = 3
    CANDIDATES = 4
    SLATES = 5
    POLICY_NOISE = 6
    BEHAVIOUR = 7
    ACTIVITY = 8
    TABLES = 9


def generator(seed: int, source: Source, *, day: int = 0, chunk: int = 0) -> np.random.Generator:
    """A generator of its own for each (seed, source, day, chunk of users)."""
    sequence = np.random.SeedSequence(seed, spawn_key=(source, day, chunk))
    return np.random.Generator(np.random.SFC64(sequence))


def uniforms(seed: int, source: Source, *, requests: IntArray, items: IntArray) -> FloatArray:
    """Numbers in (0, 1), a pure function of (seed, source, request, item), [R, C].

    The finaliser of SplitMix64 (Steele, Lea & Flood, OOPSLA 2014), once on the request and once on
    the request's state advanced by the item.

    Args:
        seed, source: see `generator`.
        requests: ids, [R].
        items: ids or slots, not negative, [R, C] or [1, C].
    """
    start = np.uint64((seed * _GOLDEN + (source << 56)) & _MASK)
    state = _mixed(requests.astype(np.uint64) + start)  # [R]
    steps = items.astype(np.uint64)
    steps = (steps + np.uint64(1)) * np.uint64(_GOLDEN)
    bits = _mixed(state[:, None] + steps)  # [R, C]
    bits >>= np.uint64(12)  # 52 bits and a half: never 0, never 1
    numbers = bits.astype(np.float64)
    numbers += 0.5
    numbers *= 2.0**-52
    return numbers


def _mixed(states: NDArray[np.uint64]) -> NDArray[np.uint64]:
    mixed = states ^ (states >> np.uint64(30))
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed
