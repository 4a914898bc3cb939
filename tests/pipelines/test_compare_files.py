"""Another ranker's predictions, as people hand them over: shuffled, incomplete, mistyped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from chain_run import FEW_REPLICATES, TEST_START, Chain, Ran, run_ranker

FROM = ("--from", TEST_START)
Change = Callable[[pd.DataFrame], pd.DataFrame]


@pytest.fixture(scope="module")
def predictions(chain: Chain) -> pd.DataFrame:
    return pd.read_parquet(chain.predictions)


def compare(chain: Chain, a: Path, b: Path, *more: str) -> Ran:
    return run_ranker(
        "compare", a, b, "--data", chain.data, *FEW_REPLICATES, "--json", *FROM, *more
    )


def shuffled_with_extra_rows(frame: pd.DataFrame) -> pd.DataFrame:
    extra = frame.head(13).assign(time_s=lambda rows: rows["time_s"] + 11, click=0.5)
    earlier = frame.head(5).assign(time_s=1_500_000_000)
    return pd.concat([earlier, frame.sample(frac=1, random_state=2), extra], ignore_index=True)


def with_time_stamps(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(time_s=pd.to_datetime(frame["time_s"], unit="s"))


def with_time_zone(frame: pd.DataFrame) -> pd.DataFrame:
    stamps = pd.to_datetime(frame["time_s"], unit="s", utc=True)
    return frame.assign(time_s=stamps.dt.tz_convert("Asia/Shanghai"))


def with_narrow_types(frame: pd.DataFrame) -> pd.DataFrame:
    narrow = {"user_id": "int32", "item_id": "category"}
    return frame.astype(narrow)


def with_float_users_and_lost_ids(frame: pd.DataFrame) -> pd.DataFrame:
    nameless = frame.head(3).assign(user_id=np.nan, item_id=None)
    return pd.concat([frame.astype({"user_id": "float64"}), nameless], ignore_index=True)


def with_equal_duplicates(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([frame, frame.head(17)], ignore_index=True)


@pytest.mark.parametrize(
    "change",
    [
        shuffled_with_extra_rows,
        with_time_stamps,
        with_time_zone,
        with_narrow_types,
        with_float_users_and_lost_ids,
        with_equal_duplicates,
    ],
)
def test_the_same_predictions_in_another_dress(
    change: Change, chain: Chain, predictions: pd.DataFrame, tmp_path: Path
) -> None:
    theirs = tmp_path / "theirs.parquet"
    change(predictions).to_parquet(theirs)
    ran = compare(chain, chain.bundle, theirs)
    assert ran.code == 0, ran.err
    assert len(ran.json["comparisons"]) == 7
    for comparison in ran.json["comparisons"]:
        assert comparison["difference"]["value"] == 0
        assert comparison["a"] == comparison["b"]
        assert comparison["verdict"] == "cannot tell"


def without_rows(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.drop(index=range(7, 10))


def without_a_value(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(like=frame["like"].mask(frame.index == 5))


def with_text_users(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.astype({"user_id": "str"})


def with_number_items(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(item_id=range(len(frame)))


def with_contradictions(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([frame, frame.head(4).assign(click=0.123)], ignore_index=True)


def with_logits(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(click=frame["click"] * 7)


def with_text_predictions(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.astype({"like": "str"})


def with_text_times(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.astype({"time_s": "str"})


def with_absurd_times(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(watch_time_s=frame["watch_time_s"].mask(frame.index == 3, 1e200))


def with_fractional_users(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(user_id=frame["user_id"] + 0.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_rows, "3 of 2,784 rows have no prediction, the first is {'user_id': "),
        (
            without_a_value,
            "'like' must hold probabilities in [0, 1], got nan in row 5 (such rows: 1",
        ),
        (with_text_users, "column 'user_id' is large_string, but the log's is int64"),
        (with_number_items, "column 'item_id' is int64, but the log's is string"),
        (with_contradictions, "'click' has 4 further, different predictions"),
        (with_logits, "'click' must hold probabilities in [0, 1], got "),
        (with_text_predictions, "column 'like' must hold numbers"),
        (with_text_times, "column 'time_s' must hold whole numbers"),
        (with_absurd_times, "'watch_time_s' must hold finite numbers, at most 1e+100 in size"),
        (with_fractional_users, "column 'user_id' must hold whole numbers"),
        (lambda frame: frame.head(0), "2,784 of 2,784 rows have no prediction"),
        (lambda frame: frame.drop(columns="time_s"), "column 'time_s' is missing"),
        (lambda frame: frame[["user_id", "item_id", "time_s"]], "one for each predicted task"),
    ],
)
def test_unusable_predictions_are_rejected(
    change: Change, message: str, chain: Chain, predictions: pd.DataFrame, tmp_path: Path
) -> None:
    theirs = tmp_path / "theirs.parquet"
    change(predictions).to_parquet(theirs, index=False)
    ran = compare(chain, chain.bundle, theirs)
    assert (ran.code, ran.out) == (3, "")
    (line,) = ran.err.splitlines()
    assert line.startswith(f"ranker: {theirs}: ")
    assert message in line


@pytest.mark.parametrize("name", ["user_id", "time_s", "click"])
def test_a_column_twice_is_a_sentence(
    name: str, chain: Chain, predictions: pd.DataFrame, tmp_path: Path
) -> None:
    table = pa.Table.from_pandas(predictions, preserve_index=False)
    pq.write_table(table.append_column(name, table.column(name)), tmp_path / "theirs.parquet")
    ran = compare(chain, chain.bundle, tmp_path / "theirs.parquet")
    assert (ran.code, ran.out) == (3, "")
    assert f"column {name!r} is there 2 times" in ran.err
    assert "Traceback" not in ran.err


def test_integers_beyond_float64_are_numbers(
    chain: Chain, predictions: pd.DataFrame, tmp_path: Path
) -> None:
    """Their errors are those of the nearest float64."""
    for name, values in (("int", 2**60 + 1), ("float", float(2**60))):
        predictions.assign(watch_time_s=values).to_parquet(tmp_path / f"{name}.parquet")
    ran = compare(chain, tmp_path / "int.parquet", tmp_path / "float.parquet")
    assert ran.code == 0, ran.err
    for comparison in ran.json["comparisons"]:
        assert comparison["a"] == comparison["b"]


def test_only_shared_tasks_are_compared(
    chain: Chain, predictions: pd.DataFrame, tmp_path: Path
) -> None:
    keys = ["user_id", "item_id", "time_s"]
    some, others = tmp_path / "some.parquet", tmp_path / "others.parquet"
    predictions[[*keys, "dismissed", "click"]].to_parquet(some)
    predictions[[*keys, "like"]].to_parquet(others)
    ran = compare(chain, some, chain.bundle)
    assert [c["task"] for c in ran.json["comparisons"]] == ["click", "dismissed"]
    ran = compare(chain, some, others)
    assert (ran.code, ran.out) == (3, "")
    assert "no task in common: A predicts ['click', 'dismissed'], B predicts ['like']" in ran.err


def test_a_broken_ranker_fails_the_gate(
    chain: Chain, predictions: pd.DataFrame, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.parquet"
    predictions.assign(click=1 - predictions["click"]).to_parquet(broken)
    ran = compare(chain, broken, chain.predictions)
    assert ran.code == 4
    assert ran.json["worse"] is True
    (click,) = (c for c in ran.json["comparisons"] if c["task"] == "click")
    assert click["verdict"] == "worse"
    assert click["a"]["value"] == pytest.approx(1 - click["b"]["value"])
    # the other way round it is an improvement
    ran = compare(chain, chain.predictions, broken)
    assert (ran.code, ran.json["worse"]) == (0, False)
    assert ran.json["comparisons"][0]["verdict"] == "better"


def test_only_gated_tasks_decide(chain: Chain, predictions: pd.DataFrame, tmp_path: Path) -> None:
    broken = tmp_path / "broken.parquet"
    predictions.assign(click=1 - predictions["click"]).to_parquet(broken)
    ran = compare(chain, broken, chain.bundle, "--gate", "like", "--gate", "rating")
    assert (ran.code, ran.json["worse"]) == (0, False)
    assert len(ran.json["comparisons"]) == 7, "all are shown"
    assert compare(chain, broken, chain.bundle, "--gate", "like", "--gate", "click").code == 4
    ran = compare(chain, broken, chain.bundle, "--gate", "likes")
    assert (ran.code, ran.out) == (2, "")
    assert "--gate likes: not a task that both predict" in ran.err


def test_a_folder_of_files_is_an_arm(
    chain: Chain, predictions: pd.DataFrame, tmp_path: Path
) -> None:
    half = len(predictions) // 2
    predictions.head(half).to_parquet(tmp_path / "part-1.parquet")
    predictions.tail(-half).to_parquet(tmp_path / "part-2.parquet")
    ran = compare(chain, tmp_path, chain.predictions)
    assert (ran.code, ran.json["worse"]) == (0, False)


def test_windows_before_the_date_are_left_out(chain: Chain, predictions: pd.DataFrame) -> None:
    ran = run_ranker(
        *("compare", chain.bundle, chain.predictions, "--data", chain.data, *FEW_REPLICATES),
        *("--from", "2024-03-15", "--before", "2024-03-17"),
    )
    assert ran.out.startswith("windows 2024-03-15 .. 2024-03-16\n")


@pytest.mark.parametrize("command", ["evaluate", "compare"])
def test_trained_windows_are_refused(command: str, chain: Chain, tmp_path: Path) -> None:
    arms = ["--bundle", chain.bundle, "--output", tmp_path / "metrics"]
    if command == "compare":
        arms = [chain.predictions, chain.bundle]
    ran = run_ranker(command, *arms, "--data", chain.data, "--from", "2024-03-13")
    assert (ran.code, ran.out) == (3, "")
    assert "trained on windows up to 2024-03-13; evaluating from 2024-03-13 would" in ran.err
    ran = run_ranker(command, *arms, "--data", chain.data, "--before", TEST_START)
    assert (ran.code, ran.out) == (3, "")
    assert "no windows after 2024-03-13, the last one trained on, from the beginning" in ran.err
    assert "it holds 2024-03-04 .. 2024-03-17" in ran.err
