"""Ids become indices, numbered in the order in which they first appear; 0 is the unknown id.

A later row never changes an earlier index. Looking up and learning cost as much as a chunk holds,
however many ids are known already.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ranker.data.parquet import DataError

IndexArray = npt.NDArray[np.int64]
IdArray = npt.NDArray[np.int64] | npt.NDArray[np.object_]


class Vocabulary:
    """Category -> index from 1 in order of first appearance; 0 = unknown or null."""

    def __init__(self, ids: IdArray | None = None) -> None:
        # Hash tables of falling size: new ids begin a small one, and neighbours of about one size
        # become one, so that an id is hashed again a logarithmic number of times at most.
        self._parts: list[pd.Index] = []
        if ids is not None and len(ids):
            self._append(ids)

    def __len__(self) -> int:
        """Number of rows an embedding of it needs: known ids and the unknown one."""
        return sum(len(part) for part in self._parts) + 1

    @property
    def ids(self) -> IdArray:
        """The known ids; ``ids[i]`` has index ``i + 1``."""
        if not self._parts:
            return np.array([], dtype=object)
        return np.concatenate([part.to_numpy() for part in self._parts])

    def encode(self, values: pa.Array | pa.ChunkedArray) -> IndexArray:
        """Indices of ``values``; ids not seen before and nulls become 0.

        Raises:
            DataError: texts where the known ids are integers, or the other way round.
        """
        distinct, place = _distinct(values)
        return np.append(self._look_up(distinct), 0)[place]

    def encode_and_learn(self, values: pa.Array | pa.ChunkedArray) -> IndexArray:
        """Like `encode`, but new ids are appended first, in order of appearance."""
        distinct, place = _distinct(values)
        index = self._look_up(distinct)
        new = index == 0
        index[new] = len(self) + np.arange(int(new.sum()))
        if new.any():
            self._append(distinct[new])
        return np.append(index, 0)[place]

    def decode(self, index: IndexArray) -> pa.Array:
        """Ids of ``index``; 0 becomes null."""
        ids = self.ids
        known = np.maximum(index - 1, 0)
        taken = ids[known] if len(ids) else np.zeros(len(index), dtype=np.int64)
        return pa.array(taken, mask=index == 0)

    def head(self, num_rows: int) -> Vocabulary:
        """The vocabulary as it was when `len` was ``num_rows``."""
        return Vocabulary(self.ids[: num_rows - 1])

    def _append(self, ids: IdArray) -> None:
        self._parts.append(pd.Index(ids, dtype=ids.dtype))
        while len(self._parts) > 1 and len(self._parts[-2]) < 2 * len(self._parts[-1]):
            last = [self._parts.pop().to_numpy(), self._parts.pop().to_numpy()]
            self._parts.append(pd.Index(np.concatenate(last[::-1]), dtype=ids.dtype))

    def _look_up(self, distinct: IdArray) -> IndexArray:
        index = np.zeros(len(distinct), dtype=np.int64)
        if len(distinct) == 0 or not self._parts:
            return index
        self._require_type(distinct)
        first = 1
        wanted = pd.Index(distinct, dtype=distinct.dtype)
        for part in self._parts:
            found = part.get_indexer(wanted)
            index = np.where(found >= 0, found + first, index)
            first += len(part)
        return index

    def _require_type(self, ids: IdArray) -> None:
        if self._parts[0].dtype != ids.dtype:
            known, got = (
                "integers" if dtype == np.int64 else "texts"
                for dtype in (self._parts[0].dtype, ids.dtype)
            )
            raise DataError(
                f"ids changed their type: {known} so far, now {got} such as "
                f"{str(ids[0])!r}; ids must have one type in the log and all tables"
            )


def _distinct(values: pa.Array | pa.ChunkedArray) -> tuple[IdArray, IndexArray]:
    """The distinct ids in order of appearance, and each value's place among them (-1 = null)."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    encoded = pc.dictionary_encode(values)
    place = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
    if pa.types.is_string(values.type):
        texts = np.asarray(encoded.dictionary.to_numpy(zero_copy_only=False), dtype=object)
        return texts, place
    numbers = pc.cast(encoded.dictionary, pa.int64()).to_numpy(zero_copy_only=False)
    return np.asarray(numbers, dtype=np.int64), place
