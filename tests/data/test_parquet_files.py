"""Damaged, empty, foreign and missing files are named."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ranker.data import parquet
from ranker.data.parquet import DataError, find_files, read_table, stream, write_table


@pytest.fixture
def table() -> pa.Table:
    rng = np.random.default_rng(4)
    return pa.table(
        {
            "a": rng.integers(10**9, size=900),
            "b": rng.normal(size=900),
            "c": pa.array(rng.integers(10**6, size=900).astype(str)),
        }
    )


@pytest.fixture
def file(table: pa.Table, tmp_path: Path) -> Path:
    """Three row groups, not compressed, so that a flipped bit stays within its value."""
    path = tmp_path / "in.parquet"
    pq.write_table(
        table, path, row_group_size=300, compression="none", write_page_checksum=True,
        use_dictionary=False,
    )  # fmt: skip
    return path


def test_stream_gives_every_row_with_its_place(
    file: Path, table: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "BATCH_ROWS", 110)
    batches = list(stream(file))
    assert [(b.row_group, b.first_row, b.rows.num_rows) for b in batches[:4]] == [
        (0, 0, 110), (0, 110, 110), (0, 220, 80), (1, 0, 110),
    ]  # fmt: skip
    assert pa.Table.from_batches([b.rows for b in batches]).equals(table)


@pytest.mark.parametrize("column", ["a", "b", "c"])
@pytest.mark.parametrize("row_group", [0, 2])
def test_flipped_bit_names_file_row_group_and_column(
    column: str, row_group: int, file: Path
) -> None:
    chunk = pq.ParquetFile(file).metadata.row_group(row_group).column("abc".index(column))
    data = bytearray(file.read_bytes())
    data[chunk.data_page_offset + chunk.total_compressed_size // 2] ^= 4
    file.write_bytes(data)
    with pytest.raises(
        DataError,
        match=rf"{re.escape(str(file))}: row group {row_group}, column '{column}': damaged: .*",
    ) as caught:
        read_table(file)
    assert "copy the file again" in str(caught.value)


def test_flipped_bits_are_reported_or_harmless(file: Path, table: pa.Table) -> None:
    """In a process of its own: a flip must not crash the reader either."""
    script = """
import sys
from pathlib import Path
import numpy as np
from ranker.data.parquet import DataError, read_table
file = Path(sys.argv[1])
whole, data = read_table(file), file.read_bytes()
rng = np.random.default_rng(5)
refused = 0
for place in rng.integers(len(data), size=150):
    damaged = bytearray(data)
    damaged[place] ^= 1 << int(rng.integers(8))
    file.write_bytes(damaged)
    try:
        same = read_table(file).equals(whole)
    except DataError as error:
        assert str(file) in str(error)
        refused += 1
    else:
        assert same, f"byte {place} was read silently wrong"
print(refused)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 130


def test_truncated_file(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(DataError, match=rf"{re.escape(str(file))}: is truncated .* copy it again"):
        read_table(file)


def test_lost_middle(file: Path) -> None:
    data = file.read_bytes()
    file.write_bytes(data[:1000] + data[3000:])
    with pytest.raises(DataError, match=re.escape(str(file))):
        read_table(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty (0 bytes), expected a Parquet file"),
        (b"a,b\n1,2\n", "is not a Parquet file (it does not begin with PAR1)"),
        (b"PAR1PAR1", "can't be opened as Parquet: "),
        (b"PAR1" + b"\xff" * 50 + b"PAR1", "can't be opened as Parquet: "),
    ],
)
def test_foreign_file(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    path.write_bytes(content)
    with pytest.raises(DataError, match=re.escape(f"{path}: {message}")):
        read_table(path)


def test_missing_file_and_folder_without_parquet(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: no such file or folder"):
        find_files(tmp_path / "nowhere")
    (tmp_path / "x.csv").touch()
    (tmp_path / "_tmp.parquet").touch()
    with pytest.raises(DataError, match=r"holds no \*\.parquet files"):
        find_files(tmp_path)


def test_folders_are_searched_by_name(tmp_path: Path, table: pa.Table) -> None:
    """Spark writes folders called .parquet, and files beginning with _ and . beside the data."""
    names = ["b.parquet/part-1.parquet", "b.parquet/part-0.parquet", "a.parquet", "c/x.parquet"]
    hidden = ["b.parquet/_tmp.parquet", ".d/y.parquet", "c/.x.parquet"]
    for name in names + hidden:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_table(tmp_path / name, table)
    found = [str(f.relative_to(tmp_path)) for f in find_files(tmp_path)]
    assert found == sorted(names)


def test_no_file_is_passed_over_silently(tmp_path: Path, table: pa.Table) -> None:
    log, elsewhere = tmp_path / "log", tmp_path / "elsewhere"
    for name in ("day-1.parquet", "day-2.PARQUET"):
        write_table(log / name, table)
    write_table(elsewhere / "day-3.parquet", table)
    (log / "linked").symlink_to(elsewhere)
    assert [f.name for f in find_files(log)] == ["day-1.parquet", "day-2.PARQUET", "day-3.parquet"]
    (log / "day-4.parquet").symlink_to(tmp_path / "moved-away.parquet")
    with pytest.raises(DataError, match=r"day-4\.parquet: is a link that leads nowhere"):
        find_files(log)
    (log / "day-4.parquet").unlink()
    os.mkfifo(log / "day-4.parquet")
    with pytest.raises(DataError, match=r"day-4\.parquet: is neither a file nor a folder"):
        find_files(log)


def test_each_file_is_read_once_however_links_lead(tmp_path: Path, table: pa.Table) -> None:
    write_table(tmp_path / "log" / "day=1" / "x.parquet", table)
    (tmp_path / "log" / "latest").symlink_to(tmp_path / "log" / "day=1")
    (tmp_path / "log" / "day=1" / "up").symlink_to(tmp_path / "log")
    (tmp_path / "log" / "y.parquet").symlink_to(tmp_path / "log" / "day=1" / "x.parquet")
    assert find_files(tmp_path / "log") == [tmp_path / "log" / "day=1" / "x.parquet"]


def test_texts_that_are_views_come_with_offsets(tmp_path: Path) -> None:
    texts = pa.array(["a", None, "b"])
    written = pa.table(
        {
            "text": texts.cast(pa.string_view()),
            "texts": pa.array([["a"], None, ["b", "a"]], pa.list_(pa.string_view())),
        }
    )
    write_table(tmp_path / "views.parquet", written)
    expected = pa.table({"text": texts, "texts": pa.array([["a"], None, ["b", "a"]])})
    assert read_table(tmp_path / "views.parquet").equals(expected)
    empty = written.slice(0, 0)
    write_table(tmp_path / "views.parquet", empty)
    assert read_table(tmp_path / "views.parquet").schema == expected.schema


def test_lack_of_memory_is_no_damage(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def allocate(*_: object, **__: object) -> None:
        raise pa.ArrowMemoryError("malloc of size 5695040 failed")

    monkeypatch.setattr(parquet.pq, "ParquetFile", allocate)
    with pytest.raises(MemoryError):
        read_table(file)


def test_a_name_that_is_no_text_is_a_sentence(file: Path) -> None:
    odd = os.fsencode(file.parent) + b"/\xff.parquet"
    file.rename(Path(os.fsdecode(odd)))
    with pytest.raises(DataError, match="the name is no UTF-8"):
        read_table(Path(os.fsdecode(odd)))


def test_read_table_reads_chosen_columns(file: Path, table: pa.Table) -> None:
    assert read_table(file, ["c", "a"]).column("a").equals(table.column("a"))
    with pytest.raises(DataError, match=r"column 'd' is missing; it has \['a', 'b', 'c'\]"):
        read_table(file, ["d"])


def test_no_rows(tmp_path: Path, table: pa.Table) -> None:
    write_table(tmp_path / "none.parquet", table.slice(0, 0))
    assert read_table(tmp_path / "none.parquet", ["b"]).schema == pa.schema({"b": pa.float64()})


def test_files_with_other_columns_do_not_make_one_table(tmp_path: Path, table: pa.Table) -> None:
    write_table(tmp_path / "a.parquet", table)
    write_table(tmp_path / "b.parquet", table.drop("b"))
    with pytest.raises(DataError, match="its files differ in columns"):
        read_table(tmp_path)


def test_equal_tables_give_equal_bytes(tmp_path: Path, table: pa.Table) -> None:
    write_table(tmp_path / "a.parquet", table)
    pieces = pa.concat_tables([table.slice(0, 7), table.slice(7)])  # in two chunks
    write_table(tmp_path / "b.parquet", pieces)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert read_table(tmp_path / "a.parquet").equals(table)


def test_a_column_name_that_is_no_text_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table({"abcdefg": [1, 2, 3]}), path)
    path.write_bytes(path.read_bytes().replace(b"abcdefg", b"\xffbcdefg"))
    with pytest.raises(DataError, match=r"log\.parquet: can't be opened as Parquet: 'utf-8' codec"):
        read_table(path)
