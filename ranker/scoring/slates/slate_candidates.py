"""What slates need to know of candidates besides scores: ages, capped values, what draws follow.

`N` candidates.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ranker.config import ConfigError
from ranker.data.columns import time_stamps_ms
from ranker.data.features import FeatureSource
from ranker.data.row_hash import hash_rows
from ranker.schema import FeatureSpec, Schema
from ranker.scoring.slates.candidate_lists import SlateCandidates
from ranker.scoring.slates.slate_config import Freshness, NoExploration, SlateConfig

IntArray = npt.NDArray[np.int64]
HashArray = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]

MS_PER_HOUR = 3_600_000


def check_slate_config(
    config: SlateConfig, schema: Schema, candidate_columns: Sequence[str]
) -> None:
    """Refuse constraints on what neither the schema nor the candidates know.

    Raises:
        ConfigError: an unknown name, a feature without one value an item, or a time that is none.
    """
    for name in config.max_per:
        feature = _feature(name, schema)
        if feature is None:
            _check_column("max_per", name, schema, candidate_columns)
        elif feature.kind != "categorical":
            raise ConfigError(
                f"max_per: {name!r} is a {feature.kind} feature; a cap needs one value an item: a "
                "categorical feature, or a column of the candidates"
            )
    if config.freshness is not None:
        name = config.freshness.column
        feature = _feature(name, schema)
        if feature is None:
            _check_column("freshness.column", name, schema, candidate_columns)
        elif feature.transform != "age_days":
            raise ConfigError(
                f"freshness.column: feature {name!r} is no time; it needs transform age_days"
            )


def columns_read(config: SlateConfig, schema: Schema) -> list[str]:
    """The candidates' own columns, no features of the schema, that the constraints look at."""
    names = [*config.max_per, *([] if config.freshness is None else [config.freshness.column])]
    return [name for name in dict.fromkeys(names) if _feature(name, schema) is None]


def slate_candidates(
    raw: pa.Table,
    canonical: pa.Table,
    request: IntArray,
    *,
    source: FeatureSource,
    config: SlateConfig,
) -> SlateCandidates:
    """Look up what ``config`` asks for.

    Args:
        raw: candidates with the log's own columns and any others, [N].
        canonical: the same rows as `ranker.data.tables` reads them, [N].
        request: their requests' codes, [N].
        source: its schema and item table; see `check_slate_config`.
        config: the constraints.

    Raises:
        ConfigError: as in `check_slate_config`, or a column whose values are of no use.
    """
    check_slate_config(config, source.schema, raw.column_names)
    explores = not isinstance(config.exploration, NoExploration)
    codes = {name: _codes(_values(name, raw, canonical, source), name) for name in config.max_per}
    return SlateCandidates(
        request=request,
        item=canonical.column("item").to_numpy(),
        may_be_shown=None
        if config.freshness is None
        else _is_fresh(config.freshness, raw, canonical, source),
        cap_codes=codes,
        request_hash=request_hashes(canonical, source.schema) if explores else None,
        item_hash=item_hashes(canonical) if explores else None,
    )


def request_hashes(canonical: pa.Table, schema: Schema) -> HashArray:
    """A hash of each row's request: its id, or else user and time; equal in every shard: [N]."""
    names = ["user", "time_ms"] if schema.log.request is None else ["request"]
    return _hashes(canonical, names)


def item_hashes(canonical: pa.Table) -> HashArray:
    """A hash of each row's item: [N]."""
    return _hashes(canonical, ["item"])


def _hashes(canonical: pa.Table, names: Sequence[str]) -> HashArray:
    columns = {name: _whole(canonical.column(name)) for name in names}
    return hash_rows(columns).view(np.uint64)


def _is_fresh(
    freshness: Freshness, raw: pa.Table, canonical: pa.Table, source: FeatureSource
) -> Mask:
    values = _values(freshness.column, raw, canonical, source)
    feature = _feature(freshness.column, source.schema)
    if feature is not None:  # canonical features of dates are milliseconds, whatever the log's unit
        known = np.asarray(pc.is_valid(values))
        born_ms = np.asarray(pc.fill_null(values, 0), dtype=np.int64)
    else:
        if pa.types.is_date(values.type):
            values = pc.cast(values, pa.timestamp("ms"))
        if not (pa.types.is_timestamp(values.type) or pa.types.is_integer(values.type)):
            raise ConfigError(
                f"freshness.column: column {freshness.column!r} holds {values.type}; it must hold "
                "timestamps, dates, or integers in the log's time unit"
            )
        born_ms, known = time_stamps_ms(values, source.schema)
    time_ms = np.asarray(canonical.column("time_ms"), dtype=np.int64)
    fresh = time_ms - born_ms <= freshness.max_age_hours * MS_PER_HOUR
    return np.where(known, fresh, freshness.unknown == "show")


def _codes(values: pa.Array, name: str) -> IntArray:
    """Equal values get equal codes from 0, nulls -1: [N]."""
    if pa.types.is_nested(values.type):
        raise ConfigError(
            f"max_per: column {name!r} holds {values.type}; a cap needs one value an item"
        )
    if pa.types.is_floating(values.type):
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
    if not pa.types.is_dictionary(values.type):
        values = pc.dictionary_encode(values)
    return np.asarray(pc.fill_null(values.indices, -1), dtype=np.int64)


def _values(name: str, raw: pa.Table, canonical: pa.Table, source: FeatureSource) -> pa.Array:
    """The item's feature of this name where the schema has one, else the candidates' column."""
    feature = _feature(name, source.schema)
    if feature is None:
        return _whole(raw.column(name))
    column = f"feature.{feature.name}"
    if column in canonical.column_names:
        return _whole(canonical.column(column))
    assert source.items is not None  # what the log doesn't hold is read from the item table
    return _whole(source.items.lookup(canonical.column("item"))[0].column(column))


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks()


def _feature(name: str, schema: Schema) -> FeatureSpec | None:
    """The item's feature that is called or read from ``name``; its id is in a slate once anyway."""
    for feature in schema.features:
        if feature.owner == "item" and name in (feature.name, feature.column):
            return None if feature.column == schema.log.item else feature
    return None


def _check_column(key: str, name: str, schema: Schema, columns: Sequence[str]) -> None:
    features = [
        f.name for f in schema.features if f.owner == "item" and f.column != schema.log.item
    ]
    if name == schema.log.item:
        raise ConfigError(f"{key}: {name!r} is the item itself, which is in a slate once anyway")
    if name not in columns:
        close = difflib.get_close_matches(name, [*features, *columns], n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ConfigError(
            f"{key}: {name!r} is no feature of the item ({features}) and no column of the "
            f"candidates ({list(columns)}){hint}"
        )
