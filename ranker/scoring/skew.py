"""Training–serving skew: are the same raw rows encoded alike on both paths?

`prepare` has encoded a log's rows in passing, learning as it went. `score` encodes rows from a
state as of a moment. For the rows after that moment the two must agree wherever the training path
knew no more than the state:

- a declared feature in every row, ids being unknown that the state had not seen;
- the user's last items and what follows from them: until feedback given after the state's moment
  becomes visible for this user;
- an impression count: until such feedback becomes visible for its key;
- a smoothed rate, which leans on the overall mean: until any such feedback becomes visible.

Shapes: ``N`` rows, ``L`` length of a sequence.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from ranker.bundle import ModelBundle
from ranker.data.encode import Encoders
from ranker.data.features import ColumnArray, FeatureSource, encode_rows, standardise_columns
from ranker.data.history_state import counter_key
from ranker.data.store import EncodedStore
from ranker.schema import FeatureSpec, Schema

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
EncodedArray = npt.NDArray[np.generic]


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstDifference:
    """The first row that differs: its number in the prepared data, user, time and both values."""

    row: int
    user: str
    time_ms: int
    trained: str
    served: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureSkew:
    """One feature on both paths: rows compared, rows that differ, sha256 of the compared values."""

    feature: str
    rows: int
    differing: int
    trained_sha256: str
    served_sha256: str
    first: FirstDifference | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SkewCheck:
    """A state's window: how many rows it has, and every feature of the model."""

    window: str
    as_of_ms: int
    rows: int
    features: tuple[FeatureSkew, ...]

    @property
    def skewed(self) -> tuple[FeatureSkew, ...]:
        """The features that differ."""
        return tuple(one for one in self.features if one.differing)


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowRows:
    """Rows ``start:stop`` of a store, all at or after a state's moment and in one window.

    ``candidates`` are the same rows as `score` would read them, ``visible_ms`` [N] when each row's
    feedback became visible.
    """

    window: str
    start: int
    stop: int
    candidates: pa.Table
    visible_ms: IntArray


def check_skew(
    bundle: ModelBundle, source: FeatureSource, store: EncodedStore, rows: WindowRows
) -> SkewCheck:
    """Compare both paths on ``rows``, feature by feature."""
    schema = bundle.schema
    served = served_columns(bundle, source, rows.candidates)
    trained = trained_columns(store, rows.start, rows.stop)
    comparable = comparable_rows(trained, rows.visible_ms, schema)
    known = {
        name: min(size, source.encoders.sizes[name]) for name, size in bundle.encoders.sizes.items()
    }
    features = list(schema.all_features)
    return SkewCheck(
        window=rows.window,
        as_of_ms=source.history.as_of_ms,
        rows=rows.stop - rows.start,
        features=tuple(
            _compare(
                feature,
                _known_only(trained[f"feature.{feature.name}"], feature, schema, known),
                _known_only(served[f"feature.{feature.name}"], feature, schema, known),
                comparable[feature.name],
                _Naming(store=store, rows=rows),
            )
            for feature in features
        ),
    )


def served_columns(
    bundle: ModelBundle, source: FeatureSource, candidates: pa.Table
) -> Mapping[str, EncodedArray]:
    """What the model sees of ``candidates`` when they are scored, as it is stored."""
    encoded = encode_rows(candidates, source, learn=False)
    return standardise_columns(encoded.columns, bundle.encoders)


def trained_columns(store: EncodedStore, start: int, stop: int) -> Mapping[str, EncodedArray]:
    """What was prepared for rows ``start:stop``: [N] or [N, L] each."""
    span = slice(start, stop)
    columns: dict[str, EncodedArray] = {}
    for name, block in store.blocks.items():
        columns |= zip(block.columns, store.rows(name, span).T, strict=True)
    for name, ragged in store.ragged.items():
        padded = store.sequences(name, span, ragged.length)
        columns |= zip(ragged.columns, np.moveaxis(padded, 2, 0), strict=True)
    return columns


def comparable_rows(
    trained: Mapping[str, EncodedArray], visible_ms: IntArray, schema: Schema
) -> Mapping[str, BoolArray]:
    """Feature -> rows [N] before which the training path had learned nothing that bears on it."""
    time_ms = np.asarray(trained["time_ms"], dtype=np.int64)

    def before_any(key: IntArray) -> BoolArray:
        first = pd.Series(visible_ms).groupby(key).transform("min").to_numpy()
        return np.asarray(time_ms <= first)  # a request at t sees what is visible before t

    index = {name: np.asarray(trained[name], dtype=np.int64) for name in ("user", "item")}
    for name, vocabulary in schema.counted_vocabularies.items():
        index[vocabulary] = np.asarray(trained[f"feature.{name}"], dtype=np.int64)
    everywhere = np.ones(len(time_ms), dtype=bool)
    comparable = {feature.name: everywhere for feature in schema.features}
    of_user, of_anybody = before_any(index["user"]), before_any(np.zeros_like(time_ms))
    comparable |= {feature.name: of_user for feature in schema.history_features}
    for counter in schema.counters:
        comparable[f"{counter.name}_count"] = before_any(counter_key(index, counter))
        comparable |= {f"{counter.name}_{task}_rate": of_anybody for task in schema.rates}
    return comparable


@dataclass(frozen=True, slots=True, kw_only=True)
class _Naming:
    """What is needed to say where a difference is."""

    store: EncodedStore
    rows: WindowRows

    def first(
        self, row: int, feature: FeatureSpec, trained: EncodedArray, served: EncodedArray
    ) -> FirstDifference:
        schema, encoders = self.store.schema, self.store.encoders
        candidates = self.rows.candidates
        return FirstDifference(
            row=self.rows.start + row,
            user=str(candidates.column("user")[row].as_py()),
            time_ms=int(candidates.column("time_ms")[row].as_py()),
            trained=_shown(trained[row], feature, schema, encoders),
            served=_shown(served[row], feature, schema, encoders),
        )


def _compare(
    feature: FeatureSpec,
    trained: EncodedArray,
    served: EncodedArray,
    comparable: BoolArray,
    naming: _Naming,
) -> FeatureSkew:
    same = trained == served
    if feature.kind == "numeric":
        same = same | (np.isnan(trained) & np.isnan(served))
    if same.ndim == 2:
        same = same.all(axis=1)
    different = np.flatnonzero(comparable & ~same)
    return FeatureSkew(
        feature=feature.name,
        rows=int(comparable.sum()),
        differing=len(different),
        trained_sha256=_digest(trained[comparable]),
        served_sha256=_digest(served[comparable]),
        first=naming.first(int(different[0]), feature, trained, served) if len(different) else None,
    )


def _digest(values: EncodedArray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


def _known_only(
    values: EncodedArray | ColumnArray,
    feature: FeatureSpec,
    schema: Schema,
    known: Mapping[str, int],
) -> EncodedArray:
    """Numbers as float32 with one kind of NaN; ids as int32, unknown where not ``known``."""
    if feature.kind == "numeric":
        numbers = np.array(values, dtype=np.float32)
        numbers[np.isnan(numbers)] = np.nan
        return numbers
    index = np.array(values, dtype=np.int32)
    size = known.get(schema.vocabulary_of(feature))
    if size is not None:
        index[index >= size] = 0
    return index


def _shown(value: object, feature: FeatureSpec, schema: Schema, encoders: Encoders) -> str:
    """An encoded value with the raw ids it stands for."""
    if feature.kind == "numeric":
        return f"{np.asarray(value).item():.6g} (standardised)"
    vocabulary = encoders.vocabularies.get(schema.vocabulary_of(feature))
    index = [int(one) for one in np.atleast_1d(np.asarray(value))]
    if vocabulary is None:
        return str(index)
    ids = vocabulary.ids
    names = [str(ids[one - 1]) if one else "unknown" for one in index]
    return names[0] if feature.kind == "categorical" else "[" + ", ".join(names) + "]"
