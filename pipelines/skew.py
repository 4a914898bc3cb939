"""The rows on which `ranker verify` compares training and serving, taken from the raw log."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from ranker.bundle import ModelBundle, check_same_features
from ranker.data.features import FeatureSource
from ranker.data.intact import open_intact_store
from ranker.data.parquet import DataError, stream, write_table
from ranker.data.problems import ProblemLog
from ranker.data.sort import Arrival, DuplicateCount, sort_by_time
from ranker.data.state import load_state
from ranker.data.store import EncodedStore
from ranker.data.tables import candidate_columns, hash_log_rows, read_requests, stream_log
from ranker.data.windows import window_labels
from ranker.scoring.predict import check_belongs
from ranker.scoring.skew import SkewCheck, WindowRows, check_skew

IntArray = npt.NDArray[np.int64]


def check_states(
    bundle: ModelBundle, prepared: Path, log: Path, states: Sequence[Path]
) -> dict[Path, SkewCheck]:
    """State -> what its window's rows look like on both paths.

    Raises:
        DataError: data, log or a state that don't belong to each other or to the bundle, or no rows
            after a state's moment.
    """
    store = open_intact_store(prepared)
    check_same_features(bundle, store.schema, store.encoders, str(prepared))
    checks = {}
    for state in states:
        source = load_state(state)
        check_belongs(bundle, source)
        checks[state] = check_skew(bundle, source, store, window_rows(store, source, log, state))
    return checks


def states_of(prepared: Path) -> list[Path]:
    """The snapshots of prepared data, oldest first.

    Raises:
        DataError: there are none.
    """
    folder = prepared / "snapshots"
    states = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    if not states:
        raise DataError(
            f"{prepared}: has no snapshots to serve from; prepare with "
            "--set \"snapshots=['DATE']\", or give --state"
        )
    return states


def window_rows(store: EncodedStore, source: FeatureSource, log: Path, state: Path) -> WindowRows:
    """The rows of the log's window that begins with the state, as training and scoring see them.

    Raises:
        DataError: no such rows in the data, or other rows in the log.
    """
    as_of_ms = source.history.as_of_ms
    label = str(window_labels(np.array([as_of_ms], dtype=np.int64), store.schema)[0])
    windows = [window for window in store.windows if window.label == label]
    stop = windows[0].stop if windows else 0
    times = np.asarray(store.column("time_ms")[:stop], dtype=np.int64)
    start = int(np.searchsorted(times, as_of_ms, side="left"))
    if start >= stop:
        raise DataError(
            f"{state}: {store.folder} holds no rows of window {label} after this state's moment; "
            "give a snapshot from the beginning of one of its windows"
        )
    canonical = _rows_between(log, store, int(times[start]), int(times[-1]))
    found = np.asarray(canonical.column("time_ms").to_numpy(), dtype=np.int64)
    if not np.array_equal(found, times[start:]):
        raise DataError(
            f"{log}: has {len(found):,} good rows in window {label} where {store.folder} has "
            f"{stop - start:,}, or at other times; give the log that was prepared"
        )
    return WindowRows(
        window=label,
        start=start,
        stop=stop,
        candidates=_as_candidates(log, store, canonical),
        visible_ms=np.asarray(canonical.column("visible_ms").to_numpy(), dtype=np.int64),
    )


def _rows_between(log: Path, store: EncodedStore, first_ms: int, last_ms: int) -> pa.Table:
    """The good rows as `prepare` orders them, exact duplicates dropped."""
    tables, problems = [], ProblemLog()
    for table in stream_log(log, store.schema, problems=problems, quarantine=lambda _: None):
        times = np.asarray(table.column("time_ms").to_numpy())
        tables.append(table.filter(pa.array((times >= first_ms) & (times <= last_ms))))
    if not tables:
        raise DataError(f"{log}: holds no rows; give the log that was prepared")
    rows = pa.concat_tables(tables)
    with tempfile.TemporaryDirectory(prefix="ranker-verify-") as spill:
        ordered = sort_by_time(
            [Arrival(rows=rows)],
            spill=Path(spill),
            run_rows=rows.num_rows + 1,
            duplicates=DuplicateCount(),
        )
        return pa.concat_tables([rows.slice(0, 0), *ordered])


def _as_candidates(log: Path, store: EncodedStore, canonical: pa.Table) -> pa.Table:
    """The same raw rows, written to files and read as `score` reads candidates."""
    wanted = pd.Index(canonical.column("row_hash").to_numpy())
    needed, places = candidate_columns(store.schema), []
    with tempfile.TemporaryDirectory(prefix="ranker-verify-") as folder:
        for number, located in enumerate(stream(log)):
            place = wanted.get_indexer(pd.Index(hash_log_rows(located.rows, store.schema)))
            chosen = np.flatnonzero(place >= 0)
            if len(chosen):  # a file of its own each: the log's files may differ in types
                raw = pa.Table.from_batches([located.rows]).select(needed).take(pa.array(chosen))
                write_table(Path(folder) / f"part-{number:09d}.parquet", raw)
                places.append(place[chosen])
        candidates = read_requests(Path(folder), store.schema, content="candidates")
    # of exact duplicates the first
    return candidates.take(pa.array(np.unique(np.concatenate(places), return_index=True)[1]))
