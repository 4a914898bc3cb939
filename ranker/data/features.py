"""From canonical rows to encoded columns: one path for training rows and for candidates.

`encode_rows` is what `prepare` runs on the log and what `score` runs on candidate lists, so that
training and serving can't drift apart.
"""

from __future__ import annotations

from collections.abc import Mapping
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
from ranker.data.history import (
    Events,
    HistoryState,
    Queries,
    compute_features,
    event_vocabularies,
    make_events,
)
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

    def lookup(self, ids: pa.ChunkedArray) -> tuple[pa.Table, int]:
        """The rows of ``ids`` (nulls for ids not in the table), and how many were not.

        Raises:
            DataError: the table's ids are of another type.
        """
        if self.table.column("id").type != ids.type:
            raise DataError(
                f"ids are {ids.type} in the log and {self.table.column('id').type} in the user or "
                "item table; write them in one type"
            )
        rows = self._index.get_indexer(pd.Index(ids.to_pandas()))
        missing = rows < 0
        taken = self.table.take(pa.array(np.where(missing, 0, rows), mask=missing))
        return taken, int(missing.sum())


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


def encode_rows(rows: pa.Table, source: FeatureSource, *, learn: bool) -> EncodedRows:
    """Encode canonical rows, in time order if they are to be learned from.

    Args:
        rows: a canonical log table; with labels when ``learn``, without for candidates.
        source: vocabularies are extended in place when ``learn``; its history is only read.
        learn: take up new ids and make events.
    """
    schema = source.schema
    joined, missing_owners = _join(rows, source)
    time_ms = np.asarray(rows.column("time_ms").to_numpy(), dtype=np.int64)
    if learn:
        _learn_ids(rows, joined, source)
    declared = {f.name: _encode_declared(f, joined, source, time_ms) for f in schema.features}
    index = _vocabulary_index(rows, declared, source)
    events = None
    if learn:
        labels = {task.name: _label(rows, task.name) for task in schema.tasks}
        events = make_events(
            schema,
            time_ms=time_ms,
            visible_ms=np.asarray(rows.column("visible_ms").to_numpy(), dtype=np.int64),
            index=index,
            label_by_task=labels,
        )
    queries = Queries(time_ms=time_ms, index=index)
    computed = compute_features(source.history, queries, events, schema)
    features = {**declared, **computed}
    columns = {f"feature.{name}": values for name, values in features.items()}
    columns |= {"time_ms": time_ms, "user": index["user"], "item": index["item"]}
    columns |= _position_columns(rows, source)
    if learn:
        columns |= {f"label.{name}": label for name, label in labels.items()}
    unknown = {
        f.name: int((declared[f.name] == 0).sum())
        for f in schema.features
        if f.kind == "categorical" and f.transform != "hour"
    }
    return EncodedRows(
        columns=columns,
        events=events,
        unknown_by_feature=unknown,
        missing_owners=missing_owners,
    )


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
    """The same columns with numeric features standardised."""
    standardised = dict(columns)
    for name, scale in encoders.standardisers.items():
        values = columns[f"feature.{name}"].astype(np.float64)
        standardised[f"feature.{name}"] = standardise(values, scale)
    return standardised


def _join(
    rows: pa.Table, source: FeatureSource
) -> tuple[dict[str, pa.ChunkedArray], dict[str, int]]:
    """Feature name -> canonical column, from the log or its owner's table."""
    schema = source.schema
    joined: dict[str, pa.ChunkedArray] = {}
    missing: dict[str, int] = {}
    owners: list[tuple[Owner, OwnerTable | None]] = [("user", source.users), ("item", source.items)]
    for owner, table in owners:
        features = table_features(schema, owner)
        if table is None or not features:
            continue
        taken, missing[owner] = table.lookup(rows.column(owner))
        joined |= {f.name: taken.column(f"feature.{f.name}") for f in features}
    time_ms = np.asarray(rows.column("time_ms").to_numpy(), dtype=np.int64)
    for feature in schema.features:
        if feature.name in joined:
            continue
        if feature.transform == "hour":
            hours = hour_of_day(time_ms, schema.time_zone)
            joined[feature.name] = pa.chunked_array([pa.array(hours)])
        elif feature.column in (schema.log.user, schema.log.item):
            joined[feature.name] = rows.column(
                "user" if feature.column == schema.log.user else "item"
            )
        else:
            joined[feature.name] = rows.column(f"feature.{feature.name}")
    return joined, missing


def _learn_ids(
    rows: pa.Table, joined: Mapping[str, pa.ChunkedArray], source: FeatureSource
) -> None:
    """Take up new ids row by row, also where several features share a vocabulary.

    Feature by feature, a later row's id could push an earlier row's id to another index.
    """
    schema = source.schema
    columns = [("user", rows.column("user")), ("item", rows.column("item"))]
    for feature in schema.features:
        if feature.kind != "numeric":
            columns.append((schema.vocabulary_of(feature), joined[feature.name]))
    if schema.log.device is not None:
        columns.append(("device", rows.column("device")))
    values_by_vocabulary: dict[str, list[pa.ChunkedArray]] = {}
    for vocabulary, values in columns:
        values_by_vocabulary.setdefault(vocabulary, []).append(values)
    for vocabulary, several in values_by_vocabulary.items():
        for ids in _ids_in_row_order(several):
            source.encoders.vocabularies[vocabulary].encode_and_learn(ids)


def _ids_in_row_order(columns: list[pa.ChunkedArray]) -> list[pa.Array]:
    """All ids of ``columns`` by row, then by column; one array for each type of id."""
    flat_by_type: dict[pa.DataType, list[tuple[pa.Array, IntArray]]] = {}
    for values in columns:
        array = pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], values.type)
        row = np.arange(len(array), dtype=np.int64)
        if pa.types.is_list(array.type):
            row = np.asarray(pc.list_parent_indices(array).to_numpy(), dtype=np.int64)
            array = pc.list_flatten(array)
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
    joined: Mapping[str, pa.ChunkedArray],
    source: FeatureSource,
    time_ms: IntArray,
) -> ColumnArray:
    values = joined[feature.name]
    if feature.kind == "numeric":
        return numeric_values(values, feature.transform, time_ms)
    vocabulary = source.encoders.vocabularies[source.schema.vocabulary_of(feature)]
    if feature.kind == "categorical":
        return vocabulary.encode(values)
    return encode_sequences(values, vocabulary, length=feature.length)


def _vocabulary_index(
    rows: pa.Table, declared: Mapping[str, ColumnArray], source: FeatureSource
) -> dict[str, IntArray]:
    """Indices of users, items, and the keys and contexts that are counted."""
    schema = source.schema
    index = {
        name: source.encoders.vocabularies[name].encode(rows.column(name))
        for name in ("user", "item")
    }
    for name in (*schema.history.keys, *schema.history.contexts):
        index[schema.vocabulary_of(schema.feature(name))] = declared[name].astype(np.int64)
    assert set(event_vocabularies(schema)) <= set(index)
    return index


def _label(rows: pa.Table, task: str) -> npt.NDArray[np.float64]:
    """A label column; NaN = not observed."""
    values = rows.column(f"label.{task}").to_numpy()
    return np.asarray(values, dtype=np.float64)


def _position_columns(rows: pa.Table, source: FeatureSource) -> dict[str, ColumnArray]:
    """``position`` and ``device`` with 0 = missing; candidates have no position yet."""
    num_rows = rows.num_rows
    position = np.zeros(num_rows, dtype=np.int64)
    if "position" in rows.column_names:
        position = np.asarray(rows.column("position").to_numpy(), dtype=np.int64) + 1
    device = np.zeros(num_rows, dtype=np.int64)
    if source.schema.log.device is not None:
        device = source.encoders.vocabularies["device"].encode(rows.column("device"))
    return {"position": position, "device": device}
