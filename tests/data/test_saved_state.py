"""A saved state serves what training saw, and says when it is damaged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from ranker.config import dump_yaml
from ranker.data.features import encode_rows, standardise_columns
from ranker.data.parquet import DataError
from ranker.data.state import load_state, save_state, state_digest
from ranker.data.store import EncodedStore
from ranker.data.store_layout import store_columns
from ranker.data.synthetic import SyntheticLog
from ranker.data.tables import read_requests
from ranker.manifest import write_manifest
from ranker.schema import Schema


@pytest.fixture
def state(small_prepared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_prepared / "state", tmp_path / "state"))


def test_serving_equals_training(
    small_log: SyntheticLog, synthetic_schema: Schema, small_prepared: Path, tmp_path: Path
) -> None:
    """The rows of a day's first five minutes: no feedback of that day was visible to them.

    Their features as served from the state of the day's beginning are the bytes that training saw,
    except that ids first seen in these minutes are unknown when serving.
    """
    store = EncodedStore(small_prepared)
    time_ms = np.asarray(store.column("time_ms"))
    raw = pq.read_table(small_log.log)
    delay_ms = round(synthetic_schema.reporting_delay_s * 1000)
    served_rows = queries_with_history = 0
    snapshots = sorted((small_prepared / "snapshots").iterdir())
    assert len(snapshots) == 12
    for snapshot in snapshots:
        source = load_state(snapshot)
        begin_ms = source.history.as_of_ms
        first_ms = int(time_ms[time_ms >= begin_ms][0])
        stored = np.flatnonzero((time_ms >= begin_ms) & (time_ms <= first_ms + delay_ms))
        is_early = pc.and_(
            pc.greater_equal(raw["time_s"], begin_ms // 1000),
            pc.less_equal(raw["time_s"], (first_ms + delay_ms) // 1000),
        )
        candidates = raw.filter(is_early).drop(["click", "like", "watch_time_s", "rating"])
        pq.write_table(candidates, tmp_path / "candidates.parquet")
        rows = read_requests(
            tmp_path / "candidates.parquet", synthetic_schema, content="candidates"
        ).sort_by([(name, "ascending") for name in ("time_ms", "user", "item")])
        before = source.encoders.sizes
        encoded = encode_rows(rows, source, learn=False)
        assert encoded.events is None and source.encoders.sizes == before
        served = standardise_columns(encoded.columns, source.encoders)
        for column in store_columns(synthetic_schema):
            if column.name.startswith("label.") or column.name in ("request", "position"):
                continue
            expected = np.asarray(store.column(column.name)[stored])
            name = column.name.removeprefix("feature.")
            if column.dtype == "<i4" and name != "history_feedback":
                vocabulary = (
                    name
                    if name in ("user", "item", "device")
                    else synthetic_schema.vocabulary_of(synthetic_schema.feature(name))
                )
                expected = np.where(expected < source.encoders.sizes[vocabulary], expected, 0)
            got = served[column.name].astype(column.dtype)
            assert got.tobytes() == expected.astype(column.dtype).tobytes(), column.name
        served_rows += len(stored)
        queries_with_history += int((served["feature.query_item"] != 0).sum())
    assert served_rows > 70 and queries_with_history > 30


def test_round_trip_is_exact(state: Path, tmp_path: Path) -> None:
    source = load_state(state)
    save_state(tmp_path / "again", source)
    files = [f.relative_to(state) for f in state.rglob("*") if f.is_file()]
    assert len(files) > 10
    for file in files:
        assert (tmp_path / "again" / file).read_bytes() == (state / file).read_bytes(), file
    assert state_digest(state) == state_digest(tmp_path / "again")


def test_digest_tells_counts_apart(state: Path, tmp_path: Path) -> None:
    source = load_state(state)
    overall = source.history.overall
    source.history.overall = replace(overall, impressions=overall.impressions + 1)
    save_state(tmp_path / "other", source)
    assert state_digest(state) != state_digest(tmp_path / "other")


def test_unseen_ids_are_served_and_counted(state: Path, synthetic_schema: Schema) -> None:
    source = load_state(state)
    rows = pa.table(
        {
            "user": [99_999, 0, 1],
            "item": ["v000001", "unseen", "unseen"],
            "request": ["a", "b", "c"],
            "time_ms": [source.history.as_of_ms] * 3,
            "device": ["phone", "fridge", None],
            "feature.device": ["phone", "fridge", None],
        }
    )
    encoded = encode_rows(rows, source, learn=False)
    assert encoded.columns["user"].tolist()[0] == 0 and encoded.columns["user"][1] > 0
    assert encoded.columns["item"][1:].tolist() == [0, 0]
    assert encoded.columns["device"][1:].tolist() == [0, 0]
    assert encoded.missing_owners == {"user": 1, "item": 2}
    assert encoded.unknown_by_feature["item_id"] == 2
    assert encoded.columns["feature.user_count"][0] == 0
    assert encoded.columns["feature.item_count"].tolist()[1:] == [0, 0]
    assert np.isnan(encoded.columns["feature.tenure_days"]).tolist() == [True, False, False]


def test_missing_state(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no state; `ranker prepare` writes one"):
        load_state(tmp_path)


def test_flipped_byte_is_named(state: Path) -> None:
    file = state / "counts" / "item.parquet"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(DataError, match=r"state is damaged: counts/item\.parquet: its sha256"):
        load_state(state)


def test_missing_and_foreign_files_are_named(state: Path) -> None:
    (state / "recent.parquet").unlink()
    (state / "notes.txt").touch()
    with pytest.raises(
        DataError, match=r"recent\.parquet: missing; notes\.txt: not in the manifest"
    ):
        load_state(state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 1}, "state format 1, expected 2"),
        ({"as_of_ms": "soon"}, "is no state's manifest"),
        ({"files": 7}, "is no state's manifest"),
        ({"files": {"../state/recent.parquet": "0"}}, "names a path outside the folder"),
    ],
)
def test_wrong_manifest(change: dict[str, object], message: str, state: Path) -> None:
    manifest = json.loads((state / "manifest.json").read_text())
    write_manifest(state, manifest | change)
    with pytest.raises(DataError, match=message):
        load_state(state)


def test_a_changed_manifest_is_noticed(state: Path) -> None:
    text = (state / "manifest.json").read_text()
    (state / "manifest.json").write_text(text.replace('"as_of_ms": ', '"as_of_ms": 1'))
    with pytest.raises(DataError, match=r"manifest\.json: changed or damaged"):
        load_state(state)


@pytest.mark.parametrize("text", ["", "[]", "{}", "7", '"x"'])
def test_no_manifest_at_all(text: str, state: Path) -> None:
    (state / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=r"manifest\.json: is no state's manifest"):
        load_state(state)


def test_changed_schema_is_damage(
    state: Path, synthetic_schema: Schema, prepare_log: Callable[..., object]
) -> None:
    other = synthetic_schema.model_copy(update={"reporting_delay_s": 1.0})
    (state / "schema.yaml").write_text(dump_yaml(other))
    with pytest.raises(DataError, match=r"schema\.yaml: its sha256 differs"):
        load_state(state)
