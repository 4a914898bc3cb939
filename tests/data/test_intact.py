"""One changed byte anywhere in prepared data is noticed before it is trained on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.cli import main
from ranker.data.intact import is_whole, open_intact_store
from ranker.data.parquet import DataError
from ranker.data.prepare import Inputs, PrepareSummary
from ranker.data.synthetic import SyntheticLog
from ranker.schema import Schema

PrepareLog = Callable[..., tuple[Path, PrepareSummary]]


@pytest.fixture(scope="module")
def made(small_log: SyntheticLog, synthetic_schema: Schema, prepare_log: PrepareLog) -> Path:
    inputs = Inputs(log=small_log.log, users=small_log.users, items=small_log.items)
    return prepare_log(inputs, synthetic_schema, snapshots=("2024-03-09",))[0]


@pytest.fixture
def prepared(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "prepared"))


def flip(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


def test_every_file_is_vouched_for(prepared: Path) -> None:
    assert is_whole(prepared)
    unused = {"origin.json", "quarantine.parquet"}
    files = [f for f in sorted(prepared.rglob("*")) if f.is_file() and f.name not in unused]
    assert len(files) > 20
    for file in files:
        size = file.stat().st_size
        for place in {size // 3, size - 1} if size else set():
            flip(file, place)
            assert not is_whole(prepared), (file, place)
            if file.parent.name == "store":
                with pytest.raises(DataError):
                    open_intact_store(prepared)
            flip(file, place)
    assert is_whole(prepared)


def test_what_is_missing_is_noticed(prepared: Path) -> None:
    shutil.rmtree(prepared / "snapshots" / "2024-03-09")
    assert not is_whole(prepared)
    open_intact_store(prepared)  # which has no snapshots


def test_commands_refuse_damaged_columns(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flip(prepared / "store" / "label.bin", 0)
    assert main(["train", "--data", str(prepared), "--output", str(tmp_path / "run")]) == 3
    assert "column 'label.click': its sha256 differs" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_data_of_an_older_version_is_to_be_prepared_again(prepared: Path) -> None:
    (prepared / "manifest.json").write_text('{"kind": "prepared data", "columns": {}}')
    with pytest.raises(DataError, match=r"another version of ranker; run `ranker prepare` again"):
        open_intact_store(prepared)
    assert not is_whole(prepared)
