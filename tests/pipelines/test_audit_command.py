"""``ranker audit`` as people call it: on good logs, and on everything that is none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.cli import main
from ranker.schema import load_schema

ROOT = Path(__file__).resolve().parents[2]


def log_table(num_rows: int = 607) -> pa.Table:
    rng = np.random.default_rng(43)
    return pa.table(
        {
            "user_id": rng.integers(31, size=num_rows),
            "item_id": rng.integers(17, size=num_rows),
            "timestamp": 1_700_000_000 + rng.integers(5 * 86_400, size=num_rows),
            "click": rng.integers(2, size=num_rows),
            "tab": rng.integers(4, size=num_rows),
        }
    )


def write(folder: Path, table: pa.Table, name: str = "log.parquet") -> Path:
    path = folder / name
    pq.write_table(table, path)
    return path


def audit(log: Path, output: Path, capsys: pytest.CaptureFixture[str], *more: str):
    """Exit code, the JSON object (None where there is none) and stderr."""
    code = main(["audit", str(log), "--output", str(output), "--json", *more])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return code, json.loads(captured.out) if captured.out else None, captured.err


def test_the_draft_is_accepted_by_validate(tmp_path, capsys) -> None:
    log = write(tmp_path, log_table())
    code, result, _ = audit(log, tmp_path / "out", capsys)
    assert code == 0 and result["rows_total"] == 607
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "audit.html",
        "audit.json",
        "schema_draft.yaml",
    ]
    written = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert written == {key: value for key, value in result.items() if key != "output"}
    draft = tmp_path / "out" / "schema_draft.yaml"
    assert load_schema(draft).log.time_unit == "s"
    assert load_schema(draft).scale_rows == 60, "a small log's scales don't wait for most of it"
    assert main(["validate", "--schema", str(draft), "--log", str(log)]) == 0
    capsys.readouterr()


def test_it_says_where_page_and_draft_are(tmp_path, capsys) -> None:
    log, output = write(tmp_path, log_table()), tmp_path / "out"
    assert main(["audit", str(log), "--output", str(output)]) == 0
    page, draft = str(output / "audit.html"), str(output / "schema_draft.yaml")
    assert capsys.readouterr().out.splitlines()[-2:] == [page, draft]
    again = ["audit", str(log), "--output", str(output), "--schema", draft]
    assert main(again) == 0  # nothing is drafted
    assert capsys.readouterr().out.splitlines()[-1] == page


def test_equal_logs_give_equal_bytes(tmp_path, capsys) -> None:
    log = write(tmp_path, log_table())
    for name in ("one", "two"):
        assert audit(log, tmp_path / name, capsys)[0] == 0
    for file in ("audit.json", "audit.html", "schema_draft.yaml"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_a_given_schema_is_used(tmp_path, capsys) -> None:
    log = write(tmp_path, log_table())
    audit(log, tmp_path / "draft", capsys)
    schema = tmp_path / "draft" / "schema_draft.yaml"
    code, result, _ = audit(log, tmp_path / "out", capsys, "--schema", str(schema))
    assert code == 0 and result["schema_given"]
    assert not (tmp_path / "out" / "schema_draft.yaml").exists()
    assert {label["task"] for label in result["labels"]} == {"click"}


def test_a_large_log_is_sampled_by_user(tmp_path, capsys) -> None:
    table = log_table(30_011)
    table = table.set_column(0, "user_id", pa.array(np.arange(30_011) % 3_001))
    folder = tmp_path / "log"
    folder.mkdir()
    write(folder, table.slice(0, 11_000), "a.parquet")
    write(folder, table.slice(11_000), "b.parquet")
    code, result, _ = audit(folder, tmp_path / "out", capsys, "--rows", "6000")
    assert code == 0
    assert (result["rows_total"], result["files"]) == (30_011, 2)
    assert 5_000 < result["rows_read"] < 7_000
    found = next(f for f in result["findings"] if "num_users" in f["numbers"])
    assert found["numbers"]["num_users"] == pytest.approx(3_001, rel=0.15)
    assert found["numbers"]["median_rows"] == 10  # whole users, as in the whole log
    assert "chosen by a hash" in (tmp_path / "out" / "audit.html").read_text()


def break_file(kind: str, folder: Path) -> Path:
    path = folder / "log.parquet"
    match kind:
        case "empty":
            path.write_bytes(b"")
        case "truncated":
            write(folder, log_table())
            path.write_bytes(path.read_bytes()[:-100])
        case "text":
            path.write_text("user,item\n1,2\n")
        case "csv":
            path = folder / "log.csv"
            path.write_text("user,item\n1,2\n")
        case "no rows":
            write(folder, log_table().slice(0, 0))
        case "twice":
            table = log_table()
            pq.write_table(table.rename_columns([*table.column_names[:4], "click"]), path)
        case "mixed":
            write(folder, log_table())
            other = log_table().set_column(0, "user_id", pa.array(["u"] * 607))
            write(folder, other, "other.parquet")
            path = folder
        case "nothing":
            path = folder / "none.parquet"
    return path


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("empty", "is empty"),
        ("truncated", "truncated"),
        ("text", "not a Parquet file"),
        ("csv", "convert it first"),
        ("no rows", "has no rows"),
        ("twice", "'click' occurs more than once"),
        ("mixed", "differ in a column's type"),
        ("nothing", "no such file"),
    ],
)
def test_what_can_not_be_read(kind, said, tmp_path, capsys) -> None:
    code, _, err = audit(break_file(kind, tmp_path), tmp_path / "out", capsys)
    assert code == 3
    assert said in err
    assert not (tmp_path / "out" / "audit.json").exists()


def odd_table(kind: str) -> pa.Table:  # noqa: PLR0911
    table = log_table()
    match kind:
        case "one row":
            return table.slice(0, 1)
        case "one user":
            return table.set_column(0, "user_id", pa.array([5] * 607))
        case "no time":
            return table.drop_columns(["timestamp"])
        case "all null":
            nulls = {
                name: pa.nulls(607, table.schema.field(name).type) for name in ("tab", "click")
            }
            for name, values in nulls.items():
                table = table.set_column(table.column_names.index(name), name, values)
            return table.append_column("nothing", pa.nulls(607))
        case "nothing but nulls":
            return pa.table({name: pa.nulls(23, pa.int64()) for name in table.column_names})
        case "nested":
            table = table.append_column("pair", pa.array([{"a": 1, "b": "x"}] * 607))
            table = table.append_column("tags", pa.array([["a", "b"], ["c"], None] * 202 + [[]]))
            table = table.append_column("deep", pa.array([[[1]]] * 607))
            return table.append_column("bytes", pa.array([b"x"] * 607))
        case "infinite":
            weight = np.random.default_rng(47).normal(size=607)
            weight[[3, 5]] = np.inf, np.nan
            return table.append_column("weight", pa.array(weight))
        case "odd types":
            table = table.append_column("flag", pa.array([True, False, None] * 202 + [True]))
            table = table.append_column(
                "price", pa.array([1, 2, 3] * 202 + [4], pa.decimal128(9, 2))
            )
            table = table.append_column("when", pa.array([3, 4] * 303 + [5], pa.time32("s")))
            texts = pa.array(["a", "b"] * 303 + ["c"])
            table = table.append_column("view", texts.cast(pa.string_view()))
            return table.append_column("kind", texts.dictionary_encode())
        case _:
            return pa.table(
                {f"c{i}": np.arange(211) * (i + 1) % 13 for i in range(1_000)}
                | {"user_id": np.arange(211) % 7, "click": np.arange(211) % 2}
            )


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("one row", "nothing to learn"),
        ("one user", "size of an experiment"),
        ("no time", "No time column"),
        ("all null", "No label was found"),
        ("nothing but nulls", "No label was found"),
        ("nested", "can't be features: 'pair', 'deep', 'bytes'"),
        ("infinite", "infinite numbers: 'weight'"),
        ("odd types", "can't be features: 'when'"),
        ("many columns", "No item column"),
    ],
)
def test_odd_logs_give_findings(kind, said, tmp_path, capsys) -> None:
    log = write(tmp_path, odd_table(kind))
    code, result, err = audit(log, tmp_path / "out", capsys)
    assert code == 0, err
    page = (tmp_path / "out" / "audit.html").read_text()
    assert page.startswith("<!DOCTYPE html>")
    load_schema(tmp_path / "out" / "schema_draft.yaml")
    if kind != "one user":
        assert said in " ".join(f["sentence"] for f in result["findings"])


def test_usage_errors(tmp_path, capsys) -> None:
    log = write(tmp_path, log_table())
    with pytest.raises(SystemExit) as stopped:
        main(["audit", str(log), "--rows", "0"])
    assert stopped.value.code == 2
    capsys.readouterr()
    assert main(["audit", str(log), "--output", str(log)]) == 2
    capsys.readouterr()


def test_it_imports_no_torch() -> None:
    code = "import sys, pipelines.audit; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0
