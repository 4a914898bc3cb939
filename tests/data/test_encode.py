from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranker.data.encode import (
    Encoders,
    Scale,
    encode_sequences,
    fit_scale,
    hour_of_day,
    local_ms,
    numeric_values,
    standardise,
)
from ranker.data.parquet import DataError
from ranker.data.vocabulary import Vocabulary
from ranker.data.windows import local_midnight_ms, window_labels
from ranker.schema import Schema

IDS = st.lists(st.none() | st.sampled_from(["", "a", "b", "é", "zz"]), max_size=15)
NUMBERS = st.lists(
    st.none() | st.sampled_from([0, -7, 5, 2**53, 2**53 + 1, 2**63 - 1]), max_size=15
)


@settings(max_examples=60, deadline=None)
@given(
    values=st.one_of(IDS.map(lambda v: pa.array(v, pa.string())), NUMBERS.map(pa.array)),
    cut=st.integers(0, 15),
)
def test_indices_follow_the_order_of_appearance(values: pa.Array, cut: int) -> None:
    values = values if values.type != pa.null() else pa.array(values, pa.int64())
    vocabulary = Vocabulary()
    index = [
        *vocabulary.encode_and_learn(values[:cut]),
        *vocabulary.encode_and_learn(pa.chunked_array([values[cut:]])),
    ]
    seen: dict[object, int] = {}
    expected = [0 if v is None else seen.setdefault(v, len(seen) + 1) for v in values.to_pylist()]
    assert index == expected
    assert vocabulary.ids.tolist() == list(seen)
    assert len(vocabulary) == len(seen) + 1
    assert vocabulary.encode(values).tolist() == expected
    assert vocabulary.decode(np.array(index, dtype=np.int64)).to_pylist() == values.to_pylist()


def test_unknown_ids_and_nulls_are_zero() -> None:
    vocabulary = Vocabulary()
    vocabulary.encode_and_learn(pa.array([0, 4]))
    # 0 is a known id here: a null is not.
    assert vocabulary.encode(pa.array([None, 0, 4, 9])).tolist() == [0, 1, 2, 0]
    assert vocabulary.encode(pa.array([None, None], pa.string())).tolist() == [0, 0]
    assert Vocabulary().encode(pa.array([3])).tolist() == [0]


@pytest.mark.parametrize("learn", [True, False])
def test_changed_type_is_an_error(learn: bool) -> None:
    vocabulary = Vocabulary()
    vocabulary.encode_and_learn(pa.array([0, 4]))
    with pytest.raises(DataError, match="integers so far, now texts such as '4'"):
        (vocabulary.encode_and_learn if learn else vocabulary.encode)(pa.array(["4"]))


def test_head_is_the_vocabulary_of_an_earlier_time() -> None:
    vocabulary = Vocabulary()
    vocabulary.encode_and_learn(pa.array(["a", "b"]))
    earlier_size = len(vocabulary)
    vocabulary.encode_and_learn(pa.array(["c"]))
    assert vocabulary.head(earlier_size).encode(pa.array(["b", "c"])).tolist() == [2, 0]


def test_sequences_keep_the_last_elements() -> None:
    vocabulary = Vocabulary()
    vocabulary.encode_and_learn(pa.array(["a", "b", "c", "d"]))
    values = pa.array([["a"], None, ["a", "b", "c", "d"], [], ["d", None, "x"], ["b", "c"]])
    expected = [[0, 0, 1], [0, 0, 0], [2, 3, 4], [0, 0, 0], [4, 0, 0], [0, 2, 3]]
    assert encode_sequences(values, vocabulary, length=3).tolist() == expected
    chunked = pa.chunked_array([values[:2], values[2:]])
    assert encode_sequences(chunked, vocabulary, length=3).tolist() == expected
    assert encode_sequences(chunked.slice(2, 3), vocabulary, length=3).tolist() == expected[2:5]
    none = encode_sequences(values[:0], vocabulary, length=3)
    assert none.shape == (0, 3)
    assert encode_sequences(values[1:2], vocabulary, length=5).tolist() == [[0] * 5]


def test_numeric_values() -> None:
    time_ms = np.array([10, 20, 30], dtype=np.int64) * 86_400_000
    logs = numeric_values(pa.chunked_array([[0.0], [None, np.e - 1]]), "log1p", time_ms)
    np.testing.assert_allclose(logs, [0, np.nan, 1])
    born = pa.array([86_400_000 * 9.5, None, 86_400_000 * 31])
    ages = numeric_values(born, "age_days", time_ms)
    np.testing.assert_allclose(ages, [0.5, np.nan, -1])


def test_scales_against_numpy() -> None:
    values = np.array([3.0, np.nan, 5.0, 10.0, np.inf])
    scale = fit_scale(values)
    assert scale.mean == pytest.approx(6)
    assert scale.scale == pytest.approx(np.sqrt((9 + 1 + 16) / 3))
    assert fit_scale(np.array([np.nan])) == Scale(mean=0, scale=1)
    assert fit_scale(np.full(7, 0.1)).scale == 1
    standard = standardise(np.array([6.0, np.nan, 1e9, -1e9]), scale)
    np.testing.assert_array_equal(standard, np.array([0, np.nan, 8, -8], dtype=np.float32))


@pytest.mark.parametrize(
    "zone", ["UTC", "Asia/Shanghai", "Europe/Vienna", "America/Sao_Paulo", "Asia/Kathmandu"]
)
def test_hours_against_zoneinfo(zone: str) -> None:
    # every 20 minutes around both European and Brazilian clock changes of 2018
    around = [
        datetime(2018, *day, tzinfo=UTC).timestamp()
        for day in [(2, 17), (3, 24), (10, 27), (11, 3)]
    ]
    time_ms = np.array([(t + 1200 * k) * 1000 for t in around for k in range(160)], dtype=np.int64)
    local = [datetime.fromtimestamp(t / 1000, ZoneInfo(zone)) for t in time_ms]
    assert hour_of_day(time_ms, zone).tolist() == [moment.hour for moment in local]
    wall = [moment.replace(tzinfo=UTC).timestamp() * 1000 for moment in local]
    assert local_ms(time_ms, zone).tolist() == wall
    assert hour_of_day(time_ms[:0], zone).tolist() == []


def in_zone(schema: Schema, zone: str, hours: int) -> Schema:
    return schema.model_copy(update={"time_zone": zone, "window_hours": hours})


@pytest.mark.parametrize("zone", ["Asia/Shanghai", "Europe/Vienna"])
def test_daily_windows_are_local_dates(zone: str, log_schema: Schema) -> None:
    start = int(datetime(2024, 10, 26, tzinfo=UTC).timestamp()) * 1000  # clocks change on the 27th
    time_ms = start + np.arange(0, 3 * 86_400_000, 1_800_000, dtype=np.int64)
    labels = window_labels(time_ms, in_zone(log_schema, zone, 24))
    dates = [datetime.fromtimestamp(t / 1000, ZoneInfo(zone)).date().isoformat() for t in time_ms]
    assert labels.tolist() == dates


def test_weekly_and_hourly_windows_by_hand(log_schema: Schema) -> None:
    moments = ["2024-10-26T23:59", "2024-10-27T00:30", "2024-10-27T01:30", "2024-10-31T00:00"]
    time_ms = np.array(moments, dtype="datetime64[ms]").astype(np.int64)
    weekly = window_labels(time_ms, in_zone(log_schema, "UTC", 168))
    assert weekly.tolist() == ["2024-10-24"] * 3 + ["2024-10-31"]  # weeks begin on Thursday
    hourly = window_labels(time_ms, in_zone(log_schema, "Europe/Vienna", 1))
    # 02:30 summer time and 02:30 winter time are an hour apart and one window
    assert hourly.tolist() == [
        "2024-10-27T01", "2024-10-27T02", "2024-10-27T02", "2024-10-31T01",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("zone", "date", "utc"),
    [
        ("Asia/Shanghai", "2022-05-05", "2022-05-04T16:00"),
        ("Europe/Vienna", "2024-03-31", "2024-03-30T23:00"),
        ("Europe/Vienna", "2024-03-31T12", "2024-03-31T10:00"),
        ("America/Sao_Paulo", "2018-11-04", "2018-11-04T03:00"),  # has no midnight
        ("America/Havana", "2024-11-03", "2024-11-03T04:00"),  # has two
    ],
)
def test_midnights(zone: str, date: str, utc: str, log_schema: Schema) -> None:
    expected = int(datetime.fromisoformat(utc).replace(tzinfo=UTC).timestamp() * 1000)
    assert local_midnight_ms(date, in_zone(log_schema, zone, 24)) == expected


@pytest.mark.parametrize("date", ["", "2022-13-01", "soon", "2022-05-05T00:00Z"])
def test_no_midnights(date: str, log_schema: Schema) -> None:
    with pytest.raises(DataError, match=r"is not a (local )?date like 2022-05-05"):
        local_midnight_ms(date, log_schema)


@pytest.fixture
def encoders() -> Encoders:
    texts, numbers = Vocabulary(), Vocabulary()
    texts.encode_and_learn(pa.array(["a", "é", ""]))
    numbers.encode_and_learn(pa.array([2**60 + 1, -4]))
    return Encoders(
        vocabularies={"t": texts, "n": numbers, "none": Vocabulary()},
        standardisers={"x": Scale(mean=1 / 3, scale=0.1)},
        label_scales={"y": Scale(mean=-2.0, scale=1e-7)},
    )


def test_round_trip_is_exact(encoders: Encoders, tmp_path: Path) -> None:
    encoders.save(tmp_path / "e.parquet")
    again = Encoders.load(tmp_path / "e.parquet")
    assert again.extends(encoders) and encoders.extends(again)
    assert again.vocabularies["n"].ids.tolist() == [2**60 + 1, -4]
    assert again.vocabularies["t"].encode(pa.array(["é", "b", ""])).tolist() == [2, 0, 3]
    assert again.sizes == {"t": 4, "n": 3, "none": 1}
    assert again.standardisers == encoders.standardisers
    again.save(tmp_path / "f.parquet")
    assert (tmp_path / "e.parquet").read_bytes() == (tmp_path / "f.parquet").read_bytes()


def test_extends(encoders: Encoders) -> None:
    later = encoders.head(encoders.sizes)
    later.vocabularies["t"].encode_and_learn(pa.array(["new"]))
    later.vocabularies["none"].encode_and_learn(pa.array([4]))
    assert later.extends(encoders) and not encoders.extends(later)
    assert later.head(encoders.sizes).sizes == encoders.sizes
    other = encoders.head(encoders.sizes)
    other.vocabularies["t"] = Vocabulary(np.array(["a", "x", "", "é"], dtype=object))
    assert not other.extends(encoders)
    scaled = encoders.head(encoders.sizes)
    scaled.standardisers["x"] = Scale(mean=0.3, scale=0.1)
    assert not scaled.extends(encoders)


SCALES: dict[str, dict[str, list[float]]] = {"standardisers": {}, "label_scales": {}}


def write_encoders(
    path: Path, columns: dict[str, pa.Array], scales: object = SCALES, version: str = "2"
) -> None:
    metadata = {"ranker.format": version, "ranker.scales": json.dumps(scales)}
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path)


@pytest.mark.parametrize(
    ("column", "scales", "version"),
    [
        (pa.array([["a", "b"]]), SCALES, "3"),
        (pa.array(["a"]), SCALES, "2"),
        (pa.array([["a"], ["b"]]), SCALES, "2"),
        (pa.array([["a", "a"]]), SCALES, "2"),
        (pa.array([[1, None]]), SCALES, "2"),
        (pa.array([[0.5]]), SCALES, "2"),
        (pa.array([["a"]]), {}, "2"),
        (pa.array([["a"]]), SCALES | {"standardisers": {"x": [0.0]}}, "2"),
        (pa.array([["a"]]), SCALES | {"standardisers": {"x": [0.0, 0.0]}}, "2"),
        (pa.array([["a"]]), SCALES | {"standardisers": {"x": [float("nan"), 1.0]}}, "2"),
    ],
)
def test_wrong_encoders_are_refused(
    column: pa.Array, scales: object, version: str, tmp_path: Path
) -> None:
    path = tmp_path / "encoders.parquet"
    write_encoders(path, {"t": column}, scales, version)
    with pytest.raises(DataError, match=r"encoders\.parquet: (is no encoder file|format 3 is not)"):
        Encoders.load(path)


def test_damaged_encoders_are_refused(encoders: Encoders, tmp_path: Path) -> None:
    path = tmp_path / "encoders.parquet"
    encoders.save(path)
    good = path.read_bytes()
    flipped = bytearray(good)
    flipped[40] ^= 1  # inside the first page
    for content in (b"", b"{}", good[:-5], bytes(flipped)):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"encoders\.parquet: is no encoder file"):
            Encoders.load(path)
    write_encoders(path, {"t": pa.array([["a", "b"]])})
    assert Encoders.load(path).sizes == {"t": 3}


def test_missing_encoders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"e\.parquet: no such file"):
        Encoders.load(tmp_path / "e.parquet")
