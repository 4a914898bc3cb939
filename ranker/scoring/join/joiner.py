"""The second pass of a join: every row of the slates with its outcome, in the log's columns.

`M` rows of a batch of slates, `G` impressions with outcomes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ranker.data.parquet import DataError, find_files, open_file, stream
from ranker.data.tables import log_features
from ranker.schema import Schema
from ranker.scoring.join.impression_keys import keys_of, row_times_ms, with_time_type
from ranker.scoring.join.join import MS_PER_HOUR, JoinCounts, require_columns, where_is
from ranker.scoring.join.join_config import JoinConfig
from ranker.scoring.join.outcomes import MergedOutcomes, Outcomes, outcome_columns
from ranker.scoring.slates.exposure import EXPOSURE_COLUMNS

IntArray = npt.NDArray[np.int64]
MAX_RANK = 2**31 - 1  # positions are int32
FloatArray = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """Impressions requested from ``since_ms`` on and before ``until_ms`` (UTC)."""

    since_ms: int
    until_ms: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Joiner:
    """What the second pass needs.

    Attributes:
        complete_before_ms: rows requested from then on are still waited for.
        requests: keys of the requests that have an outcome in use, ascending.
    """

    schema: Schema
    config: JoinConfig
    outcomes: Outcomes
    merged: MergedOutcomes
    requests: IntArray
    period: Period
    complete_before_ms: int
    counts: JoinCounts

    def impressions(self, path: Path) -> Iterator[tuple[Path, pa.Table]]:
        """The impressions of each batch of slates, and the file they come from.

        Raises:
            DataError: missing columns, ranks that are none, or incomplete rows where refused.
        """
        columns = output_columns(path, self.schema, self.config)
        time = self.schema.log.time
        time_type = open_file(find_files(path)[0]).schema_arrow.field(time).type
        for located in stream(path, columns):
            where = where_is(located.file, located.row_group, located.first_row)
            rows = pa.Table.from_batches([located.rows])
            rows = with_time_type(rows, time, time_type, self.schema, where)
            yield located.file, self._join(rows, where)
        if self.counts.incomplete and self.config.incomplete == "refuse":
            raise DataError(
                f"{path}: {self.counts.incomplete:,} rows are younger than patience_hours "
                f"({self.config.patience_hours:g}): join them later, or say with --as-of up to "
                "when feedback is known"
            )

    def _join(self, rows: pa.Table, where: str) -> pa.Table:
        keys = keys_of(rows, self.schema, where)
        place, found = _lookup(self.merged.impressions, keys.impression)
        self._check_met(keys.parts, place, found)
        match self.config.confirmed_by:
            case "row":
                confirmed = found
            case "slate":
                confirmed = _lookup(self.requests, keys.request)[1]
            case "all":
                confirmed = np.ones(len(found), dtype=np.bool_)
        written = self._in_period(row_times_ms(rows, self.schema, where))
        self.counts.shown_rows += rows.num_rows
        self.counts.unconfirmed += int((written & ~confirmed).sum())
        if self.config.unconfirmed == "leave_out":
            written &= confirmed
        labels = {
            name: self._label(name, values, place, found, confirmed)[written]
            for name, values in self.merged.labels.items()
        }
        self.counts.impressions += int(written.sum())
        self._count_labels(labels, found[written], place[written])
        return self._table(rows.filter(pa.array(written)), labels, where)

    def _label(
        self, name: str, values: FloatArray, place: IntArray, found: Mask, confirmed: Mask
    ) -> FloatArray:
        label = np.full(len(found), np.nan)
        label[found] = values[place[found]]
        if name in self.config.zero_without_event:
            label[confirmed & np.isnan(label)] = 0.0
        return label

    def _in_period(self, times_ms: IntArray) -> Mask:
        """Which rows are in the period and complete; counts the others."""
        before = times_ms < self.period.since_ms
        after = ~before & (times_ms >= self.period.until_ms)
        incomplete = ~before & ~after & (times_ms >= self.complete_before_ms)
        self.counts.before_since += int(before.sum())
        self.counts.from_until_on += int(after.sum())
        self.counts.incomplete += int(incomplete.sum())
        return ~(before | after | incomplete)

    def _count_labels(self, labels: dict[str, FloatArray], found: Mask, place: IntArray) -> None:
        for name, label in labels.items():
            observed = int((~np.isnan(label)).sum())
            came = int((~np.isnan(self.merged.labels[name][place[found]])).sum())
            for counter, count in (
                (self.counts.observed, observed),
                (self.counts.zeros_without_event, observed - came),
            ):
                counter[name] = counter.get(name, 0) + count

    def _table(self, rows: pa.Table, labels: dict[str, FloatArray], where: str) -> pa.Table:
        """The log's own columns, then the exposure log's."""
        log = self.schema.log
        added = {name: pa.array(label, mask=np.isnan(label)) for name, label in labels.items()}
        if log.position is not None:
            added[log.position] = _positions(rows, where)
        for name, values in added.items():
            rows = rows.drop_columns(name) if name in rows.column_names else rows
            rows = rows.append_column(name, values)
        own = [name for name in log_order(self.schema) if name in rows.column_names]
        return rows.select([*own, *(name for name in rows.column_names if name not in own)])

    def _check_met(self, parts: dict[str, pa.Array], place: IntArray, found: Mask) -> None:
        """Equal hashes of 64 bits must be equal ids."""
        theirs = self.merged.rows[place[found]]
        for name, values in parts.items():
            ours = values.filter(pa.array(found)).cast(self.outcomes.keys.parts[name].type)
            if not ours.equals(self.outcomes.keys.parts[name].take(pa.array(theirs))):
                raise DataError(
                    f"two impressions have the same 64-bit digest (column {name!r}); join fewer "
                    "days at a time"
                )


def make_joiner(
    outcomes: Outcomes,
    merged: MergedOutcomes,
    *,
    schema: Schema,
    config: JoinConfig,
    period: Period,
    as_of_ms: int,
    counts: JoinCounts,
) -> Joiner:
    """Prepare the second pass.

    Args:
        as_of_ms: up to when feedback is known (`latest_outcome_ms` where nobody says).
        outcomes, merged, schema, config, period, counts: see `Joiner`.
    """
    complete_before_ms = period.until_ms
    if config.patience_hours is not None:
        complete_before_ms = as_of_ms - round(config.patience_hours * MS_PER_HOUR)
    return Joiner(
        schema=schema,
        config=config,
        outcomes=outcomes,
        merged=merged,
        requests=np.unique(outcomes.keys.request[merged.rows]),
        period=period,
        complete_before_ms=min(complete_before_ms, period.until_ms),
        counts=counts,
    )


def log_order(schema: Schema) -> list[str]:
    """The log's columns in their order: who, what, when, where, features, labels."""
    log = schema.log
    names = [log.request, log.user, log.item, log.time, log.position, log.device]
    names += [f.column for f in log_features(schema)] + outcome_columns(schema)
    return list(dict.fromkeys(name for name in names if name is not None))


def output_columns(path: Path, schema: Schema, config: JoinConfig) -> list[str]:
    """The columns to read of slates: the log's, the exposure log's, and those to keep.

    Raises:
        DataError: one of the log's or of those to keep is missing.
    """
    log = schema.log
    from_outcomes = {*outcome_columns(schema), log.position}
    needed = [name for name in log_order(schema) if name not in from_outcomes]
    needed += [name for name in ("rank", *config.keep_columns) if name not in needed]
    present = open_file(find_files(path)[0]).schema_arrow.names
    optional = [n for n in EXPOSURE_COLUMNS if n in present and n not in needed]
    return [*require_columns(path, needed), *optional]


def _lookup(keys: IntArray, wanted: IntArray) -> tuple[IntArray, Mask]:
    """Where each of ``wanted`` is in ascending ``keys``, and whether it is there."""
    if not len(keys):
        return np.zeros(len(wanted), dtype=np.int64), np.zeros(len(wanted), dtype=np.bool_)
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return place, keys[place] == wanted


def _positions(rows: pa.Table, where: str) -> pa.Array:
    values = rows.column("rank").combine_chunks()
    if not pa.types.is_integer(values.type) or values.null_count:
        raise DataError(f"{where}: column 'rank' must hold whole numbers from 1, got {values.type}")
    ranks = np.asarray(values, dtype=np.int64)
    if len(ranks) and not 1 <= ranks.min() <= ranks.max() <= MAX_RANK:
        wrong = ranks.min() if ranks.min() < 1 else ranks.max()
        raise DataError(f"{where}: column 'rank' must be 1 .. {MAX_RANK:,}, got {wrong}")
    return pa.array((ranks - 1).astype(np.int32))
