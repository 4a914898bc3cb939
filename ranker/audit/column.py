"""A column and what its values say: how many are null, distinct, whole; as numbers and as codes.

Shapes: N rows.
"""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ranker.data.column_types import is_text
from ranker.data.columns import EARLIEST_MS, LATEST_MS

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
ColumnKind = Literal["boolean", "number", "text", "date", "list", "null", "other"]
TimeUnit = Literal["s", "ms", "us", "ns", "timestamp", "date", "text"]
_MS_BY_UNIT: dict[TimeUnit, float] = {"s": 1e3, "ms": 1.0, "us": 1e-3, "ns": 1e-6}
_TIME_SAMPLE = 2_000


class Column:
    """One column of a table, looked at lazily."""

    def __init__(self, name: str, values: pa.ChunkedArray) -> None:
        array = values.combine_chunks()
        if isinstance(array, pa.ChunkedArray):  # no chunk at all
            array = pa.nulls(0, values.type)
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        self.name = name
        self.values = array

    @cached_property
    def kind(self) -> ColumnKind:
        """What sort of values it holds."""
        got = self.values.type
        if pa.types.is_boolean(got):
            return "boolean"
        if pa.types.is_integer(got) or pa.types.is_floating(got) or pa.types.is_decimal(got):
            return "number"
        if is_text(got):
            return "text"
        if pa.types.is_timestamp(got) or pa.types.is_date(got):
            return "date"
        if pa.types.is_null(got):
            return "null"
        is_list = pa.types.is_list(got) or pa.types.is_large_list(got)
        if is_list and (pa.types.is_integer(got.value_type) or is_text(got.value_type)):
            return "list"
        return "other"

    @cached_property
    def is_null(self) -> npt.NDArray[np.bool_]:
        """Null or NaN, [N]."""
        flags = pc.is_null(self.values, nan_is_null=pa.types.is_floating(self.values.type))
        return np.asarray(flags.to_numpy(zero_copy_only=False))

    @property
    def null_share(self) -> float:
        """Of the rows; 1 without rows."""
        return float(self.is_null.mean()) if len(self.values) else 1.0

    @cached_property
    def numbers(self) -> FloatArray:
        """As float64, null as NaN, [N]; all NaN where it holds no numbers."""
        if self.kind not in ("boolean", "number"):
            return np.full(len(self.values), np.nan)
        floats = pc.cast(self.values, pa.float64(), safe=False)
        return np.asarray(floats.to_numpy(zero_copy_only=False), dtype=np.float64)

    @cached_property
    def finite(self) -> FloatArray:
        """The finite numbers, at most N."""
        return self.numbers[np.isfinite(self.numbers)]

    @cached_property
    def codes(self) -> IntArray:
        """Any numbering of the distinct values from 0; −1 = null, [N]."""
        if self.kind in ("null", "other"):
            return np.full(len(self.values), -1, dtype=np.int64)
        values = self.values
        if self.kind == "list":
            values = pc.binary_join(pc.cast(values, pa.list_(pa.string())), "\x1f")
        indices = values.dictionary_encode().indices
        codes = pc.fill_null(indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
        codes[self.is_null] = -1
        return np.asarray(codes)

    @cached_property
    def num_distinct(self) -> int:
        """Distinct values, null not counted."""
        present = np.unique(self.codes)
        return int((present >= 0).sum())

    @cached_property
    def is_whole(self) -> bool:
        """Numbers without a fraction, and some."""
        return len(self.finite) > 0 and bool(np.all(self.finite == np.floor(self.finite)))

    @cached_property
    def is_binary(self) -> bool:
        """Booleans, or nothing but 0 and 1."""
        return len(self.finite) > 0 and bool(np.isin(self.finite, (0.0, 1.0)).all())

    @cached_property
    def time_unit(self) -> TimeUnit | None:
        """How it writes moments between 1990 and 2100; None where it doesn't."""
        if self.kind == "date":
            return "date" if pa.types.is_date(self.values.type) else "timestamp"
        if self.kind == "text":
            return "text" if _parses_as_time(self.values) else None
        if self.kind != "number" or len(self.finite) == 0 or not np.any(self.finite):
            return None
        given = self.finite[self.finite != 0]  # 0 stands for never
        for unit, factor in _MS_BY_UNIT.items():
            inside = (given * factor >= EARLIEST_MS) & (given * factor < LATEST_MS)
            if inside.mean() >= 0.99:
                return unit
        return None

    @cached_property
    def time_ms(self) -> FloatArray:
        """UTC milliseconds, NaN where there is no moment between 1990 and 2100, [N]."""
        match self.time_unit:
            case None:
                return np.full(len(self.values), np.nan)
            case "timestamp" | "date":
                stamps = pc.cast(
                    self.values,
                    pa.timestamp("ms", getattr(self.values.type, "tz", None)),
                    safe=False,
                )
                moments = pc.cast(pc.cast(stamps, pa.int64()), pa.float64()).to_numpy(
                    zero_copy_only=False
                )
            case "text":
                parsed = pd.to_datetime(
                    self.values.to_pandas(), errors="coerce", format="ISO8601", utc=True
                )
                stamps = pa.array(parsed.dt.as_unit("ms"), pa.timestamp("ms", "UTC"))
                moments = pc.cast(pc.cast(stamps, pa.int64()), pa.float64()).to_numpy(
                    zero_copy_only=False
                )
            case unit:
                moments = self.numbers * _MS_BY_UNIT[unit]
        with np.errstate(invalid="ignore"):
            possible = (moments >= EARLIEST_MS) & (moments < LATEST_MS)
        return np.where(possible, np.floor(moments), np.nan)


def columns_of(table: pa.Table) -> dict[str, Column]:
    """Every column by name."""
    return {name: Column(name, table.column(name)) for name in table.column_names}


def determined_share(owner: IntArray, codes: IntArray) -> tuple[float, int]:
    """How far ``codes`` is a property of ``owner``: share of rows equal to their owner's first row.

    Only owners with several rows count, and their first row does not.

    Args:
        owner: code of each row, −1 = none, [N].
        codes: of the column, null is a value, [N].

    Returns:
        The share and how many rows it rests on; (NaN, 0) without such rows.
    """
    used = owner >= 0
    owner, codes = owner[used], codes[used]
    _, first, place = np.unique(owner, return_index=True, return_inverse=True)
    later = np.ones(len(owner), dtype=bool)
    later[first] = False
    if not later.any():
        return float("nan"), 0
    return float((codes == codes[first][place])[later].mean()), int(later.sum())


def _parses_as_time(values: pa.Array) -> bool:
    given = values.drop_null()
    step = max(1, len(given) // _TIME_SAMPLE)
    texts = given.take(pa.array(np.arange(0, len(given), step))).to_pandas()
    if len(texts) == 0 or not texts.str.match(r"^\d{4}-\d{2}-\d{2}").all():
        return False
    return bool(pd.to_datetime(texts, errors="coerce", format="ISO8601", utc=True).notna().all())
