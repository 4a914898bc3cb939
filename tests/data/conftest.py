"""A small schema that reads everything from the log, and logs that fit it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ranker.data.prepare import Inputs, PrepareSettings, PrepareSummary, prepare
from ranker.data.problems import ProblemLog
from ranker.data.synthetic import SyntheticLog, write_synthetic_log
from ranker.data.tables import stream_log
from ranker.schema import Schema

START_MS = 1_700_000_000_000  # 2023-11-14 22:13:20 UTC
Columns = dict[str, Sequence[object] | pa.Array]


@pytest.fixture(scope="session")
def log_schema() -> Schema:
    return Schema.model_validate(
        {
            "name": "small",
            "log": {
                "user": "user_id",
                "item": "item_id",
                "time": "time_ms",
                "position": "position",
                "watch_time": "play_ms",
            },
            "list_by": "user_window",
            "reporting_delay_s": 1.5,
            "max_positions": 4,
            "features": [
                {"name": "user_id", "kind": "categorical", "owner": "user"},
                {"name": "item_id", "kind": "categorical", "owner": "item"},
                {"name": "topic", "kind": "categorical", "owner": "item"},
                {
                    "name": "tags",
                    "kind": "sequence",
                    "owner": "item",
                    "vocabulary": "topic",
                    "separator": "|",
                    "length": 3,
                },
                {"name": "price", "kind": "numeric", "owner": "item", "transform": "log1p"},
                {
                    "name": "age",
                    "kind": "numeric",
                    "owner": "item",
                    "column": "published",
                    "transform": "age_days",
                },
                {"name": "place", "kind": "categorical", "owner": "context", "nullable": True},
                {
                    "name": "hour",
                    "kind": "categorical",
                    "owner": "context",
                    "column": "time_ms",
                    "transform": "hour",
                },
            ],
            "tasks": [
                {"name": "click", "label": "click", "family": "engagement", "kind": "binary"},
                {
                    "name": "watch_time_s",
                    "label": "play_ms",
                    "label_factor": 0.001,
                    "cap": 300,
                    "family": "engagement",
                    "kind": "regression",
                    "loss": "squared_log1p",
                },
                {
                    "name": "rating",
                    "label": "rating",
                    "family": "satisfaction",
                    "kind": "regression",
                    "minimum": 1,
                    "maximum": 5,
                },
            ],
            "history": {
                "length": 3,
                "kept": 5,
                "feedback": ["click"],
                "keys": ["topic"],
                "contexts": ["place"],
                "rates": ["click", "watch_time_s", "rating"],
            },
        }
    )


@pytest.fixture
def log_columns() -> Callable[..., Columns]:
    """Seven good rows; keyword arguments replace columns (or take them away with None)."""

    def make(**changes: object) -> Columns:
        columns: Columns = {
            "user_id": [11, 12, 13, 11, 12, 13, 11],
            "item_id": ["a", "b", "c", "d", "e", "a", "b"],
            "time_ms": [START_MS + 1000 * k for k in range(7)],
            "position": [0, 1, 2, 3, 0, 1, 9],
            "play_ms": [0, 500, 2_000, 3_600_000, 0, 40, 7],
            "topic": ["x", "y", "x", "z", "y", "x", "y"],
            "tags": ["x|q", "y", "", "z|x|y|q", "y", "x|q", "y"],
            "price": [0.0, 1.5, 2.5, 3.5, 1.25, 0.0, 1.5],
            "published": ["2023-11-01", "2023-11-02T12:00:00", *["2023-11-03"] * 5],
            "place": ["home", None, "work", "home", None, "home", "work"],
            "click": [0, 1, 1, 1, 0, 0, 1],
            "rating": pa.array([None, None, 4.0, None, None, 1.0, 5.0], pa.float64()),
        }
        for name, values in changes.items():
            if values is None:
                del columns[name]
            else:
                columns[name] = values  # type: ignore[assignment]
        return columns

    return make


@pytest.fixture
def write_log(tmp_path: Path) -> Callable[..., Path]:
    """Write columns to ``tmp_path / name`` in row groups of three rows."""

    def write(columns: Columns, name: str = "log.parquet", row_group_size: int = 3) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(
            pa.table(columns), path, row_group_size=row_group_size, write_page_checksum=True
        )
        return path

    return write


@pytest.fixture
def read_log(log_schema: Schema) -> Callable[[Path], tuple[pa.Table, ProblemLog, list[pa.Table]]]:
    """The canonical good rows, the problems and the quarantined tables of a log."""

    def read(path: Path) -> tuple[pa.Table, ProblemLog, list[pa.Table]]:
        problems, bad = ProblemLog(), []
        tables = list(stream_log(path, log_schema, problems=problems, quarantine=bad.append))
        return pa.concat_tables(tables), problems, bad

    return read


@pytest.fixture(scope="session")
def small_log(tmp_path_factory: pytest.TempPathFactory) -> SyntheticLog:
    """14 days of 29 users and 43 items."""
    folder = tmp_path_factory.mktemp("synthetic")
    return write_synthetic_log(folder, num_users=29, num_items=43, num_days=14, seed=8)


@pytest.fixture(scope="session")
def prepare_log(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., tuple[Path, PrepareSummary]]:
    """Prepare ``inputs`` into a new folder; keyword arguments are settings."""

    def run(inputs: Inputs, schema: Schema, **settings: object) -> tuple[Path, PrepareSummary]:
        folder = tmp_path_factory.mktemp("prepared")
        return folder, prepare(inputs, schema, PrepareSettings(**settings), folder)  # type: ignore[arg-type]

    return run


@pytest.fixture(scope="session")
def small_prepared(
    small_log: SyntheticLog,
    synthetic_schema: Schema,
    prepare_log: Callable[..., tuple[Path, PrepareSummary]],
) -> Path:
    """The synthetic log, with a snapshot at the beginning of most days."""
    dates = tuple(f"2024-03-{day:02d}" for day in range(6, 18))
    inputs = Inputs(log=small_log.log, users=small_log.users, items=small_log.items)
    return prepare_log(inputs, synthetic_schema, snapshots=dates)[0]
