"""One side's features of a few rows, encoded by the one path that all rows are encoded by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from torch import Tensor

from ranker.bundle import ModelBundle
from ranker.data.feature_side import Side
from ranker.data.features import FeatureSource, encode_rows, has_ids, standardise_columns
from ranker.data.loader import feature_tensors, known_indices
from ranker.data.tables import table_features
from ranker.schema import FeatureSpec, Owner

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CountedRows:
    """What is to be counted of B rows.

    Attributes:
        unknown_by_feature: categorical feature -> [B], where its id is unknown.
        without_row: [B], where the user or item is not in its table (nowhere for a pair).
    """

    unknown_by_feature: dict[str, BoolArray]
    without_row: BoolArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncodedSide:
    """B rows as one side's features.

    Attributes:
        features: as a `ranker.data.batch.Batch` holds them.
        device: [B], an index.
    """

    features: dict[str, Tensor]
    device: Tensor
    counted: CountedRows

    @property
    def num_rows(self) -> int:
        """``B``."""
        return len(self.device)


def encode_side(
    rows: pa.Table,
    side: Side,
    features: Sequence[FeatureSpec],
    *,
    bundle: ModelBundle,
    source: FeatureSource,
) -> EncodedSide:
    """Encode and standardise ``features`` of canonical rows."""
    names = {feature.name for feature in features}
    columns = encode_rows(rows, source, learn=False, only=names).columns
    declared = {feature.name for feature in bundle.schema.features}
    counted = [f.name for f in features if has_ids(f) and f.name in declared]
    unknown = {name: columns[f"feature.{name}"] == 0 for name in counted}
    sizes = bundle.encoders.sizes
    columns = standardise_columns(columns, bundle.encoders)
    return EncodedSide(
        features=feature_tensors(columns, features, bundle.schema, sizes),
        device=known_indices(columns["device"], sizes.get("device")),
        counted=CountedRows(
            unknown_by_feature=unknown, without_row=_without_row(rows, side, source)
        ),
    )


def counted_owners(source: FeatureSource) -> dict[Side, Owner]:
    """The sides whose owner has a table that features are joined from."""
    owners: dict[Side, Owner] = {}
    if source.users is not None and table_features(source.schema, "user"):
        owners["request"] = "user"
    if source.items is not None and table_features(source.schema, "item"):
        owners["item"] = "item"
    return owners


def slice_features(features: Mapping[str, Tensor], start: int, stop: int) -> dict[str, Tensor]:
    """Rows ``start:stop`` as views."""
    return {name: values[start:stop] for name, values in features.items()}


def _without_row(rows: pa.Table, side: Side, source: FeatureSource) -> BoolArray:
    table = {"request": source.users, "item": source.items, "pair": None}[side]
    if side not in counted_owners(source) or table is None:
        return np.zeros(rows.num_rows, dtype=bool)
    return table.rows_of(rows.column(counted_owners(source)[side])) < 0
