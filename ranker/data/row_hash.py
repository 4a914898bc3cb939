"""A 64-bit hash of a row's content, whatever file, batch or column order it came in."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

HashArray = npt.NDArray[np.uint64]
EXACT_FLOAT = 2.0**53  # whole floats below this are integers that a null once turned into floats


def hash_rows(columns: Mapping[str, pa.Array]) -> npt.NDArray[np.int64]:
    """Hash of all ``columns`` [N]: equal rows have equal hashes.

    A null, a NaN and an absent column count as the same; so do 1 and 1.0, and equal texts whatever
    Arrow type holds them.
    """
    num_rows = len(next(iter(columns.values())))
    total = np.zeros(num_rows, dtype=np.uint64)
    for name, values in columns.items():
        salt = hashlib.sha256(name.encode()).digest()[:8]
        mixed = mixed_bits(_hash_values(values) ^ np.frombuffer(salt, dtype="<u8"))
        if values.null_count or pa.types.is_floating(values.type):
            mixed[pc.is_null(values, nan_is_null=True).to_numpy(zero_copy_only=False)] = 0
        total += mixed  # a sum: columns may come in any order
    return mixed_bits(total).view(np.int64)


def _hash_values(values: pa.Array) -> HashArray:
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    kind = values.type
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        values = pc.cast(pc.cast(values, pa.timestamp("us"), safe=False), pa.int64())
    elif pa.types.is_boolean(kind):
        values = pc.cast(values, pa.uint8())
    if pa.types.is_integer(values.type):
        whole: HashArray = pc.fill_null(values, 0).to_numpy(zero_copy_only=False)
        return whole.astype(np.int64).view(np.uint64)
    if pa.types.is_floating(kind):
        return _hash_floats(pc.cast(values, pa.float64()))
    if pa.types.is_string_view(kind):
        values = pc.cast(values, pa.large_string())
    elif not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        # lists, structures, decimals: rare in a log
        values = pa.array([repr(value) for value in values.to_pylist()], pa.string())
    distinct = pc.dictionary_encode(values)
    texts = np.asarray(distinct.dictionary.to_numpy(zero_copy_only=False), dtype=object)
    hashes = np.append(pd.util.hash_array(texts, categorize=False), np.uint64(0))
    place = pc.fill_null(distinct.indices, -1).to_numpy(zero_copy_only=False)
    return np.asarray(hashes[place], dtype=np.uint64)


def _hash_floats(values: pa.Array) -> HashArray:
    numbers = np.nan_to_num(values.to_numpy(zero_copy_only=False), posinf=np.inf, neginf=-np.inf)
    whole = (np.abs(numbers) < EXACT_FLOAT) & (numbers == np.floor(numbers))
    integers = np.where(whole, numbers, 0).astype(np.int64).view(np.uint64)
    return np.where(whole, integers, numbers.astype(np.float64).view(np.uint64))


def mixed_bits(bits: HashArray) -> HashArray:
    """The finaliser of splitmix64 (Steele et al., OOPSLA 2014): every bit moves every other."""
    mixed = bits >> np.uint64(30)
    mixed ^= bits
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed
