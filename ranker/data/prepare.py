"""A raw log becomes an encoded store in time order, and a state for scoring."""

from __future__ import annotations

import contextlib
import datetime
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, field_validator

from ranker.atomic import MANIFEST, write_text
from ranker.config import Config, digest, dump_yaml
from ranker.data.encode import Encoders
from ranker.data.features import (
    EncodedRows,
    FeatureSource,
    OwnerTable,
    encode_rows,
)
from ranker.data.history_state import UNKNOWN_TIME_MS, HistoryState, advance, make_events
from ranker.data.intact import KIND, describing_files
from ranker.data.parquet import DataError
from ranker.data.problems import ProblemLog
from ranker.data.quarantine import Quarantine
from ranker.data.row_hash import hash_rows
from ranker.data.scaling import ScalingWriter
from ranker.data.snapshots import Snapshots
from ranker.data.sort import Arrival, DuplicateCount, sort_by_time
from ranker.data.state import load_state, save_state
from ranker.data.store_writer import StoreWriter
from ranker.data.tables import read_earlier_history, read_owner_table, stream_log
from ranker.data.time_ahead import read_time_ahead
from ranker.data.windows import cut_into_chunks
from ranker.manifest import write_manifest
from ranker.schema import Schema


class PrepareSettings(Config):
    """How a log is prepared.

    Attributes:
        on_bad_rows: ``quarantine`` writes them to ``quarantine.parquet``; ``reject`` stops.
        max_bad_share: above this share of bad rows the log is rejected all the same.
        snapshots: local dates at whose beginning the state is saved, for scoring that day.
        sort_rows: rows held to be sorted; a log further out of order than that is spilled to disk.
        chunk_rows: rows encoded at a time (a window is the upper limit).
    """

    on_bad_rows: Literal["quarantine", "reject"] = "quarantine"
    max_bad_share: float = Field(default=0.01, ge=0, le=1)
    snapshots: tuple[str, ...] = ()
    sort_rows: int = Field(default=1_000_000, ge=1)
    chunk_rows: int = Field(default=500_000, ge=1)

    @field_validator("snapshots", mode="before")
    @classmethod
    def _dates_as_text(cls, value: object) -> object:
        # YAML reads an unquoted 2022-05-05 as a date
        if isinstance(value, list | tuple):
            return [v.isoformat() if type(v) is datetime.date else v for v in value]
        return value

    @field_validator("snapshots")
    @classmethod
    def _real_dates(cls, dates: tuple[str, ...]) -> tuple[str, ...]:
        for date in dates:
            try:
                known = datetime.date.fromisoformat(date).isoformat() == date
            except ValueError:
                known = False
            if not known:  # 11.03.2025 is read as November by some and as March by others
                raise ValueError(f"{date!r} is not a local date like 2022-05-05")
        return dates


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
    snapshots = Snapshots(settings.snapshots, schema, output / "snapshots")
    with (
        tempfile.TemporaryDirectory(dir=output, prefix="spill-") as spill,
        contextlib.closing(StoreWriter(output / "store", schema)) as store,
    ):
        writer = ScalingWriter(store, source.encoders, schema)
        rows = _sorted_rows(inputs.log, schema, settings, Path(spill), output, summary)
        for label, all_rows in cut_into_chunks(
            rows, schema, settings.chunk_rows, snapshots.moments_ms
        ):
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
    write_manifest(
        output,
        {
            "kind": KIND,
            "schema_digest": digest(schema),
            "summary": asdict(summary),
            "files": describing_files(output),
            "entries": ["store", "state", "snapshots", "origin.json", "quarantine.parquet"],
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


def request_hash(rows: pa.Table, schema: Schema) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Each row's request as a number: a hash, so that it is the same however a log is cut."""
    names = ["request"] if schema.log.request is not None else ["user", "time_ms"]
    return hash_rows({name: pa.concat_arrays(rows.column(name).chunks) for name in names})


def check_inputs(inputs: Inputs, schema: Schema) -> None:
    """Raise `DataError` unless just the tables are given that the schema asks for."""
    tables = (
        ("user", inputs.users, schema.user_table),
        ("item", inputs.items, schema.item_table),
    )
    for owner, path, needed in tables:
        if needed and path is None:
            raise DataError(
                f"schema {schema.name!r} reads a table of {owner}s: give --{owner}s FILE"
            )
        if not needed and path is not None:
            raise DataError(f"schema {schema.name!r} has no {owner}_table: leave out --{owner}s")
    if inputs.state is not None:
        if inputs.earlier_history is not None:
            raise DataError(
                "--earlier-history and --state exclude each other: the state has a history"
            )
        if not (inputs.state / MANIFEST).is_file():
            raise DataError(f"{inputs.state}: holds no state; `ranker prepare` writes one")
    if inputs.earlier_history is not None and schema.earlier_history is None:
        raise DataError(
            f"schema {schema.name!r} has no earlier_history: leave out --earlier-history"
        )


def _start(inputs: Inputs, schema: Schema) -> FeatureSource:
    check_inputs(inputs, schema)
    users = OwnerTable(read_owner_table(inputs.users, schema, "user")) if inputs.users else None
    items = OwnerTable(read_owner_table(inputs.items, schema, "item")) if inputs.items else None
    if inputs.state is None:
        return FeatureSource(
            schema=schema,
            encoders=Encoders.empty(schema),
            history=HistoryState.empty(schema),
            users=users,
            items=items,
        )
    source = load_state(inputs.state)
    if digest(source.schema) != digest(schema):
        raise DataError(f"{inputs.state}: was made with another schema; prepare from the beginning")
    source.users, source.items = users, items
    return source


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
    for name, vocabulary in schema.counted_vocabularies.items():
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

    ahead = read_time_ahead(log, schema)

    def counted() -> Iterator[Arrival]:
        with contextlib.closing(Quarantine(output / "quarantine.parquet", log)) as quarantine:
            for table in stream_log(log, schema, problems=problems, quarantine=quarantine.add):
                summary.rows_read += table.num_rows
                oldest_ms = ahead.after(summary.rows_read + problems.bad_rows)
                yield Arrival(rows=table, oldest_to_come_ms=oldest_ms)
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


def describe(summary: PrepareSummary, schema: Schema) -> Mapping[str, float | None]:
    """Mean of each task's observed labels (None where none was observed)."""
    means: dict[str, float | None] = {}
    for task in schema.tasks:
        label = summary.labels[task.name]
        means[task.name] = label.total / label.observed if label.observed else None
    return means
