"""``state/``: what scoring and the next ``prepare`` need of the past, as of one moment."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ranker.atomic import MANIFEST, write_text
from ranker.config import digest, dump_yaml
from ranker.data.encode import ENCODERS_FILE, Encoders
from ranker.data.features import FeatureSource, OwnerTable
from ranker.data.history_state import (
    Counts,
    Events,
    HistoryState,
    event_vocabularies,
)
from ranker.data.parquet import DataError, read_table, write_table
from ranker.manifest import find_damage, folder_digests, is_intact, write_manifest
from ranker.schema import Schema, load_schema

FORMAT = 2


def save_state(folder: Path, source: FeatureSource) -> None:
    """Write counts, histories, tables and encoders below an empty ``folder``."""
    history, schema = source.history, source.schema
    folder.mkdir(parents=True)
    write_text(folder / "schema.yaml", dump_yaml(schema))
    source.encoders.save(folder / ENCODERS_FILE)
    for name, counts in history.counts.items():
        write_table(folder / "counts" / f"{name}.parquet", _counts_table(counts, schema))
    write_table(folder / "counts" / "_overall.parquet", _counts_table(history.overall, schema))
    write_table(folder / "recent.parquet", _events_table(history.recent, schema))
    write_table(folder / "pending.parquet", _events_table(history.pending, schema))
    if source.users is not None:
        write_table(folder / "users.parquet", source.users.table)
    if source.items is not None:
        write_table(folder / "items.parquet", source.items.table)
    manifest = {
        "format": FORMAT,
        "as_of_ms": history.as_of_ms,
        "schema_digest": digest(schema),
        "files": folder_digests(folder),
    }
    write_manifest(folder, manifest)


def load_state(folder: Path) -> FeatureSource:
    """Read what `save_state` wrote, after checking every file's sha256.

    Raises:
        DataError: not a state, damaged, or of another format.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        as_of_ms, files = int(manifest["as_of_ms"]), dict(manifest["files"])
        known_format, intact = manifest["format"] == FORMAT, is_intact(manifest)
    except FileNotFoundError:
        raise DataError(f"{folder}: holds no state; `ranker prepare` writes one") from None
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{folder / MANIFEST}: is no state's manifest") from None
    if not intact:
        raise DataError(f"{folder / MANIFEST}: changed or damaged: it differs from its own sha256")
    if not known_format:
        raise DataError(f"{folder}: state format {manifest['format']}, expected {FORMAT}")
    problems = find_damage(folder, files)
    if problems:
        raise DataError(f"{folder}: the state is damaged: {'; '.join(problems)}")
    schema = load_schema(folder / "schema.yaml")
    history = HistoryState(
        as_of_ms=as_of_ms,
        counts={
            counter.name: _read_counts(folder / "counts" / f"{counter.name}.parquet", schema)
            for counter in schema.counters
        },
        overall=_read_counts(folder / "counts" / "_overall.parquet", schema),
        recent=_read_events(folder / "recent.parquet", schema),
        pending=_read_events(folder / "pending.parquet", schema),
    )
    return FeatureSource(
        schema=schema,
        encoders=Encoders.load(folder / ENCODERS_FILE),
        history=history,
        users=_owner_table(folder / "users.parquet"),
        items=_owner_table(folder / "items.parquet"),
    )


def state_digest(folder: Path) -> str:
    """A short digest of a whole state: its manifest names every file's sha256."""
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    files = json.dumps(manifest["files"], sort_keys=True)
    return hashlib.sha256(files.encode()).hexdigest()[:12] + f"@{manifest['as_of_ms']}"


def _owner_table(path: Path) -> OwnerTable | None:
    return OwnerTable(read_table(path)) if path.is_file() else None


def _counts_table(counts: Counts, schema: Schema) -> pa.Table:
    columns = {"key": counts.keys, "impressions": counts.impressions}
    for column, task in enumerate(schema.rates):
        columns[f"sum.{task}"] = counts.sums[:, column]
        columns[f"observed.{task}"] = counts.observed[:, column]
    return pa.table(columns)


def _read_counts(path: Path, schema: Schema) -> Counts:
    table = read_table(path)
    return Counts(
        keys=_ints(table, "key"),
        impressions=_ints(table, "impressions"),
        sums=_stack(table, "sum", schema),
        observed=_stack(table, "observed", schema),
    )


def _events_table(events: Events, schema: Schema) -> pa.Table:
    columns = {
        "time_ms": events.time_ms,
        "visible_ms": events.visible_ms,
        "feedback": events.feedback,
        "watched": events.watched,
        **{f"index.{name}": values for name, values in events.index.items()},
    }
    for column, task in enumerate(schema.rates):
        columns[f"sum.{task}"] = events.sums[:, column]
        columns[f"observed.{task}"] = events.observed[:, column]
    return pa.table(columns)


def _read_events(path: Path, schema: Schema) -> Events:
    table = pq.read_table(path, page_checksum_verification=True)
    return Events(
        time_ms=_ints(table, "time_ms"),
        visible_ms=_ints(table, "visible_ms"),
        index={name: _ints(table, f"index.{name}") for name in event_vocabularies(schema)},
        sums=_stack(table, "sum", schema),
        observed=_stack(table, "observed", schema),
        feedback=_ints(table, "feedback"),
        watched=np.asarray(table.column("watched").to_numpy(), dtype=bool),
    )


def _ints(table: pa.Table, name: str) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.asarray(table.column(name).to_numpy(), dtype=np.int64)


def _stack(
    table: pa.Table, prefix: str, schema: Schema
) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    columns = [_ints(table, f"{prefix}.{task}") for task in schema.rates]
    if not columns:
        return np.zeros((table.num_rows, 0), dtype=np.int64)
    return np.stack(columns, axis=1)
