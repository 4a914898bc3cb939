"""Shards against a plain count of rows, on any files, row groups and lists."""

from __future__ import annotations

import itertools
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranker.config import ConfigError
from ranker.data.parquet import DataError
from ranker.schema import Schema
from ranker.scoring.job.shard_plan import ShardPlan, describe_changes, input_files, make_plan
from ranker.scoring.job.shard_reader import read_shards, travelling_columns

START_S = 1_710_374_400


@pytest.fixture(scope="module")
def by_user_and_time(synthetic_schema: Schema) -> Schema:
    """The log without its request column: a request is a user and a moment."""
    log = synthetic_schema.log.model_copy(update={"request": None})
    return synthetic_schema.model_copy(update={"log": log})


def lists_of(sizes: list[int]) -> pd.DataFrame:
    """Candidate lists of these sizes; users and moments repeat, but not together."""
    request = [r for r, size in enumerate(sizes) for _ in range(size)]
    return pd.DataFrame(
        {
            "request_id": [f"r{r}" for r in request],
            "user_id": [r % 3 for r in request],
            "time_s": [START_S + r // 3 for r in request],
            "item_id": [f"i{k}" for size in sizes for k in range(size)],
            "device": "tv",
            "extra": range(len(request)),
        }
    )


def write_files(folder: Path, frame: pd.DataFrame, num_files: int, group_rows: int) -> None:
    folder.mkdir(exist_ok=True)
    step = -(-len(frame) // num_files)
    for number in range(num_files):
        part = pa.Table.from_pandas(
            frame[number * step : (number + 1) * step].reset_index(drop=True)
        )
        pq.write_table(part, folder / f"c{number}.parquet", row_group_size=group_rows)


def plain_cuts(sizes: list[int], shard_rows: int) -> list[tuple[int, int]]:
    """(rows, requests) of each shard, list by list."""
    shards, rows, requests = [], 0, 0
    for size in sizes:
        if rows >= shard_rows:
            shards.append((rows, requests))
            rows, requests = 0, 0
        rows, requests = rows + size, requests + 1
    return [*shards, (rows, requests)]


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=30),
    shard_rows=st.integers(1, 40),
    num_files=st.integers(1, 3),
    group_rows=st.integers(1, 23),
    wanted=st.sets(st.integers(0, 29)),
    has_request=st.booleans(),
)
def test_shards_are_whole_lists_and_all_rows(
    *,
    sizes: list[int],
    shard_rows: int,
    num_files: int,
    group_rows: int,
    wanted: set[int],
    has_request: bool,
    synthetic_schema: Schema,
    by_user_and_time: Schema,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("candidates")
    frame = lists_of(sizes)
    write_files(folder, frame, num_files, group_rows)
    schema = synthetic_schema if has_request else by_user_and_time
    plan = make_plan(folder, schema, shard_rows=shard_rows)
    found = [(shard.stop - shard.start, shard.requests) for shard in plan.shards]
    assert found == plain_cuts(sizes, shard_rows)
    assert [s.start for s in plan.shards[1:]] == [s.stop for s in plan.shards[:-1]]
    assert ShardPlan.from_json(plan.to_json()) == plan
    some = sorted(index for index in wanted if index < len(plan.shards))
    travelling = travelling_columns(folder, plan.files, schema, ["extra"])
    shards = list(read_shards(folder, plan, schema, travelling=travelling, wanted=some))
    assert [shard.index for shard in shards] == some
    for shard in shards:
        cut = plan.shards[shard.index]
        rows = frame[cut.start : cut.stop]
        assert shard.raw.column("extra").to_pylist() == rows["extra"].tolist()
        assert shard.canonical.column("item").to_pylist() == rows["item_id"].tolist()
        last = shard.place(len(rows) - 1)
        file_rows = -(-len(frame) // num_files)
        number, row = divmod(cut.stop - 1, file_rows)
        assert last == (
            f"{folder / f'c{number}.parquet'}: row group {row // group_rows}, "
            f"row {row % group_rows}"
        )


def test_a_request_that_comes_again_is_named(tmp_path: Path, synthetic_schema: Schema) -> None:
    frame = lists_of([3, 4, 5, 6])
    parted = pd.concat([frame, frame[4:6]])
    write_files(tmp_path / "c", parted, num_files=2, group_rows=4)
    with pytest.raises(DataError) as caught:
        make_plan(tmp_path / "c", synthetic_schema, shard_rows=7)
    # 10 rows a file: rows 18 and 19 are the second file's 8 and 9, row group 2
    assert str(caught.value) == (
        f"{tmp_path}/c/c1.parquet: row group 2, row 0: the request (request_id 'r1') comes again "
        f"after other requests; it began at {tmp_path}/c/c0.parquet: row group 0, row 3. All "
        "candidates of a request must lie together: sort the candidates by request_id"
    )


def test_a_moment_that_comes_again_is_named(tmp_path: Path, by_user_and_time: Schema) -> None:
    frame = lists_of([2, 3, 4])
    parted = pd.concat([frame, frame[:1]])
    write_files(tmp_path / "c", parted, num_files=1, group_rows=100)
    with pytest.raises(DataError, match=r"row 9: the request \(user_id 0, time_s 17\d+\) comes"):
        make_plan(tmp_path / "c", by_user_and_time, shard_rows=100)


def test_equal_hashes_alone_are_no_repetition(
    tmp_path: Path, synthetic_schema: Schema, monkeypatch: pytest.MonkeyPatch
) -> None:
    def constant(columns: dict[str, pa.Array]) -> object:
        return pd.Series(7, index=range(len(columns["request"]))).to_numpy()

    write_files(tmp_path / "c", lists_of([2, 3, 4]), num_files=1, group_rows=5)
    monkeypatch.setattr("ranker.scoring.job.shard_plan.hash_rows", constant)
    plan = make_plan(tmp_path / "c", synthetic_schema, shard_rows=1)
    assert [shard.requests for shard in plan.shards] == [1, 1, 1]


def test_keys_that_cannot_be_are_counted_over_all_files(
    tmp_path: Path, synthetic_schema: Schema
) -> None:
    frame = lists_of([3, 4, 5])
    frame.loc[[1, 8, 9], "request_id"] = None
    write_files(tmp_path / "c", frame, num_files=2, group_rows=100)
    with pytest.raises(DataError) as caught:
        make_plan(tmp_path / "c", synthetic_schema, shard_rows=2)
    assert "c0.parquet: row group 0, row 1, column 'request_id': null" in str(caught.value)
    assert "(such rows: 3)" in str(caught.value)


def test_columns_that_travel(tmp_path: Path, synthetic_schema: Schema) -> None:
    frame = lists_of([2, 3]).assign(more=1.5)
    write_files(tmp_path / "c", frame, num_files=1, group_rows=100)
    files = input_files(tmp_path / "c")

    def travelling(keep: list[str] | None) -> tuple[str, ...]:
        return travelling_columns(tmp_path / "c", files, synthetic_schema, keep)

    assert travelling(None) == tuple(frame.columns)
    named = ("request_id", "user_id", "time_s", "item_id")
    assert travelling([]) == named
    assert travelling(["more"]) == (*named, "more")
    with pytest.raises(ConfigError, match="no column 'mor'; did you mean 'more'"):
        travelling(["mor"])


def test_files_that_differ(tmp_path: Path, synthetic_schema: Schema) -> None:
    frame = lists_of([2, 3])
    write_files(tmp_path / "c", frame, num_files=1, group_rows=100)
    frame.assign(extra="text").to_parquet(tmp_path / "c" / "d.parquet")
    files = input_files(tmp_path / "c")
    with pytest.raises(DataError, match=r"d\.parquet: column 'extra' is .*string, but int64 in"):
        travelling_columns(tmp_path / "c", files, synthetic_schema, None)
    assert "extra" not in travelling_columns(tmp_path / "c", files, synthetic_schema, ["device"])


def test_files_that_changed_are_told_apart(tmp_path: Path, synthetic_schema: Schema) -> None:
    folder = tmp_path / "c"
    write_files(folder, lists_of([2, 3, 4]), num_files=3, group_rows=100)
    plan = make_plan(folder, synthetic_schema, shard_rows=100)
    assert describe_changes(plan.files, input_files(folder)) == []
    (folder / "c0.parquet").unlink()
    lists_of([50]).to_parquet(folder / "c1.parquet")
    lists_of([1]).to_parquet(folder / "d.parquet")
    changes = describe_changes(plan.files, input_files(folder))
    assert changes[0] == "c0.parquet is gone"
    assert changes[1].startswith("c1.parquet had ")
    assert changes[2] == "d.parquet is new"
    shards = read_shards(folder, plan, synthetic_schema, travelling=[], wanted=[0])
    with pytest.raises((DataError, OSError), match=r"c0\.parquet|c1\.parquet"):
        list(itertools.islice(shards, 1))
