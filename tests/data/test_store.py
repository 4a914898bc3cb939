from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ranker.config import ConfigError
from ranker.data.parquet import DataError
from ranker.data.store import EncodedStore


@pytest.fixture
def prepared(small_prepared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_prepared, tmp_path / "prepared"))


def test_windows_cover_the_rows_in_order(prepared: Path) -> None:
    store = EncodedStore(prepared)
    labels = [window.label for window in store.windows]
    assert labels == [f"2024-03-{day:02d}" for day in range(4, 18)]
    assert [w.start for w in store.windows] == [0, *(w.stop for w in store.windows[:-1])]
    assert store.windows[-1].stop == store.num_rows == sum(w.num_rows for w in store.windows)
    days = np.asarray(store.column("time_ms")).astype("datetime64[ms]").astype("datetime64[D]")
    for window in store.windows:
        assert set(days[window.start : window.stop].astype(str)) == {window.label}
    for name, size in store.encoders.sizes.items():
        sizes = [window.vocabulary_sizes[name] for window in store.windows]
        assert sizes == sorted(sizes) and sizes[-1] == size


def test_columns_are_memory_mapped(prepared: Path) -> None:
    store = EncodedStore(prepared)
    column = store.column("feature.item_id")
    assert isinstance(column, np.memmap) and not column.flags.writeable
    assert (column.shape, column.dtype) == ((store.num_rows,), np.int32)
    sequence = store.column("feature.history_item")
    assert sequence.shape == (store.num_rows, store.schema.history.length)
    assert sequence.dtype == np.int32
    with pytest.raises(KeyError):
        store.column("feature.nonesuch")


@pytest.mark.parametrize(
    ("first", "before", "days"),
    [
        (None, None, range(4, 18)),
        ("2024-03-10", None, range(10, 18)),
        (None, "2024-03-06", range(4, 6)),
        ("2024-03-05", "2024-03-07", range(5, 7)),
        ("2024-03-07", "2024-03-07", range(0)),
        ("2025-01-01", None, range(0)),
    ],
)
def test_windows_between(
    first: str | None, before: str | None, days: range, small_prepared: Path
) -> None:
    windows = EncodedStore(small_prepared).windows_between(first, before)
    assert [w.label for w in windows] == [f"2024-03-{day:02d}" for day in days]


def test_missing_store(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no prepared data; run `ranker prepare`"):
        EncodedStore(tmp_path)


@pytest.mark.parametrize("change", ["shorter", "longer", "gone"])
def test_column_of_the_wrong_size(change: str, prepared: Path) -> None:
    file = prepared / "store" / "label.bin"
    data = file.read_bytes()
    if change == "gone":
        file.unlink()
    else:
        file.write_bytes(data[:-4] if change == "shorter" else data + b"0")
    got = {"shorter": len(data) - 4, "longer": len(data) + 1, "gone": 0}[change]
    with pytest.raises(
        DataError, match=rf"label\.bin: expected {len(data)} bytes, got {got}; prepare again"
    ):
        EncodedStore(prepared)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 9}, "store format 9, expected 3: another version of ranker wrote it"),
        ({"rows": None}, "store.json: damaged"),
        ({"windows": [{"label": "x"}]}, "store.json: damaged"),
        ({"windows": 5}, "store.json: damaged"),
        ({"format": 2}, "store format 2, expected 3: .* run `ranker prepare` again"),
        ({"sha256_by_column": {}}, "store.json: damaged"),
        ({"sha256_by_column": {"time_ms": {}}}, "store.json: damaged"),
        ({"elements": {"history": 3}}, "store.json: damaged"),
        ({"rows": "many"}, "store.json: damaged"),
    ],
)
def test_damaged_description(change: dict[str, object], message: str, prepared: Path) -> None:
    file = prepared / "store" / "store.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(DataError, match=message):
        EncodedStore(prepared)


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00"])
def test_description_that_is_none(text: str, prepared: Path) -> None:
    (prepared / "store" / "store.json").write_text(text)
    with pytest.raises(DataError, match=r"store(\.json: damaged| format None)"):
        EncodedStore(prepared)


def test_missing_schema(prepared: Path) -> None:
    (prepared / "schema.yaml").unlink()
    with pytest.raises(ConfigError, match=r"schema\.yaml: no such file"):
        EncodedStore(prepared)
