"""Raw values become numbers: vocabularies, standardisers and label scales, fitted on the past only.

Standardisers and label scales are fitted on the first windows and frozen. All of it is saved in
one Parquet file: a row whose columns are the vocabularies' ids in order of their indices, and the
scales as JSON in the file's metadata. Ids as JSON would take ten times their memory to read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ranker.atomic import replacing_file
from ranker.data.parquet import DataError
from ranker.data.vocabulary import IdArray, IndexArray, Vocabulary
from ranker.schema import Schema

MAX_STANDARDISED = 8.0  # later windows may leave the first one's range, but not by worlds
MS_PER_DAY = 86_400_000
ENCODERS_FILE = "encoders.parquet"
_FORMAT = 2
_FORMAT_KEY, _SCALES_KEY = b"ranker.format", b"ranker.scales"
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """(value − mean) / scale is standardised."""

    mean: float
    scale: float


@dataclass(slots=True, kw_only=True)
class Encoders:
    """Everything that turns raw values into the model's numbers and back."""

    vocabularies: dict[str, Vocabulary]
    standardisers: dict[str, Scale] = field(default_factory=dict)
    label_scales: dict[str, Scale] = field(default_factory=dict)

    @classmethod
    def empty(cls, schema: Schema) -> Encoders:
        """Nothing seen yet."""
        return cls(vocabularies={name: Vocabulary() for name in schema.vocabularies})

    @property
    def sizes(self) -> dict[str, int]:
        """Rows of each vocabulary's embedding."""
        return {name: len(vocabulary) for name, vocabulary in self.vocabularies.items()}

    def head(self, sizes: Mapping[str, int]) -> Encoders:
        """The encoders as they were when the vocabularies had ``sizes``."""
        return Encoders(
            vocabularies={n: v.head(sizes[n]) for n, v in self.vocabularies.items()},
            standardisers=dict(self.standardisers),
            label_scales=dict(self.label_scales),
        )

    def extends(self, earlier: Encoders) -> bool:
        """True if every index and scale of ``earlier`` means the same here."""
        return (
            self.standardisers == earlier.standardisers
            and self.label_scales == earlier.label_scales
            and self.vocabularies.keys() == earlier.vocabularies.keys()
            and all(
                np.array_equal(self.vocabularies[name].ids[: len(vocabulary) - 1], vocabulary.ids)
                for name, vocabulary in earlier.vocabularies.items()
            )
        )

    def save(self, path: Path) -> None:
        """Write as Parquet; equal encoders give equal bytes."""
        scales = {
            "standardisers": {n: [s.mean, s.scale] for n, s in self.standardisers.items()},
            "label_scales": {n: [s.mean, s.scale] for n, s in self.label_scales.items()},
        }
        columns = {name: _one_list(v.ids) for name, v in self.vocabularies.items()}
        schema = pa.schema(
            [(name, column.type) for name, column in columns.items()],
            metadata={_FORMAT_KEY: str(_FORMAT), _SCALES_KEY: json.dumps(scales)},
        )
        table = pa.table(columns, schema=schema)
        with replacing_file(path) as temporary:
            pq.write_table(
                table,
                temporary,
                compression="zstd",
                use_dictionary=False,
                write_statistics=False,
                write_page_checksum=True,
            )

    @classmethod
    def load(cls, path: Path) -> Encoders:
        """Read what `save` wrote.

        Raises:
            DataError: missing, damaged or of an unknown format.
        """
        try:
            table = pq.read_table(path, page_checksum_verification=True, memory_map=False)
            metadata = table.schema.metadata or {}
            found = metadata[_FORMAT_KEY].decode()
            if found != str(_FORMAT):
                raise DataError(f"{path}: format {found} is not known (expected {_FORMAT})")
            scales = json.loads(metadata[_SCALES_KEY])
            return cls(
                vocabularies={name: _vocabulary(table[name]) for name in table.column_names},
                standardisers={n: _scale(v) for n, v in scales["standardisers"].items()},
                label_scales={n: _scale(v) for n, v in scales["label_scales"].items()},
            )
        except FileNotFoundError:
            raise DataError(f"{path}: no such file") from None
        except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{path}: is no encoder file: {error!r}") from None


def fit_scale(values: FloatArray) -> Scale:
    """Mean and standard deviation of the finite ``values``; (0, 1) if there are none."""
    finite = values[np.isfinite(values)]
    if len(finite) == 0:
        return Scale(mean=0.0, scale=1.0)
    deviation = float(finite.std())
    return Scale(mean=float(finite.mean()), scale=deviation if deviation > 1e-9 else 1.0)


def standardise(values: FloatArray, scale: Scale) -> npt.NDArray[np.float32]:
    """Standardise and cut to ±8; NaN (null) stays NaN."""
    standardised = np.clip((values - scale.mean) / scale.scale, -MAX_STANDARDISED, MAX_STANDARDISED)
    return standardised.astype(np.float32)


def encode_sequences(
    values: pa.Array | pa.ChunkedArray, vocabulary: Vocabulary, *, length: int
) -> IndexArray:
    """Encode list values as [N, length]: the last elements, newest last, zeros in front."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    flat = pc.list_flatten(values)
    index = vocabulary.encode(flat)
    lengths = pc.fill_null(pc.list_value_length(values), 0).to_numpy(zero_copy_only=False)
    ends = np.cumsum(lengths.astype(np.int64))
    slots = ends[:, None] - np.arange(length, 0, -1)[None, :]  # [N, L]
    inside = slots >= (ends - lengths)[:, None]
    if len(index) == 0:
        return np.zeros(slots.shape, dtype=np.int64)
    return np.where(inside, index[np.where(inside, slots, 0)], 0)


def numeric_values(
    values: pa.Array | pa.ChunkedArray, transform: str, time_ms: IndexArray
) -> FloatArray:
    """Transform a canonical numeric column; null becomes NaN."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    numbers: FloatArray = pc.cast(values, pa.float64()).to_numpy(zero_copy_only=False)
    match transform:
        case "log1p":
            return np.log1p(numbers)
        case "age_days":
            return (time_ms - numbers) / MS_PER_DAY
        case _:
            return numbers


def hour_of_day(time_ms: IndexArray, time_zone: str) -> IndexArray:
    """Local hour 0..23."""
    return (local_ms(time_ms, time_zone) // 3_600_000) % 24


def local_ms(time_ms: IndexArray, time_zone: str) -> IndexArray:
    """Wall-clock milliseconds: UTC plus the zone's offset at that moment."""
    stamps = pd.DatetimeIndex(np.asarray(time_ms, dtype="datetime64[ms]"), tz="UTC")
    wall = stamps.tz_convert(time_zone).tz_localize(None)
    return wall.as_unit("ms").asi8.astype(np.int64)


def _one_list(ids: IdArray) -> pa.Array:
    """The ids as the only element of an array of lists."""
    kind = pa.int64() if ids.dtype == np.int64 else pa.string()
    flat = pa.array(ids, type=kind)
    return pa.LargeListArray.from_arrays([0, len(flat)], flat)


def _vocabulary(column: pa.ChunkedArray) -> Vocabulary:
    is_list = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
    if len(column) != 1 or not is_list:
        raise ValueError(f"a vocabulary must be one list, got {len(column)} rows of {column.type}")
    ids = column.combine_chunks().values
    if ids.null_count or ids.type not in (pa.int64(), pa.string()):
        raise TypeError(f"a vocabulary must hold integers or texts, got {ids.type}")
    if len(pc.unique(ids)) != len(ids):
        raise ValueError("a vocabulary must not hold an id twice")
    if ids.type == pa.string():
        return Vocabulary(ids.to_numpy(zero_copy_only=False))
    return Vocabulary(ids.to_numpy())


def _scale(pair: object) -> Scale:
    if not isinstance(pair, list) or len(pair) != 2:
        raise TypeError("a scale must be [mean, scale]")
    scale = Scale(mean=float(pair[0]), scale=float(pair[1]))
    if not (np.isfinite(scale.mean) and np.isfinite(scale.scale) and scale.scale > 0):
        raise ValueError("a scale must be finite and positive")
    return scale
