"""Candidates, slates and joined impressions write times as the log does."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from chain_run import Chain, run_ranker


def ran(*words: str | Path) -> None:
    done = run_ranker(*words)
    assert done.code == 0, done.err


@pytest.mark.parametrize("kind", [pa.int64(), pa.timestamp("us", "Asia/Tokyo"), pa.timestamp("ms")])
def test_a_loop_keeps_the_logs_type(kind: pa.DataType, chain: Chain, tmp_path: Path) -> None:
    candidates = pq.read_table(chain.candidates)
    requests = candidates.select(["request_id", "user_id", "time_s", "device"])
    requests = pa.table(requests.to_pandas().drop_duplicates("request_id").head(13))
    place = requests.column_names.index("time_s")
    seconds = requests.column("time_s")
    if pa.types.is_timestamp(kind):
        seconds = seconds.cast(pa.timestamp("s", kind.tz)).cast(kind)
    pq.write_table(requests.set_column(place, "time_s", seconds), tmp_path / "requests.parquet")
    ran(
        *("candidates", "--state", chain.state, "--requests", tmp_path / "requests.parquet"),
        *("--set", "num_candidates=7", "--output", tmp_path / "candidates.parquet"),
    )
    ran(
        *("score", "--bundle", chain.bundle, "--state", chain.state),
        *("--candidates", tmp_path / "candidates.parquet", "--output", tmp_path / "slates"),
    )
    slates = pq.read_table(tmp_path / "slates")
    nothing = pa.nulls(slates.num_rows, pa.float64())
    labels = dict.fromkeys(("click", "watch_time_s", "like", "rating", "dismissed"), nothing)
    keys = {name: slates.column(name) for name in ("request_id", "item_id")}
    pq.write_table(pa.table(keys | labels), tmp_path / "outcomes.parquet")
    ran(
        *("join", tmp_path / "slates", tmp_path / "outcomes.parquet", "--schema", chain.schema),
        *("--output", tmp_path / "new.parquet"),
    )
    asked = dict(zip(requests["request_id"].to_pylist(), seconds.to_pylist(), strict=True))
    for name in ("candidates.parquet", "slates", "new.parquet"):
        rows = pq.read_table(tmp_path / name)
        assert rows.schema.field("time_s").type == kind
        assert rows.num_rows >= 13
        expected = [asked[request] for request in rows["request_id"].to_pylist()]
        assert rows["time_s"].to_pylist() == expected
