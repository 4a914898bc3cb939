"""Whose property each input of the model is, and which rows share an owner's values.

Scoring need not look at every candidate anew: what belongs to the request is the same in all rows
of its list, what belongs to the item in all lists. Here is decided what counts as what, from the
rows themselves: a column that varies within a list cuts the list into several runs, and an item
whose values differ between rows is several items. So nothing is assumed of the data.

Shapes: ``N`` rows, ``G`` runs, ``M`` items.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ranker.data.feature_side import SIDES, Side, side_of
from ranker.data.features import FeatureSource, has_ids
from ranker.data.tables import table_features
from ranker.models.input_layout import InputLayout
from ranker.schema import FeatureSpec, Schema

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shared:
    """Rows that share their values: ``first`` row of each of M [M], and which one a row has [N]."""

    first: IntArray
    of_row: IntArray


def features_by_side(layout: InputLayout, schema: Schema) -> dict[Side, list[FeatureSpec]]:
    """The features to encode: what the model reads, and the ids whose unknown ones are counted."""
    side = {feature.name: side_of(feature, schema) for feature in schema.all_features}
    if any(side[name] != "item" for name in layout.candidate):
        side |= dict.fromkeys(layout.candidate, "pair")
    read = set(layout.features()) | {f.name for f in schema.features if has_ids(f)}
    return {
        wanted: [f for f in schema.all_features if f.name in read and side[f.name] == wanted]
        for wanted in SIDES
    }


def columns_of_rows(features: list[FeatureSpec], source: FeatureSource) -> list[str]:
    """The canonical columns of candidate rows that ``features`` are read from, ids left out."""
    schema = source.schema
    from_tables: set[str] = set()
    if source.users is not None:
        from_tables |= {feature.name for feature in table_features(schema, "user")}
    if source.items is not None:
        from_tables |= {feature.name for feature in table_features(schema, "item")}
    computed = {feature.name for feature in schema.history_features}
    ids = (schema.log.user, schema.log.item)
    return [
        f"feature.{feature.name}"
        for feature in features
        if feature.name not in from_tables | computed
        and feature.transform != "hour"
        and feature.column not in ids
    ]


def runs(rows: pa.Table, columns: list[str]) -> Shared:
    """Neighbouring rows with the same user, time, device and ``columns``: parts of one request."""
    keys = [name for name in ("user", "time_ms", "device") if name in rows.column_names]
    begins = np.zeros(rows.num_rows, dtype=bool)
    begins[:1] = True
    for name in (*keys, *columns):
        values = _one_array(rows.column(name))
        begins[1:] |= differs(values.slice(1), values.slice(0, max(rows.num_rows - 1, 0)))
    return Shared(first=np.flatnonzero(begins), of_row=np.cumsum(begins) - 1)


def distinct_items(rows: pa.Table, epoch: IntArray, columns: list[str]) -> Shared:
    """Items as far as their values are the same: by id, ``epoch`` [N] and ``columns``.

    A row whose ``columns`` are not those of its item's first row stands for itself.
    """
    place = pc.fill_null(pc.dictionary_encode(_one_array(rows.column("item"))).indices, -1)
    codes = np.asarray(place.to_numpy(zero_copy_only=False), dtype=np.int64)
    items = _by_first_row(codes * (int(epoch.max(initial=0)) + 1) + epoch)
    if not columns:
        return items
    alone = np.zeros(rows.num_rows, dtype=bool)
    representative = pa.array(items.first[items.of_row])
    for name in columns:
        values = _one_array(rows.column(name))
        alone |= differs(values, values.take(representative))
    own = np.flatnonzero(alone)
    of_row = items.of_row.copy()
    of_row[own] = len(items.first) + np.arange(len(own))
    return Shared(first=np.concatenate([items.first, own]), of_row=of_row)


def _by_first_row(keys: IntArray) -> Shared:
    codes, distinct = pd.factorize(keys)
    first = np.empty(len(distinct), dtype=np.int64)
    first[codes[::-1]] = np.arange(len(keys))[::-1]  # the last one written is the first row
    return Shared(first=first, of_row=codes.astype(np.int64))


def differs(a: pa.Array, b: pa.Array) -> BoolArray:
    """Where two columns differ; nulls equal each other. True where that is not certain (NaN)."""
    if not (pa.types.is_list(a.type) or pa.types.is_large_list(a.type)):
        unequal = pc.fill_null(pc.not_equal(a, b), False)
        one_null = pc.xor(pc.is_null(a), pc.is_null(b))
        return np.asarray(pc.or_(unequal, one_null).to_numpy(zero_copy_only=False), dtype=bool)
    lengths = [pc.fill_null(pc.list_value_length(side), -1) for side in (a, b)]
    different = differs(*lengths)
    same = pa.array(~different)
    a, b = a.filter(same), b.filter(same)
    elements = differs(pc.list_flatten(a), pc.list_flatten(b))
    parents = np.asarray(pc.list_parent_indices(a).to_numpy(), dtype=np.int64)
    different[np.flatnonzero(~different)[parents[elements]]] = True
    return different


def _one_array(values: pa.ChunkedArray) -> pa.Array:
    return values.chunk(0) if values.num_chunks == 1 else values.combine_chunks()
