from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pipelines.cli import main
from ranker.data.synthetic import SyntheticLog

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = ROOT / "configs" / "schema" / "synthetic.yaml"
SAMPLE = ROOT / "data" / "sample"


class Case:
    """A copy of the synthetic log that a test may spoil."""

    def __init__(self, folder: Path, source: SyntheticLog) -> None:
        self.folder = folder
        self.log = pq.read_table(source.log).to_pandas()
        self.users = pq.read_table(source.users)
        self.items = pq.read_table(source.items)
        self.schema = yaml.safe_load(SCHEMA.read_text())

    def declare(self, name: str, owner: str, **more: object) -> None:
        feature = {"name": name, "kind": "numeric", "owner": owner, **more}
        self.schema["features"].append(feature)

    def arguments(self, *more: str) -> list[str]:
        paths = {name: self.folder / f"{name}.parquet" for name in ("log", "users", "items")}
        log = pa.Table.from_pandas(self.log, preserve_index=False)
        pq.write_table(log, paths["log"], row_group_size=1_009)
        pq.write_table(self.users, paths["users"])
        pq.write_table(self.items, paths["items"])
        schema = self.folder / "schema.yaml"
        schema.write_text(yaml.safe_dump(self.schema))
        words = ["validate", "--schema", str(schema)]
        for name, path in paths.items():
            words += [f"--{name}", str(path)]
        return [*words, *more]


@pytest.fixture
def case(tmp_path: Path, synthetic_log: SyntheticLog) -> Case:
    return Case(tmp_path, synthetic_log)


def result(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, dict, str]:
    """Exit code, the one object on stdout, and stderr."""
    code = main([*words, "--json"])
    captured = capsys.readouterr()
    return code, json.loads(captured.out), captured.err


def test_the_sample_is_clean(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["validate", "--schema", str(ROOT / "configs" / "schema" / "kuairand.yaml")]
    for option, name in (("log", "log"), ("users", "users"), ("items", "items")):
        words += [f"--{option}", str(SAMPLE / f"{name}.parquet")]
    words += ["--earlier-history", str(SAMPLE / "earlier_history.parquet")]
    started = time.perf_counter()
    code, document, _ = result(words, capsys)
    assert time.perf_counter() - started < 10
    assert code == 0 and document["verdict"] == "clean"
    assert document["suspects"] == document["rejections"] == []
    log = pq.read_table(SAMPLE / "log.parquet").to_pandas()
    unique = log.drop_duplicates()
    assert document["log"]["rows_read"] == len(log)
    assert document["log"]["exact_duplicates"] == len(log) - len(unique) == 1_410
    assert document["log"]["users"] == log.user_id.nunique()
    assert document["log"]["items"] == log.video_id.nunique()
    assert document["log"]["labels"]["click"]["mean"] == pytest.approx(unique.is_click.mean())
    assert document["log"]["first_ms"] == log.time_ms.min()
    assert document["earlier_history_rows"] == 202_256
    tags = pq.read_table(SAMPLE / "items.parquet").to_pandas().set_index("video_id").tag
    assert document["log"]["nulls"]["tag"] == tags.reindex(unique.video_id).isna().sum()


def test_the_synthetic_log_is_clean(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    code, document, _ = result(case.arguments(), capsys)
    assert code == 0 and document["rejections"] == document["warnings"] == []
    log = document["log"]
    assert sum(log["rows_by_window"].values()) == log["rows_kept"] == len(case.log)
    assert log["labels"]["rating"]["observed"] == case.log.rating.notna().sum()
    newest = case.log.time_s.cummax()
    assert log["share_out_of_order"] == pytest.approx((case.log.time_s < newest).mean())
    assert log["rows_without_owner"] == {"user": 0, "item": 0}


def test_people_read_a_summary(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(case.arguments()) == 0
    out = capsys.readouterr().out
    assert f"{len(case.log):,} rows read, 0 bad, 0 exact duplicates" in out
    assert "14 windows (2024-03-04 .. 2024-03-17)" in out
    assert f"label click: mean {case.log.click.mean():.4g}" in out
    assert out.endswith("verdict: clean\n")


def test_spilled_and_sampled_it_is_the_same_log(
    case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    case.log = pd.concat([case.log, case.log.iloc[:23]])
    _, whole, _ = result(case.arguments(), capsys)
    _, spilled, _ = result(case.arguments("--set", "sort_rows=501"), capsys)
    means = [[v["mean"] for v in d["log"].pop("labels").values()] for d in (spilled, whole)]
    assert means[0] == pytest.approx(means[1])  # sums of batches, rounded in another order
    assert spilled == whole and whole["log"]["exact_duplicates"] == 23
    _, sampled, _ = result(case.arguments("--sample-rows", "2000"), capsys)
    assert 1_000 < sampled["log"].pop("rows_sampled") < 3_000
    assert whole["log"].pop("rows_sampled") == len(case.log) - 23
    del sampled["log"]["labels"]
    assert sampled == whole


@pytest.mark.parametrize("name", ["click_again", "watched"])
def test_a_label_copy_in_the_log_is_rejected(
    case: Case, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    case.log["click_again"] = 1 - 3 * case.log.click
    case.log["watched"] = np.log1p(case.log.watch_time_s)
    case.declare(name, "context")
    code, document, err = result(case.arguments(), capsys)
    assert code == 3 and document["verdict"] == "rejected"
    (suspect,) = document["suspects"]
    assert (suspect["feature"], suspect["reason"]) == (name, "label copy")
    assert not suspect["accepted"]
    assert f"feature '{name}': label copy" in err and f"--allow-leaks {name}" in err
    assert main(case.arguments()) == 3
    assert "verdict: rejected for 1 reason\n" in capsys.readouterr().out


def test_watch_time_that_is_no_task_is_looked_for(
    case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = case.schema["tasks"]
    case.schema["tasks"] = [task for task in tasks if task["name"] in ("like", "dismissed")]
    case.schema["history"] = {"feedback": ["like"]}
    case.log["dwell_ms"] = case.log.watch_time_s * 1000
    case.declare("dwell_ms", "context")
    code, document, _ = result(case.arguments(), capsys)
    assert code == 3
    assert [(s["feature"], s["against"]) for s in document["suspects"]] == [
        ("dwell_ms", "watch time")
    ]


def test_month_averages_in_the_tables_are_rejected(
    case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    by_item = case.log.groupby("item_id")
    frame = by_item.agg(month_ctr=("click", "mean"), month_shown=("click", "size"))
    early = case.log[case.log.time_s < case.log.time_s.quantile(0.4)]
    frame["early_ctr"] = early.groupby("item_id").click.mean()
    frame = frame.reindex(case.items.column("item_id").to_pandas())
    for name in frame:
        case.items = case.items.append_column(name, pa.array(frame[name], from_pandas=True))
        case.declare(name, "item", nullable=True)
    code, document, err = result(case.arguments(), capsys)
    assert code == 3
    found = {(s["feature"], s["reason"], s["against"]) for s in document["suspects"]}
    assert found == {
        ("month_ctr", "period statistic", "click"),
        ("month_shown", "period statistic", "impressions"),
    }
    assert "from the time before each impression" in err


def test_a_date_after_the_impression_is_rejected(
    case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    last_s = case.log.groupby("item_id").time_s.max()
    shown = last_s.reindex(case.items.column("item_id").to_pandas()).to_numpy()
    stamps = pa.array(shown * 1000, pa.timestamp("ms", tz="UTC"), from_pandas=True)
    case.items = case.items.append_column("last_shown", stamps)
    case.declare(
        "last_shown_days", "item", column="last_shown", transform="age_days", nullable=True
    )
    code, document, _ = result(case.arguments(), capsys)
    assert code == 3
    (suspect,) = document["suspects"]
    assert (suspect["feature"], suspect["reason"]) == ("last_shown_days", "from the future")


def test_a_suspect_may_be_accepted(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    case.log["copy"] = case.log.click
    case.declare("copy", "context")
    code, document, _ = result(case.arguments("--allow-leaks", "copy"), capsys)
    assert code == 0 and document["verdict"] == "clean"
    assert [s["accepted"] for s in document["suspects"]] == [True]
    assert main(case.arguments("--allow-leaks", "copy", "--allow-leaks", "topic")) == 0
    out = capsys.readouterr().out
    assert "accepted: feature 'copy': label copy" in out
    assert "warning: --allow-leaks topic: nothing was suspected" in out
    assert main(case.arguments("--allow-leaks", "copi")) == 2
    assert "did you mean 'copy'?" in capsys.readouterr().err


def test_all_problems_are_named_with_their_place(
    case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    case.log["click"] = case.log.click.astype(float)
    case.log.loc[1_500, "click"] = 7.0  # row 491 of the second row group
    case.log.loc[[11, 1_700], "watch_time_s"] = -1.0
    case.log.loc[5, "time_s"] = 17
    code, document, _ = result(case.arguments(), capsys)
    assert code == 0, "four bad rows are within max_bad_share"
    file = case.folder / "log.parquet"
    assert document["log"]["bad_rows"] == 4
    assert document["log"]["rows_read"] == len(case.log) == document["log"]["rows_kept"] + 4
    warnings = "\n".join(document["warnings"])
    assert f"{file}: row group 1, row 491, column 'click': out of range: got 7.0" in warnings
    assert f"{file}: row group 0, row 11, column 'watch_time_s': negative" in warnings
    assert f"{file}: row group 0, row 5, column 'time_s': impossible time stamp" in warnings
    for override in ("max_bad_share=0.0001", "on_bad_rows=reject"):
        code, strict, err = result(case.arguments("--set", override), capsys)
        assert code == 3 and len(strict["rejections"]) == 1
        assert "row group 1, row 491" in err and f"4 of {len(case.log):,} rows" in err


def test_rejected_tables_are_named_together(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    case.users = case.users.append_column("again", case.users.column("country"))
    case.users = case.users.drop_columns(["country"])
    case.items = pa.concat_tables([case.items, case.items.slice(3, 1)])
    words = case.arguments("--earlier-history", str(case.folder / "log.parquet"))
    code, document, _ = result(words, capsys)
    assert code == 3
    users, items, earlier = document["rejections"]
    assert "users.parquet: column 'country' is missing" in users
    assert "items.parquet: column 'item_id' must be unique" in items
    assert "leave out --earlier-history" in earlier
    assert document["log"]["rows_kept"] == len(case.log)  # and the log was read all the same
    assert document["log"]["nulls"] == {}


def test_unknown_owners_are_counted(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    case.log.loc[:6, "user_id"] = 99_999
    code, document, _ = result(case.arguments(), capsys)
    assert code == 0 and document["log"]["rows_without_owner"] == {"user": 7, "item": 0}
    assert f"7 of {len(case.log):,} rows have a user that is not in the user table" in str(
        document["warnings"]
    )
    case.log["user_id"] += 1_000_000
    code, document, err = result(case.arguments(), capsys)
    assert code == 3 and "expected ids of one type and origin in --log and --users" in err


def test_a_missing_table_and_a_damaged_log(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    words = case.arguments()
    cut = words.index("--users")
    del words[cut : cut + 2]
    log = case.folder / "log.parquet"
    log.write_bytes(log.read_bytes()[:-9])
    code, document, err = result(words, capsys)
    assert code == 3 and document["log"] is None and len(document["rejections"]) == 2
    assert "give --users FILE" in err and f"{log}: is truncated" in err


@pytest.mark.parametrize("num_rows", [0, 1])
def test_hardly_any_rows(case: Case, num_rows: int, capsys: pytest.CaptureFixture[str]) -> None:
    case.log = case.log.iloc[:num_rows]
    case.log = case.log.assign(click=pd.array([pd.NA] * num_rows, dtype="Int8"))
    code, document, err = result(case.arguments(), capsys)
    assert code == (3 if num_rows == 0 else 0)
    assert ("no usable rows" in err) == (num_rows == 0)
    assert document["log"]["rows_kept"] == num_rows
    all_null = "task 'click': column 'click' is null in every row"
    assert (all_null in document["warnings"]) == (num_rows == 1)


def test_ids_of_any_kind_are_read(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    case.log["user_id"] = "u" + case.log.user_id.astype(str)
    users = case.users.column("user_id").to_pandas()
    case.users = case.users.set_column(0, "user_id", pa.array("u" + users.astype(str)))
    _, whole, _ = result(case.arguments(), capsys)
    assert whole["log"]["rows_without_owner"] == {"user": 0, "item": 0}
    code, document, _ = result(case.arguments("--sample-rows", "1500"), capsys)
    assert code == 0 and 500 < document["log"]["rows_sampled"] < 2_500
