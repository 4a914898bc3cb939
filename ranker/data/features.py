"""From canonical rows to encoded columns: one path for training rows and for candidates.

`encode_rows` is what `prepare` runs on the log and what `score` runs on candidate lists, so that
training and serving can't drift apart.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ranker.data.encode import (
    Encoders,
    encode_sequences,
    fit_scale,
    hour_of_day,
    numeric_values,
    standardise,
)
from ranker.data.history import Queries, compute_features, counted_features
from ranker.data.history_state import Events, HistoryState, make_events
from ranker.data.parallel import map_columns
from ranker.data.parquet import DataError
from ranker.data.tables import table_features
from ranker.schema import FeatureSpec, Owner, Schema

IntArray = npt.NDArray[np.int64]
ColumnArray = npt.NDArray[np.int64] | npt.NDArray[np.float32] | npt.NDArray[np.float64]


class OwnerTable:
    """The user table or item table, looked up by id."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        self._index = pd.Index(table.column("id").to_pandas())

    def lookup(self, ids: pa.Array | pa.ChunkedArray) -> tuple[pa.Table, int]:
        """The rows of ``ids`` (nulls for ids not in the table), and how many were not.

        Raises:
            DataError: the table's ids are of another type.
        """
        if self.table.column("id").type != ids.type:
            raise DataError(
                f"ids are {ids.type} in the log and {self.table.column('id').type} in the user or "
                "item table; write them in one type"
            )
        rows = self.rows_of(ids)
        missing = rows < 0
        taken = self.table.take(pa.array(np.where(missing, 0, rows), mask=missing))
        return taken, int(missing.sum())

    def rows_of(self, ids: pa.Array | pa.ChunkedArray) -> IntArray:
        """The row of each id, -1 for ids not in the table."""
        return np.asarray(self._index.get_indexer(pd.Index(ids.to_pandas())), dtype=np.int64)


@dataclass(slots=True, kw_only=True)
class FeatureSource:
    """All that features are computed from. ``users`` and ``items`` are absent without a table."""

    schema: Schema
    encoders: Encoders
    history: HistoryState
    users: OwnerTable | None
    items: OwnerTable | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedRows:
    """Encoded columns of N rows, and the events they are to later rows (None without labels).

    ``columns`` maps store column names (``feature.x``, ``label.x``, ``user``, ...) to arrays;
    numeric features are not standardised yet (`standardise_columns`).
    ``unknown_by_feature`` counts rows whose id was not in the vocabulary, ``missing_owners`` rows
    whose user or item was not in its table.
    """

    columns: dict[str, ColumnArray]
    events: Events | None
    unknown_by_feature: dict[str, int] = field(default_factory=dict)
    missing_owners: dict[str, int] = field(default_factory=dict)


def encode_rows(
    rows: pa.Table,
    source: FeatureSource,
    *,
    learn: bool,
    only: Collection[str] | None = None,
) -> EncodedRows:
    """Encode canonical rows, in time order if they are to be learned from.

    Args:
        rows: a canonical log table; with labels when ``learn``, without for candidates.
        source: vocabularies are extended in place when ``learn``; its history is only read.
        learn: take up new ids and make events (none where the schema has no history).
        only: just these features, and those that they are computed from; not when ``learn``.
    """
    assert only is None or not learn, "an event is made of all features"
    schema = source.schema
    declared_features = _declared_features(schema, only)
    time_ms = np.asarray(rows.column("time_ms").to_numpy(), dtype=np.int64)
    ids = _id_columns(rows, schema)
    joined, missing_owners = _join(rows, ids, source, declared_features)
    known = _index_by_vocabulary(ids, joined, source, learn=learn)

    def encode(feature: FeatureSpec) -> ColumnArray:
        return _encode_declared(feature, joined, source, known=known, time_ms=time_ms)

    names = [feature.name for feature in declared_features]
    declared = dict(zip(names, map_columns(encode, declared_features), strict=True))
    structural = {
        name: known[name] if name in known else source.encoders.vocabularies[name].encode(values)
        for name, values in ids.items()
    }
    index = _vocabulary_index(structural, declared, schema)
    events = None
    labels = {task.name: _label(rows, task.name) for task in schema.tasks} if learn else {}
    if learn and schema.history is not None:
        events = make_events(
            schema,
            time_ms=time_ms,
            visible_ms=np.asarray(rows.column("visible_ms").to_numpy(), dtype=np.int64),
            index=index,
            label_by_task=labels,
        )
    queries = Queries(time_ms=time_ms, index=index)
    computed = compute_features(source.history, queries, events, schema, only=only)
    features = {**declared, **computed}
    columns = {f"feature.{name}": values for name, values in features.items()}
    columns |= {"time_ms": time_ms, "user": index["user"], "item": index["item"]}
    columns |= {
        "position": _position(rows),
        "device": structural.get("device", np.zeros_like(time_ms)),
    }
    columns |= {f"label.{name}": label for name, label in labels.items()}
    unknown = {f.name: int((declared[f.name] == 0).sum()) for f in declared_features if has_ids(f)}
    return EncodedRows(
        columns=columns,
        events=events,
        unknown_by_feature=unknown,
        missing_owners=missing_owners,
    )


def has_ids(feature: FeatureSpec) -> bool:
    """True for a categorical feature whose values can be unknown."""
    return feature.kind == "categorical" and feature.transform != "hour"


def fit_scales(columns: Mapping[str, ColumnArray], encoders: Encoders, schema: Schema) -> None:
    """Fit standardisers of numeric features and label scales on ``columns``."""
    for feature in schema.all_features:
        if feature.kind == "numeric":
            values = columns[f"feature.{feature.name}"].astype(np.float64)
            encoders.standardisers[feature.name] = fit_scale(values)
    for task in schema.tasks:
        label = columns[f"label.{task.name}"].astype(np.float64)
        learned = np.log1p(label) if task.loss == "squared_log1p" else label
        encoders.label_scales[task.name] = fit_scale(learned)


def standardise_columns(
    columns: Mapping[str, ColumnArray], encoders: Encoders
) -> dict[str, ColumnArray]:
    """The same columns with the numeric features among them standardised."""

    def standardised(name: str) -> ColumnArray:
        values = columns[f"feature.{name}"].astype(np.float64, copy=False)
        return standardise(values, encoders.standardisers[name])

    names = [name for name in encoders.standardisers if f"feature.{name}" in columns]
    changed = dict(zip(names, map_columns(standardised, names), strict=True))
    return {**columns, **{f"feature.{name}": values for name, values in changed.items()}}


def _id_columns(rows: pa.Table, schema: Schema) -> dict[str, pa.Array]:
    """The log's own ids by their vocabulary."""
    names = ["user", "item"] if schema.log.device is None else ["user", "item", "device"]
    return {name: _one_array(rows.column(name)) for name in names}


def _one_array(values: pa.ChunkedArray) -> pa.Array:
    return values.chunk(0) if values.num_chunks == 1 else values.combine_chunks()


def _declared_features(schema: Schema, only: Collection[str] | None) -> Sequence[FeatureSpec]:
    """The declared features in ``only``, and those that the computed ones are counted by."""
    if only is None:
        return schema.features
    needed = {*only, *counted_features(only, schema)}
    return [feature for feature in schema.features if feature.name in needed]


def _join(
    rows: pa.Table,
    ids: Mapping[str, pa.Array],
    source: FeatureSource,
    declared: Sequence[FeatureSpec],
) -> tuple[dict[str, pa.Array], dict[str, int]]:
    """Declared feature's name -> canonical column, from the log or its owner's table."""
    schema = source.schema
    joined: dict[str, pa.Array] = {}
    missing: dict[str, int] = {}
    owners: list[tuple[Owner, OwnerTable | None]] = [("user", source.users), ("item", source.items)]
    for owner, table in owners:
        features = [f for f in table_features(schema, owner) if f in declared]
        if table is None or not features:
            continue
        taken, missing[owner] = table.lookup(ids[owner])
        joined |= {f.name: _one_array(taken.column(f"feature.{f.name}")) for f in features}
    for feature in declared:
        if feature.name in joined:
            continue
        if feature.transform == "hour":
            time_ms = np.asarray(rows.column("time_ms").to_numpy(), dtype=np.int64)
            joined[feature.name] = pa.array(hour_of_day(time_ms, schema.time_zone))
        elif feature.column in (schema.log.user, schema.log.item):
            joined[feature.name] = ids["user" if feature.column == schema.log.user else "item"]
        else:
            joined[feature.name] = _one_array(rows.column(f"feature.{feature.name}"))
    return joined, missing


def _index_by_vocabulary(
    ids: Mapping[str, pa.Array],
    joined: Mapping[str, pa.Array],
    source: FeatureSource,
    *,
    learn: bool,
) -> dict[str, IntArray]:
    """Indices in the vocabularies that one plain column uses; the others only learn.

    Several columns of one vocabulary are learned row by row: column by column, a later row's id
    could push an earlier row's id to another index.
    """
    schema = source.schema
    columns = list(ids.items())
    for feature in schema.features:
        if feature.kind != "numeric" and feature.name in joined:
            columns.append((schema.vocabulary_of(feature), joined[feature.name]))
    columns_of: dict[str, list[pa.Array]] = {}
    for name, values in columns:
        several = columns_of.setdefault(name, [])
        if not any(values is one for one in several):
            several.append(values)

    def encode(name: str) -> IntArray | None:
        several, vocabulary = columns_of[name], source.encoders.vocabularies[name]
        if len(several) == 1 and not pa.types.is_list(several[0].type):
            return (vocabulary.encode_and_learn if learn else vocabulary.encode)(several[0])
        if learn:
            for values in _ids_in_row_order(several):
                vocabulary.encode_and_learn(values)
        return None

    encoded = zip(columns_of, map_columns(encode, columns_of), strict=True)
    return {name: index for name, index in encoded if index is not None}


def _ids_in_row_order(columns: list[pa.Array]) -> list[pa.Array]:
    """All ids of ``columns`` by row, then by column; one array for each type of id."""
    flat_by_type: dict[pa.DataType, list[tuple[pa.Array, IntArray]]] = {}
    for values in columns:
        array, row = values, np.arange(len(values), dtype=np.int64)
        if pa.types.is_list(values.type):
            row = np.asarray(pc.list_parent_indices(values).to_numpy(), dtype=np.int64)
            array = pc.list_flatten(values)
        given = pc.is_valid(array)
        row = row[np.asarray(given.to_numpy(zero_copy_only=False), dtype=bool)]
        flat_by_type.setdefault(array.type, []).append((array.filter(given), row))
    ordered = []
    for flat in flat_by_type.values():
        order = np.argsort(np.concatenate([row for _, row in flat]), kind="stable")
        ordered.append(pa.concat_arrays([array for array, _ in flat]).take(pa.array(order)))
    return ordered


def _encode_declared(
    feature: FeatureSpec,
    joined: Mapping[str, pa.Array],
    source: FeatureSource,
    *,
    known: Mapping[str, IntArray],
    time_ms: IntArray,
) -> ColumnArray:
    values = joined[feature.name]
    if feature.kind == "numeric":
        return numeric_values(values, feature.transform, time_ms)
    name = source.schema.vocabulary_of(feature)
    if name in known:
        return known[name]
    vocabulary = source.encoders.vocabularies[name]
    if feature.kind == "categorical":
        return vocabulary.encode(values)
    return encode_sequences(values, vocabulary, length=feature.length)


def _vocabulary_index(
    structural: Mapping[str, IntArray], declared: Mapping[str, ColumnArray], schema: Schema
) -> dict[str, IntArray]:
    """Indices of users, items, and the keys and contexts that are counted, if encoded."""
    index = {name: structural[name] for name in ("user", "item")}
    for name, vocabulary in schema.counted_vocabularies.items():
        if name in declared:
            index[vocabulary] = declared[name].astype(np.int64)
    return index


def _label(rows: pa.Table, task: str) -> npt.NDArray[np.float64]:
    """A label column; NaN = not observed."""
    values = rows.column(f"label.{task}").to_numpy()
    return np.asarray(values, dtype=np.float64)


def _position(rows: pa.Table) -> IntArray:
    """The 0-based position + 1; 0 = missing, as for candidates, which have no position yet."""
    if "position" not in rows.column_names:
        return np.zeros(rows.num_rows, dtype=np.int64)
    return np.asarray(rows.column("position").to_numpy(), dtype=np.int64) + 1
