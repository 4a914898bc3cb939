"""Impressions that share user, item and time: whose prediction is whose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from chain_run import Ran, run_ranker

SCHEMA = """
name: alike
log: {user: u, item: i, time: t, time_unit: s, request: r}
scale_rows: 5
list_by: user_window
features: [{name: i, kind: categorical, owner: item}]
tasks: [{name: click, label: click, family: engagement, kind: binary, score_weight: 1}]
history: null
"""
DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four days of 3 users and 5 items, times cut to the day: many requests show what others do."""
    folder = tmp_path_factory.mktemp("alike")
    rng = np.random.default_rng(8)
    rows = 2_000
    day = np.sort(rng.integers(0, 4, rows))
    log = pa.table(
        {
            "u": rng.integers(0, 3, rows),
            "i": rng.integers(0, 5, rows),
            "t": pa.array((19_723 + day) * DAY_MS + 1, pa.timestamp("ms")),  # no whole second
            "r": [f"r{k}" for k in rng.permutation(rows)],
            "click": rng.integers(0, 2, rows),
        }
    )
    pq.write_table(log, folder / "log.parquet")
    (folder / "schema.yaml").write_text(SCHEMA)
    words = ["--schema", folder / "schema.yaml", "--log", folder / "log.parquet"]
    assert run_ranker("prepare", *words, "--output", folder / "data").code == 0
    return folder


def compare_with_itself(folder: Path, predictions: pa.Table) -> Ran:
    path = folder / "predictions.parquet"
    pq.write_table(predictions, path)
    ran = run_ranker(
        *("compare", path, path, "--data", folder / "data", "--from", "2024-01-03", "--json"),
        *("--set", "num_replicates=20"),
    )
    assert ran.code == 0, ran.err
    return ran


def test_the_request_tells_rows_apart(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Who predicts the labels themselves is right about every row, in whatever order."""
    log = pq.read_table(folder / "log.parquet")
    perfect = log.set_column(4, "click", log["click"].cast(pa.float64()))
    ran = compare_with_itself(folder, perfect)
    assert ran.json["comparisons"][0]["a"]["value"] == 1.0
    assert not caplog.messages
    ran = compare_with_itself(folder, perfect.drop_columns("r"))
    assert ran.json["comparisons"][0]["a"]["value"] < 0.9
    assert "rows share u, i and time with others but not their predictions" in caplog.text
    caplog.clear()
    same = perfect.set_column(4, "click", pa.array(np.full(log.num_rows, 0.5)))
    compare_with_itself(folder, same.drop_columns("r"))
    assert not caplog.messages
