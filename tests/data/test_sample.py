import importlib.util
import os
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ranker.schema import load_schema

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "data" / "sample"
# Counted in the source with pandas, apart from the script: rows with user_id % 4 == 3.
NUM_ROWS = {
    "log.parquet": 58_405,
    "users.parquet": 6_821,
    "items.parquet": 7_001,
    "earlier_history.parquet": 202_256,
}


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    return {name: pq.read_table(SAMPLE / name).to_pandas() for name in NUM_ROWS}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_sample", ROOT / "data" / "make_sample.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_sample_holds_exactly_its_files() -> None:
    assert {p.name for p in SAMPLE.iterdir()} == {*NUM_ROWS, "README.md", "LICENSE.md"}
    assert sum(p.stat().st_size for p in SAMPLE.iterdir()) < 3_000_000


def test_row_counts(tables: dict[str, pd.DataFrame]) -> None:
    assert {name: len(table) for name, table in tables.items()} == NUM_ROWS
    assert tables["log.parquet"].user_id.nunique() == 6_279


def test_only_the_stated_users(tables: dict[str, pd.DataFrame]) -> None:
    for name in ("log.parquet", "users.parquet", "earlier_history.parquet"):
        assert set(tables[name].user_id % 4) == {3}


def test_every_user_and_item_has_features(tables: dict[str, pd.DataFrame]) -> None:
    users, items = tables["users.parquet"].user_id, tables["items.parquet"].video_id
    assert users.is_unique and items.is_unique
    log, earlier = tables["log.parquet"], tables["earlier_history.parquet"]
    assert set(log.user_id) | set(earlier.user_id) <= set(users)
    assert set(log.video_id) | set(earlier.video_id) == set(items)


def test_log_covers_the_fourteen_days(tables: dict[str, pd.DataFrame]) -> None:
    times = pd.to_datetime(tables["log.parquet"].time_ms, unit="ms", utc=True)
    days = times.dt.tz_convert("Asia/Shanghai").dt.strftime("%m%d")
    # The source's `date` lags by up to an hour, so that its first rows are late on the 24th.
    assert set(days) == {
        "0424",
        *(f"04{d}" for d in range(25, 31)),
        *(f"050{d}" for d in range(1, 9)),
    }


def test_dropping_columns_made_no_new_duplicates(tables: dict[str, pd.DataFrame]) -> None:
    log = tables["log.parquet"]
    assert log.duplicated().sum() == 1_410  # as many as with all 19 columns
    # The columns kept for this are needed: without them rows that differ would be dropped.
    assert log.drop(columns=["hourmin", "comment_stay_time"]).duplicated().sum() == 1_513


def test_columns_of_the_schema_are_there(tables: dict[str, pd.DataFrame]) -> None:
    schema = load_schema(ROOT / "configs" / "schema" / "kuairand.yaml")
    log = {schema.log.user, schema.log.item, schema.log.time, schema.log.watch_time}
    log |= {task.label for task in schema.tasks}
    log |= {f.column for f in schema.features if f.owner == "context"}
    assert log <= set(tables["log.parquet"])
    for owner, name in (("user", "users.parquet"), ("item", "items.parquet")):
        assert {f.column for f in schema.features if f.owner == owner} == set(tables[name])
    assert schema.earlier_history is not None
    assert {"user_id", "video_id", schema.earlier_history.order} <= set(
        tables["earlier_history.parquet"]
    )


def test_numbers_with_gaps_stay_integers() -> None:
    for name in NUM_ROWS:
        for field in pq.read_schema(SAMPLE / name):
            assert pa.types.is_integer(field.type) or field.type == pa.string(), field
    assert pq.read_table(SAMPLE / "users.parquet")["onehot_feat4"].null_count == 218


def test_earlier_history_is_ordered_and_short(tables: dict[str, pd.DataFrame]) -> None:
    earlier = tables["earlier_history.parquet"]
    assert earlier.groupby("user_id").size().max() == 50
    assert not earlier.duplicated(["user_id", "position"]).any()
    assert earlier.groupby("user_id").position.is_monotonic_increasing.all()


@pytest.mark.parametrize("name", NUM_ROWS)
def test_a_flipped_byte_is_noticed(name: str, tmp_path: Path) -> None:
    content = bytearray((SAMPLE / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(OSError, match=r"checksum|CRC"):
        pq.read_table(tmp_path / name, page_checksum_verification=True)


def test_licence_and_attribution_stand_beside_the_data() -> None:
    for text in ((SAMPLE / "LICENSE.md").read_text(), (SAMPLE / "README.md").read_text()):
        words = " ".join(text.split())
        assert "CC BY-SA 4.0" in words
        assert "10.1145/3511808.3557624" in words
        assert "zenodo.org/records/10439422" in words
    assert "https://creativecommons.org/licenses/by-sa/4.0/" in (SAMPLE / "LICENSE.md").read_text()
    assert "Changes made" in (SAMPLE / "README.md").read_text()
    assert "Version 2.0, January 2004" in (ROOT / "LICENSE").read_text()


def test_script_counts_duplicates_with_nulls(script: ModuleType) -> None:
    table = pa.table({"a": [1, 1, 2, 1, None, None, 2], "b": ["x", "x", "x", "y", None, None, "x"]})
    assert script.count_duplicates(table) == table.to_pandas().duplicated().sum() == 3
    assert script.count_duplicates(table.slice(0, 0)) == 0


def test_script_refuses_fractions_and_keeps_nulls(script: ModuleType) -> None:
    kept = script.select_columns(pa.table({"n": [1.0, None, 3.0]}), ["n"])
    assert kept.equals(pa.table({"n": pa.array([1, None, 3], pa.int64())}))
    with pytest.raises(pa.ArrowInvalid, match="truncated"):
        script.select_columns(pa.table({"n": [1.5]}), ["n"])


def test_script_refuses_a_large_sample(script: ModuleType, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(2**62, size=400_000)
    with pytest.raises(ValueError, match="expected at most 3000000 bytes"):
        script.write_sample({"log.parquet": pa.table({"n": noise})}, tmp_path)


@pytest.mark.skipif("RANKER_DATA" not in os.environ, reason="RANKER_DATA is not set")
def test_sample_is_what_the_script_makes(script: ModuleType, tmp_path: Path) -> None:
    schema = load_schema(script.SCHEMA_PATH)
    made = script.make_sample(Path(os.environ["RANKER_DATA"]) / "kuairand_pure_0425_0508", schema)
    script.write_sample(made, tmp_path)
    for name in NUM_ROWS:
        assert pq.read_table(tmp_path / name).equals(pq.read_table(SAMPLE / name)), name
        writers = {
            pq.ParquetFile(folder / name).metadata.created_by for folder in (tmp_path, SAMPLE)
        }
        if len(writers) == 1:  # another pyarrow may encode the same table differently
            assert (tmp_path / name).read_bytes() == (SAMPLE / name).read_bytes(), name
