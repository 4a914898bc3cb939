"""Slates and their outcomes become impressions: tomorrow's rows of the log.

Two passes over the slates. The first finds when each outcome's impression was asked for, which says
whether the outcome came in time; the second writes the rows. Outcomes and 16 bytes a shown row are
in memory, the slates are not.

`N` outcome rows, `M` shown rows, `G` impressions with outcomes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ranker.data.parquet import DataError, find_files, open_file, stream
from ranker.schema import Schema
from ranker.scoring.join.impression_keys import check_same_kind, key_columns, keys_of, row_times_ms
from ranker.scoring.join.join_config import JoinConfig
from ranker.scoring.join.outcomes import MergedOutcomes, Outcomes, merge_outcomes, outcome_columns

IntArray = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

MS_PER_HOUR = 3_600_000


@dataclass(slots=True, kw_only=True)
class JoinCounts:
    """What became of every row of slates and outcomes.

    Attributes:
        shown_rows: rows of the slates; each is exactly one of the following.
        impressions: were written.
        before_since, from_until_on: outside the period.
        incomplete: too young for all their feedback to have come.
        unconfirmed: nothing says they were shown; left out, or written with null labels.
        outcome_rows: rows of the outcomes; each is exactly one of the following.
        used_outcomes: belong to a row of the slates and came in time.
        unmatched_outcomes: belong to no row of the slates.
        late_outcomes: came after the patience.
        early_outcomes: came before the request: a clock is wrong.
        repeated_outcomes: of those used, rows of an impression beyond its first.
        observed: label -> how many impressions have a value.
        zeros_without_event: label -> how many of them are 0 for want of an event.
    """

    shown_rows: int = 0
    impressions: int = 0
    before_since: int = 0
    from_until_on: int = 0
    incomplete: int = 0
    unconfirmed: int = 0
    outcome_rows: int = 0
    used_outcomes: int = 0
    unmatched_outcomes: int = 0
    late_outcomes: int = 0
    early_outcomes: int = 0
    repeated_outcomes: int = 0
    observed: dict[str, int] = field(default_factory=dict)
    zeros_without_event: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ShownIndex:
    """All rows of the slates: when each was asked for.

    Attributes:
        impressions: keys, ascending, [M].
        times_ms: of the request, [M].
    """

    impressions: IntArray
    times_ms: IntArray


def index_slates(path: Path, schema: Schema, outcomes: Outcomes) -> ShownIndex:
    """Read the keys and times of all slates.

    Raises:
        DataError: missing columns, a key that is null or occurs twice, or ids of other types than
            the outcomes'.
    """
    columns = list(dict.fromkeys([*key_columns(schema), schema.log.time]))
    keys, times = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    for located in stream(path, require_columns(path, columns)):
        where = where_is(located.file, located.row_group, located.first_row)
        rows = pa.Table.from_batches([located.rows])
        found = keys_of(rows, schema, where)
        check_same_kind(found, outcomes.keys)
        keys.append(found.impression)
        times.append(row_times_ms(rows, schema, where))
    key = np.concatenate(keys)
    if not len(key):
        raise DataError(f"{path}: the slates hold no rows")
    order = np.argsort(key, kind="stable")
    index = ShownIndex(impressions=key[order], times_ms=np.concatenate(times)[order])
    twice = np.flatnonzero(index.impressions[1:] == index.impressions[:-1])
    if len(twice):
        _refuse_repeated(path, schema, index.impressions[twice])
    return index


def sort_out(
    outcomes: Outcomes, index: ShownIndex, config: JoinConfig, counts: JoinCounts
) -> tuple[MergedOutcomes, Mask]:
    """Which outcomes count, brought together by impression; and which have no slate: [N].

    Raises:
        DataError: none of them has a slate, or conflicting values.
    """
    place = np.searchsorted(index.impressions, outcomes.keys.impression)
    place = np.minimum(place, len(index.impressions) - 1)
    matched = index.impressions[place] == outcomes.keys.impression
    counts.outcome_rows = len(matched)
    counts.unmatched_outcomes = int((~matched).sum())
    if len(matched) and not matched.any():
        raise DataError(
            f"{outcomes.source}: none of its {len(matched):,} rows belongs to a row of the slates "
            f"by {list(outcomes.keys.parts)}; are they of other days, or other ids?"
        )
    usable = matched.copy()
    if outcomes.times_ms is not None:
        delay_ms = outcomes.times_ms - index.times_ms[place]
        early = matched & (delay_ms < 0)
        late = np.zeros_like(matched)
        if config.patience_hours is not None:
            late = matched & (delay_ms > config.patience_hours * MS_PER_HOUR)
        counts.early_outcomes, counts.late_outcomes = int(early.sum()), int(late.sum())
        usable &= ~(early | late)
    counts.used_outcomes = int(usable.sum())
    merged = merge_outcomes(outcomes, usable, latest=config.conflicts == "latest")
    counts.repeated_outcomes = merged.num_repeated
    return merged, ~matched


def check_join_config(config: JoinConfig, schema: Schema) -> None:
    """Raise ValueError if a label that is to be 0 is none."""
    known = outcome_columns(schema)
    unknown = sorted(set(config.zero_without_event) - set(known))
    if unknown:
        raise ValueError(f"zero_without_event: {unknown} are no label columns ({known})")


def require_columns(path: Path, columns: list[str]) -> list[str]:
    """Return ``columns``, or raise `DataError` if a file of slates lacks one or has one twice."""
    for file in find_files(path):
        names = open_file(file).schema_arrow.names
        missing = [name for name in columns if name not in names]
        if missing:
            raise DataError(
                f"{file}: column {missing[0]!r} is missing; slates need {columns}, the file has "
                f"{sorted(names)}"
            )
        twice = [name for name in columns if names.count(name) > 1]
        if twice:
            raise DataError(
                f"{file}: column {twice[0]!r} is there {names.count(twice[0])} times; give every "
                "column its own name"
            )
    return columns


def where_is(file: Path, row_group: int, first_row: int) -> str:
    """What messages call the place of a batch."""
    return f"{file}: row group {row_group}, from row {first_row}"


def _refuse_repeated(path: Path, schema: Schema, repeated: IntArray) -> None:
    for located in stream(path, key_columns(schema)):
        rows = pa.Table.from_batches([located.rows])
        where = where_is(located.file, located.row_group, located.first_row)
        keys = keys_of(rows, schema, where)
        twice = np.isin(keys.impression, repeated)
        if twice.any():
            row = int(twice.argmax())
            first = {name: values[row].as_py() for name, values in keys.parts.items()}
            raise DataError(
                f"{path}: {len(repeated):,} rows repeat an impression of the slates, the first "
                f"{first}; give each day's slates once"
            )
