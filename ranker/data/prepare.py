"""A raw log becomes an encoded store in time order, and a state for scoring."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from pydantic import Field, field_validator

from ranker.atomic import MANIFEST, write_json, write_text
from ranker.config import Config, digest, dump_yaml
from ranker.data.encode import Encoders, local_ms
from ranker.data.features import (
    ColumnArray,
    EncodedRows,
    FeatureSource,
    OwnerTable,
    encode_rows,
    fit_scales,
    standardise_columns,
)
from ranker.data.history import UNKNOWN_TIME_MS, HistoryState, advance, make_events
from ranker.data.parquet import DataError
from ranker.data.problems import ProblemLog
from ranker.data.quarantine import Quarantine
from ranker.data.row_hash import hash_rows
from ranker.data.sort import DuplicateCount, sort_by_time
from ranker.data.state import load_state, save_state
from ranker.data.store import StoreWriter
from ranker.data.tables import read_earlier_history, read_owner_table, stream_log
from ranker.schema import Schema

MAX_SCALE_ROWS = 200_000


class PrepareSettings(Config):
    """How a log is prepared.

    Attributes:
        on_bad_rows: ``quarantine`` writes them to ``quarantine.parquet``; ``reject`` stops.
        max_bad_share: above this share of bad rows the log is rejected all the same.
        snapshots: local dates at whose beginning the state is saved, for scoring that day.
        sort_rows: rows sorted in memory at a time; more are spilled to disk.
        chunk_rows: rows encoded at a time (a window is the upper limit).
    """

    on_bad_rows: Literal["quarantine", "reject"] = "quarantine"
    max_bad_share: float = Field(default=0.01, ge=0, le=1)
    snapshots: tuple[str, ...] = ()
    sort_rows: int = Field(default=2_000_000, ge=1)
    chunk_rows: int = Field(default=500_000, ge=1)

    @field_validator("snapshots", mode="before")
    @classmethod
    def _dates_as_text(cls, value: object) -> object:
        # YAML reads an unquoted 2022-05-05 as a date
        if isinstance(value, list | tuple):
            return [v.isoformat() if type(v) is datetime.date else v for v in value]
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Where the raw data is. ``state`` continues an earlier `prepare`."""

    log: Path
    users: Path | None = None
    items: Path | None = None
    earlier_history: Path | None = None
    state: Path | None = None


@dataclass(slots=True, kw_only=True)
class LabelSummary:
    """Of a task's labels: how many were observed, positives of a binary one, and their mean."""

    observed: int = 0
    total: float = 0.0


@dataclass(slots=True, kw_only=True)
class PrepareSummary:
    """What was read, kept, dropped and why; the numbers a report shows."""

    rows_read: int = 0
    rows_kept: int = 0
    exact_duplicates: int = 0
    rows_before_state: int = 0
    bad_rows: int = 0
    bad_rows_by_reason: dict[str, int] = field(default_factory=dict)
    users: int = 0
    items: int = 0
    rows_without_owner: dict[str, int] = field(default_factory=dict)
    rows_by_window: dict[str, int] = field(default_factory=dict)
    labels: dict[str, LabelSummary] = field(default_factory=dict)


def prepare(
    inputs: Inputs, schema: Schema, settings: PrepareSettings, output: Path
) -> PrepareSummary:
    """Write ``store/``, ``state/``, ``snapshots/``, ``schema.yaml`` and a manifest to ``output``.

    Args:
        inputs: raw files; the tables the schema asks for must be given.
        schema: what they mean.
        settings: limits and snapshots.
        output: an existing empty folder.

    Raises:
        DataError: rejected input, naming file, row group, column and row.
    """
    source = _start(inputs, schema)
    source_as_of_ms = source.history.as_of_ms
    summary = PrepareSummary(labels={task.name: LabelSummary() for task in schema.tasks})
    if inputs.earlier_history is not None:
        _seed(source, read_earlier_history(inputs.earlier_history, schema))
    snapshots = _Snapshots(settings.snapshots, schema, output / "snapshots")
    with (
        tempfile.TemporaryDirectory(dir=output, prefix="spill-") as spill,
        contextlib.closing(StoreWriter(output / "store", schema)) as store,
    ):
        writer = _ScalingWriter(store, source.encoders, schema)
        rows = _sorted_rows(inputs.log, schema, settings, Path(spill), output, summary)
        for label, all_rows in _chunks(rows, schema, settings.chunk_rows, snapshots.moments_ms):
            writer.begin(label)
            snapshots.save_until(int(all_rows.column("time_ms")[0].as_py()), source)
            chunk = _after(all_rows, source_as_of_ms, summary)
            if chunk.num_rows == 0:
                continue
            encoded = encode_rows(chunk, source, learn=True)
            writer.append({**encoded.columns, "request": request_hash(chunk, schema)}, label)
            _count(summary, label, chunk, encoded, schema)
            last_ms = int(chunk.column("time_ms")[-1].as_py())
            advance(source.history, encoded.events, last_ms + 1, schema)
        if summary.rows_kept == 0:
            raise DataError(f"{inputs.log}: no usable rows" + _why_none(summary))
        writer.finish()
    snapshots.save_rest(source)
    save_state(output / "state", source)
    summary.users = len(source.encoders.vocabularies["user"]) - 1
    summary.items = len(source.encoders.vocabularies["item"]) - 1
    write_text(output / "schema.yaml", dump_yaml(schema))
    store_digest = json.loads((output / "store" / "store.json").read_text())["columns"]
    write_json(
        output / MANIFEST,
        {
            "kind": "prepared data",
            "schema_digest": digest(schema),
            "summary": asdict(summary),
            "columns": {name: column["sha256"] for name, column in store_digest.items()},
        },
    )
    return summary


def read_summary(prepared: Path) -> PrepareSummary:
    """The summary of an earlier `prepare`.

    Raises:
        DataError: no prepared data there.
    """
    try:
        document = json.loads((prepared / MANIFEST).read_text(encoding="utf-8"))["summary"]
    except (FileNotFoundError, KeyError, ValueError):
        raise DataError(f"{prepared}: holds no prepared data; run `ranker prepare`") from None
    labels = {name: LabelSummary(**values) for name, values in document.pop("labels").items()}
    return PrepareSummary(**document, labels=labels)


def window_labels(time_ms: np.ndarray[tuple[int], np.dtype[np.int64]], schema: Schema) -> pd.Index:
    """The label of each row's window: the local date of its beginning (with hour if not daily)."""
    hours = schema.window_hours
    length_ms = hours * 3_600_000
    begin = local_ms(time_ms, schema.time_zone) // length_ms * length_ms
    stamps = pd.DatetimeIndex(begin.astype("datetime64[ms]"))
    return stamps.strftime("%Y-%m-%d" if hours % 24 == 0 else "%Y-%m-%dT%H")


def request_hash(rows: pa.Table, schema: Schema) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Each row's request as a number: a hash, so that it is the same however a log is cut."""
    names = ["request"] if schema.log.request is not None else ["user", "time_ms"]
    return hash_rows({name: pa.concat_arrays(rows.column(name).chunks) for name in names})


def local_midnight_ms(date: str, schema: Schema) -> int:
    """UTC milliseconds of a local date's (or date and hour's) beginning.

    Raises:
        DataError: ``date`` is not a date.
    """
    try:
        stamp = pd.Timestamp(date)
    except ValueError:
        raise DataError(f"{date!r} is not a date like 2022-05-05") from None
    if pd.isna(stamp) or stamp.tzinfo is not None:
        raise DataError(f"{date!r} is not a local date like 2022-05-05")
    local = stamp.tz_localize(schema.time_zone, nonexistent="shift_forward", ambiguous=True)
    return round(local.timestamp() * 1000)


def _start(inputs: Inputs, schema: Schema) -> FeatureSource:
    users = _owner(inputs.users, schema, "user", needed=schema.user_table)
    items = _owner(inputs.items, schema, "item", needed=schema.item_table)
    if inputs.state is None:
        return FeatureSource(
            schema=schema,
            encoders=Encoders.empty(schema),
            history=HistoryState.empty(schema),
            users=users,
            items=items,
        )
    if inputs.earlier_history is not None:
        raise DataError("--earlier-history and --state exclude each other: the state has a history")
    source = load_state(inputs.state)
    if digest(source.schema) != digest(schema):
        raise DataError(f"{inputs.state}: was made with another schema; prepare from the beginning")
    source.users, source.items = users, items
    return source


def _owner(
    path: Path | None, schema: Schema, owner: Literal["user", "item"], *, needed: bool
) -> OwnerTable | None:
    if needed and path is None:
        raise DataError(f"schema {schema.name!r} reads a table of {owner}s: give --{owner}s FILE")
    if not needed and path is not None:
        raise DataError(f"schema {schema.name!r} has no {owner}_table: leave out --{owner}s")
    return None if path is None else OwnerTable(read_owner_table(path, schema, owner))


def _seed(source: FeatureSource, earlier: pa.Table) -> None:
    """Fold earlier impressions, ordered but without times, into the history before any row."""
    schema, encoders = source.schema, source.encoders
    earlier = earlier.sort_by([(name, "ascending") for name in ("user", "order", "item")])
    order = earlier.column("order").to_numpy()
    index = {
        name: encoders.vocabularies[name].encode_and_learn(earlier.column(name))
        for name in ("user", "item")
    }
    taken = source.items.lookup(earlier.column("item"))[0] if source.items else None
    for name in (*schema.history.keys, *schema.history.contexts):
        vocabulary = schema.vocabulary_of(schema.feature(name))
        if taken is not None and f"feature.{name}" in taken.column_names:
            values = taken.column(f"feature.{name}")
            index[vocabulary] = encoders.vocabularies[vocabulary].encode_and_learn(values)
        else:  # a context, or an item feature read from the log: not known of earlier rows
            index[vocabulary] = np.zeros(earlier.num_rows, dtype=np.int64)
    events = make_events(
        schema,
        time_ms=np.full(earlier.num_rows, UNKNOWN_TIME_MS, dtype=np.int64),
        visible_ms=UNKNOWN_TIME_MS + 1 + (order - order.min()).astype(np.int64),
        index=index,
        label_by_task={
            task.name: np.asarray(earlier.column(f"label.{task.name}").to_numpy(), dtype=np.float64)
            for task in schema.tasks
        },
    )
    advance(source.history, events, 0, schema)


def _sorted_rows(
    log: Path,
    schema: Schema,
    settings: PrepareSettings,
    spill: Path,
    output: Path,
    summary: PrepareSummary,
) -> Iterator[pa.Table]:
    """Checked rows in time order; bad ones go to ``quarantine.parquet``."""
    problems, duplicates = ProblemLog(), DuplicateCount()

    def counted() -> Iterator[pa.Table]:
        with contextlib.closing(Quarantine(output / "quarantine.parquet", log)) as quarantine:
            for table in stream_log(log, schema, problems=problems, quarantine=quarantine.add):
                summary.rows_read += table.num_rows
                yield table
        summary.rows_read += problems.bad_rows
        summary.bad_rows = problems.bad_rows
        summary.bad_rows_by_reason = problems.counts()
        reject_if_too_bad(problems, summary.rows_read, settings)

    yield from sort_by_time(
        counted(), spill=spill, run_rows=settings.sort_rows, duplicates=duplicates
    )
    summary.exact_duplicates = duplicates.rows


def reject_if_too_bad(problems: ProblemLog, rows_read: int, settings: PrepareSettings) -> None:
    """Raise `DataError` if bad rows are to stop the job."""
    if problems.bad_rows == 0:
        return
    share = problems.bad_rows / rows_read
    if settings.on_bad_rows == "quarantine" and share <= settings.max_bad_share:
        return
    raise DataError(
        f"{problems.bad_rows:,} of {rows_read:,} rows ({share:.2%}) are bad "
        f"(on_bad_rows: {settings.on_bad_rows}, max_bad_share: {settings.max_bad_share:g}):\n"
        + "\n".join(problems.sentences())
    )


def _chunks(
    tables: Iterator[pa.Table], schema: Schema, chunk_rows: int, cuts_ms: list[int]
) -> Iterator[tuple[str, pa.Table]]:
    """Cut the sorted stream at window borders, at ``cuts_ms``, and after ``chunk_rows``.

    Rows with equal time stamps stay together.
    """
    label, span, held = "", -1, None
    for table in tables:
        times_ms = np.asarray(table.column("time_ms").to_numpy())
        labels = window_labels(times_ms, schema).to_numpy()
        spans = np.searchsorted(np.array(cuts_ms, dtype=np.int64), times_ms, side="right")
        borders = np.flatnonzero((labels[1:] != labels[:-1]) | (spans[1:] != spans[:-1])) + 1
        bounds = [0, *borders.tolist(), table.num_rows]
        for start, stop in itertools.pairwise(bounds):
            piece = table.slice(start, stop - start)
            if held is not None and labels[start] == label and spans[start] == span:
                piece = pa.concat_tables([held, piece])
            elif held is not None:
                yield label, held.combine_chunks()
            label, span, held = str(labels[start]), int(spans[start]), piece
            while held.num_rows > chunk_rows:
                times = held.column("time_ms").to_numpy()
                cut = int(np.searchsorted(times, times[chunk_rows], side="left"))
                if cut == 0:
                    cut = int(np.searchsorted(times, times[chunk_rows], side="right"))
                if cut >= held.num_rows:
                    break
                yield label, held.slice(0, cut).combine_chunks()
                held = held.slice(cut)
    if held is not None:
        yield label, held.combine_chunks()


def _after(chunk: pa.Table, as_of_ms: int, summary: PrepareSummary) -> pa.Table:
    """Leave out rows that the state already covers."""
    known = np.asarray(chunk.column("time_ms").to_numpy()) < as_of_ms
    summary.rows_before_state += int(known.sum())
    return chunk.filter(pa.array(~known)) if known.any() else chunk


def _count(
    summary: PrepareSummary, label: str, chunk: pa.Table, encoded: EncodedRows, schema: Schema
) -> None:
    summary.rows_kept += chunk.num_rows
    summary.rows_by_window[label] = summary.rows_by_window.get(label, 0) + chunk.num_rows
    for owner, rows in encoded.missing_owners.items():
        summary.rows_without_owner[owner] = summary.rows_without_owner.get(owner, 0) + rows
    for task in schema.tasks:
        values = encoded.columns[f"label.{task.name}"]
        observed = ~np.isnan(values)
        summary.labels[task.name].observed += int(observed.sum())
        summary.labels[task.name].total += float(values[observed].sum(dtype=np.float64))


def _why_none(summary: PrepareSummary) -> str:
    if summary.rows_before_state:
        return f": all {summary.rows_before_state:,} rows are older than the state"
    return f" among {summary.rows_read:,} read"


class _ScalingWriter:
    """Holds rows back until there are enough to fit the scales on, then standardises and writes.

    The scales are fitted on the first windows that together hold ``scale_rows`` rows, but on no
    more than the first `MAX_SCALE_ROWS`: so they do not depend on how windows are cut into chunks,
    and a huge first window need not fit in memory.
    """

    def __init__(self, writer: StoreWriter, encoders: Encoders, schema: Schema) -> None:
        self._writer, self._encoders, self._schema = writer, encoders, schema
        self._held: list[tuple[dict[str, ColumnArray], str, dict[str, int]]] = []

    def begin(self, label: str) -> None:
        """Say which window the next rows belong to, before a snapshot is taken of what is known."""
        if self._held and self._held[-1][1] != label and self._num_held >= self._schema.scale_rows:
            self._write()  # a window has ended

    def append(self, columns: dict[str, ColumnArray], label: str) -> None:
        self._held.append((columns, label, self._encoders.sizes))
        if self._encoders.standardisers or self._num_held >= self._max_rows:
            self._write()

    @property
    def _max_rows(self) -> int:
        return max(self._schema.scale_rows, MAX_SCALE_ROWS)

    @property
    def _num_held(self) -> int:
        return sum(len(held["time_ms"]) for held, _, _ in self._held)

    def finish(self) -> None:
        self._write()
        self._writer.finish(self._encoders)

    def _write(self) -> None:
        if self._held and not self._encoders.standardisers:
            names = self._held[0][0]
            together = {
                n: np.concatenate([held[n] for held, _, _ in self._held])[: self._max_rows]
                for n in names
            }
            fit_scales(together, self._encoders, self._schema)
        for columns, label, sizes in self._held:
            self._writer.append(standardise_columns(columns, self._encoders), label, sizes)
        self._held = []


class _Snapshots:
    """Saves the state at the beginning of given local dates."""

    def __init__(self, dates: tuple[str, ...], schema: Schema, folder: Path) -> None:
        self._moments = sorted((local_midnight_ms(date, schema), date) for date in set(dates))
        self._folder = folder

    @property
    def moments_ms(self) -> list[int]:
        """Ascending moments at which the stream must be cut."""
        return [moment_ms for moment_ms, _ in self._moments]

    def save_until(self, time_ms: int, source: FeatureSource) -> None:
        """Save every snapshot due at or before ``time_ms``, before later rows are folded in."""
        while self._moments and self._moments[0][0] <= time_ms:
            moment_ms, date = self._moments.pop(0)
            if source.history.as_of_ms > moment_ms:
                raise DataError(f"snapshot {date}: the state is already newer")
            if not source.encoders.standardisers:
                raise DataError(
                    f"snapshot {date}: the windows before it hold fewer rows than the schema's "
                    f"scale_rows ({source.schema.scale_rows:,}), so nothing is standardised yet; "
                    "take a later snapshot or lower scale_rows"
                )
            advance(source.history, None, moment_ms, source.schema)
            save_state(self._folder / date, source)

    def save_rest(self, source: FeatureSource) -> None:
        """Save the snapshots that lie after the last row."""
        for moment_ms, date in self._moments:
            advance(source.history, None, moment_ms, source.schema)
            save_state(self._folder / date, source)
        self._moments = []


def describe(summary: PrepareSummary, schema: Schema) -> Mapping[str, float | None]:
    """Mean of each task's observed labels (None where none was observed)."""
    means: dict[str, float | None] = {}
    for task in schema.tasks:
        label = summary.labels[task.name]
        means[task.name] = label.total / label.observed if label.observed else None
    return means
