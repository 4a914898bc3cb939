"""``ranker prepare`` does nothing where nothing has changed."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
from chain_run import Ran, run_ranker

from ranker.config import dump_yaml
from ranker.data.synthetic import write_synthetic_log
from ranker.manifest import folder_digests
from ranker.schema import Schema


def test_no_input_is_replaced(tmp_path: Path, synthetic_schema: Schema) -> None:
    log = write_synthetic_log(tmp_path / "raw", num_users=7, num_items=29, num_days=3, seed=4)
    (tmp_path / "schema.yaml").write_text(dump_yaml(synthetic_schema), encoding="utf-8")
    words = ["--schema", tmp_path / "schema.yaml", "--log", log.log]
    words += ["--users", log.users, "--items", log.items]
    assert run_ranker("prepare", *words, "--output", tmp_path / "data").code == 0
    before = folder_digests(tmp_path)
    for output, more in (
        (log.log / "sub", []),
        (tmp_path / "data", ["--state", tmp_path / "data" / "state"]),
    ):
        ran = run_ranker("prepare", *words, *more, "--output", output)
        assert (ran.code, "is also an input" in ran.err) == (2, True), ran.err
    assert folder_digests(tmp_path) == before


def test_prepare_again(tmp_path: Path, synthetic_schema: Schema) -> None:
    log = write_synthetic_log(tmp_path / "raw", num_users=11, num_items=29, num_days=5, seed=4)
    (tmp_path / "schema.yaml").write_text(dump_yaml(synthetic_schema), encoding="utf-8")
    output = tmp_path / "data"

    def run(*more: str) -> Ran:
        ran = run_ranker(
            *("prepare", "--schema", tmp_path / "schema.yaml", "--log", log.log),
            *("--users", log.users, "--items", log.items, "--output", output, "--json", *more),
        )
        assert ran.code == 0, ran.err
        return ran

    def inode() -> int:
        return (output / "manifest.json").stat().st_ino

    first, made = run(), inode()
    digests = folder_digests(output)
    again = run()
    assert (first.json["reused"], again.json["reused"]) == (False, True)
    assert again.json == first.json | {"reused": True}
    assert inode() == made and folder_digests(output) == digests
    assert run("--force").json["reused"] is False
    assert inode() != made and folder_digests(output) == digests
    table = pq.read_table(log.users)
    pq.write_table(table.slice(1), log.users)
    assert run().json["reused"] is False
    assert run("--set", "snapshots=['2024-03-06']").json["reused"] is False
    assert (output / "snapshots" / "2024-03-06").is_dir()
