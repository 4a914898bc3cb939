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

    A null, a NaN and an absent column count as the same; so do 1 and 1.0.
    """
    num_rows = len(next(iter(columns.values())))
    total = np.zeros(num_rows, dtype=np.uint64)
    for name, values in columns.items():
        salt = hashlib.sha256(name.encode()).digest()[:8]
        mixed = _mix(_hash_values(values) ^ np.frombuffer(salt, dtype="<u8"))
        given = ~pc.is_null(values, nan_is_null=True).to_numpy(zero_copy_only=False)
        total += np.where(given, mixed, np.uint64(0))  # a sum: columns may come in any order
    return _mix(total).view(np.int64)


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
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        texts = values.to_numpy(zero_copy_only=False).astype(object)
    else:  # lists, structures, decimals: rare in a log
        texts = np.array([repr(value) for value in values.to_pylist()], dtype=object)
    return np.asarray(pd.util.hash_array(texts), dtype=np.uint64)


def _hash_floats(values: pa.Array) -> HashArray:
    numbers = np.nan_to_num(values.to_numpy(zero_copy_only=False), posinf=np.inf, neginf=-np.inf)
    whole = (np.abs(numbers) < EXACT_FLOAT) & (numbers == np.floor(numbers))
    integers = np.where(whole, numbers, 0).astype(np.int64).view(np.uint64)
    return np.where(whole, integers, numbers.astype(np.float64).view(np.uint64))


def _mix(bits: HashArray) -> HashArray:
    """The finaliser of splitmix64 (Steele et al., OOPSLA 2014): every bit moves every other."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
