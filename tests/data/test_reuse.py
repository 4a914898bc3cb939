from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ranker.data import store
from ranker.data.parquet import DataError
from ranker.data.prepare import Inputs, PrepareSettings, PrepareSummary
from ranker.data.reuse import Origin, is_made_of, read_origin, write_origin
from ranker.data.synthetic import SyntheticLog
from ranker.schema import Schema

PrepareLog = Callable[..., tuple[Path, PrepareSummary]]


@pytest.fixture
def inputs(small_log: SyntheticLog, tmp_path: Path) -> Inputs:
    """Copies that a test may change; the log is a folder of several files."""
    shutil.copytree(small_log.log, tmp_path / "log")
    for path in (small_log.users, small_log.items):
        shutil.copy(path, tmp_path / path.name)
    return Inputs(
        log=tmp_path / "log",
        users=tmp_path / small_log.users.name,
        items=tmp_path / small_log.items.name,
    )


@pytest.fixture
def origin(inputs: Inputs, synthetic_schema: Schema) -> Origin:
    return read_origin(inputs, synthetic_schema, PrepareSettings())


def test_what_only_bounds_memory_and_clocks_do_not_count(
    inputs: Inputs, origin: Origin, synthetic_schema: Schema
) -> None:
    for file in inputs.log.iterdir():
        os.utime(file, (1, 1))
    settings = PrepareSettings(sort_rows=7, chunk_rows=11)
    assert read_origin(inputs, synthetic_schema, settings).digest() == origin.digest()


def test_everything_else_counts(
    inputs: Inputs, origin: Origin, synthetic_schema: Schema, monkeypatch: pytest.MonkeyPatch
) -> None:
    def digest_of(**settings: object) -> str:
        return read_origin(inputs, synthetic_schema, PrepareSettings(**settings)).digest()  # type: ignore[arg-type]

    digests = [origin.digest(), digest_of(snapshots=("2024-03-09",)), digest_of(max_bad_share=0.5)]
    schema = synthetic_schema.model_copy(update={"scale_rows": 51})
    digests.append(read_origin(inputs, schema, PrepareSettings()).digest())
    assert inputs.users is not None
    data = bytearray(inputs.users.read_bytes())
    data[len(data) // 2] ^= 1  # the size stays
    inputs.users.write_bytes(data)
    digests.append(digest_of())
    first = min(inputs.log.iterdir())
    first.rename(first.with_name("renamed.parquet"))  # quarantined rows name their file
    digests.append(digest_of())
    (inputs.log / "renamed.parquet").unlink()
    digests.append(digest_of())
    monkeypatch.setattr(store, "FORMAT", 99)
    digests.append(digest_of())
    assert len(set(digests)) == len(digests) == 8


def test_only_an_intact_output_of_the_same_origin_is_reused(
    inputs: Inputs, origin: Origin, synthetic_schema: Schema, prepare_log: PrepareLog
) -> None:
    prepared, _ = prepare_log(inputs, synthetic_schema)
    assert not is_made_of(prepared, origin)  # it does not say what it was made of
    write_origin(prepared, origin)
    assert is_made_of(prepared, origin)
    assert not is_made_of(prepared, replace(origin, schema="0"))
    noted = prepared / "origin.json"
    text = noted.read_text(encoding="utf-8")
    for damaged in ("", "[]", json.dumps({"digest": 5})):
        noted.write_text(damaged, encoding="utf-8")
        assert not is_made_of(prepared, origin)
    noted.write_text(text, encoding="utf-8")
    assert is_made_of(prepared, origin)
    block = prepared / "store" / "numeric.bin"
    block.write_bytes(block.read_bytes()[:-4])
    assert not is_made_of(prepared, origin)


def test_missing_inputs_are_named_before_anything_is_read(
    inputs: Inputs, synthetic_schema: Schema, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="give --items FILE"):
        read_origin(replace(inputs, items=None), synthetic_schema, PrepareSettings())
    with pytest.raises(DataError, match="no such file or folder"):
        read_origin(replace(inputs, log=tmp_path / "x"), synthetic_schema, PrepareSettings())
    with pytest.raises(DataError, match="holds no state"):
        read_origin(replace(inputs, state=tmp_path), synthetic_schema, PrepareSettings())
