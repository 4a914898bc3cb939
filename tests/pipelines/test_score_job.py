"""A scoring job that is cut short goes on to the same bytes; what is rejected leaves nothing."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from chain_run import Chain, Ran, run_ranker

from ranker.atomic import OutputError, sha256_of
from ranker.scoring.factorised.factorised import FactorisedPredictor
from ranker.scoring.job import shard_worker
from ranker.scoring.job.partial_folder import FinishedPart, PartialFolder, write_part
from ranker.scoring.slates.exposure import EXPOSURE_COLUMNS

SHARD_ROWS = 1_500


def score_words(chain: Chain, output: Path, *more: str | Path, **paths: Path) -> list[str | Path]:
    where = {"bundle": chain.bundle, "state": chain.state, "candidates": chain.candidates} | paths
    words = [word for name, path in where.items() for word in (f"--{name}", path)]
    shards = ["--set", f"shard_rows={SHARD_ROWS}"]
    return ["score", *words, *shards, "--output", output, *more, "--json"]


def score(chain: Chain, output: Path, *more: str | Path, **paths: Path) -> Ran:
    return run_ranker(*score_words(chain, output, *more, **paths))


def partial_of(output: Path) -> Path:
    return output.with_name(f".{output.name}.partial")


def digests(folder: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in folder.iterdir()}


def refused(ran: Ran, code: int, *messages: str) -> None:
    assert "Traceback" not in ran.err, ran.err
    assert (ran.code, ran.out) == (code, ""), ran
    for message in messages:
        assert message in ran.err, ran.err


@pytest.fixture(scope="module")
def whole(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a job that nothing disturbed."""
    output = tmp_path_factory.mktemp("whole") / "slates.parquet"
    ran = score(chain, output)
    assert ran.code == 0, ran.err
    return output


@pytest.fixture
def fails_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, BaseException], None]]:
    """Make the n-th part fail once; undone before the job is resumed by `monkeypatch.undo`."""

    def fail(number: int, error: BaseException) -> None:
        def write(folder: Path, index: int, *rest: object) -> FinishedPart:
            if index >= number:
                raise error
            return write_part(folder, index, *rest)  # type: ignore[arg-type]

        monkeypatch.setattr(shard_worker, "write_part", write)

    yield fail


def test_the_plan_changes_parts_but_no_slate(chain: Chain, whole: Path) -> None:
    manifest = json.loads((whole / "_manifest.json").read_text())
    sizes = [part["rows"] for part in manifest["parts"]]
    assert len(sizes) == 5
    for part in manifest["parts"]:
        assert pq.read_metadata(whole / part["name"]).num_rows == part["rows"]
        assert sha256_of(whole / part["name"]) == part["sha256"]
    one = pd.read_parquet(chain.slates)
    pd.testing.assert_frame_equal(
        pd.read_parquet(whole), one, check_exact=False, rtol=1e-6, atol=1e-9
    )
    summary = manifest["summary"]
    assert summary["candidates"] == len(pd.read_parquet(chain.candidates))
    assert summary["shown"] == sum(sizes) == len(one)
    assert summary["requests"] == one["request_id"].nunique()
    assert summary["scores"]["max"] == pytest.approx(one["score"].max(), rel=1e-6)


def test_the_summary_is_that_of_all_scores(chain: Chain, tmp_path: Path) -> None:
    ran = score(chain, tmp_path / "all", "--set", "slate.size=1000")
    scores = pd.read_parquet(tmp_path / "all")["score"]
    found = ran.json["scores"]
    assert (found["min"], found["max"]) == (scores.min(), scores.max())
    assert found["mean"] == pytest.approx(scores.mean(), rel=1e-12)
    exact = scores.quantile([0.25, 0.5, 0.75], interpolation="lower")
    assert [found["q25"], found["median"], found["q75"]] == pytest.approx(exact.tolist(), rel=0.01)
    stages = ran.json["run"]["seconds_by_stage"]
    assert {"plan", "read", "encode", "forward", "top-k", "write"} <= stages.keys()


@pytest.mark.parametrize("number", [0, 4])
def test_a_full_disk_loses_no_part(
    number: int,
    chain: Chain,
    whole: Path,
    tmp_path: Path,
    fails_at: Callable[[int, BaseException], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / "slates.parquet"
    fails_at(number, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "part"))
    refused(score(chain, output), 5, "the disk is full", "intact; to go on: ranker score", "--res")
    assert not output.exists()
    monkeypatch.undo()
    ran = score(chain, output, "--resume")
    assert ran.json["run"]["shards_kept"] == number
    assert digests(output) == digests(whole)
    assert not partial_of(output).exists()


def test_ctrl_c_names_the_command_that_goes_on(
    chain: Chain,
    whole: Path,
    tmp_path: Path,
    fails_at: Callable[[int, BaseException], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / "slates.parquet"
    fails_at(3, KeyboardInterrupt())
    ran = score(chain, output)
    refused(ran, 130, "interrupted; to go on: ranker score --bundle ", " --resume")
    monkeypatch.undo()
    assert score(chain, output, "--resume").json["run"]["shards_kept"] == 3
    assert digests(output) == digests(whole)


def interrupted(
    chain: Chain,
    output: Path,
    fails_at: Callable[[int, BaseException], None],
    monkeypatch: pytest.MonkeyPatch,
    **paths: Path,
) -> Path:
    """A job with three finished parts."""
    fails_at(3, KeyboardInterrupt())
    assert score(chain, output, **paths).code == 130
    monkeypatch.undo()
    return partial_of(output)


def test_damaged_and_half_written_parts_are_made_again(
    chain: Chain,
    whole: Path,
    tmp_path: Path,
    fails_at: Callable[[int, BaseException], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / "slates.parquet"
    partial = interrupted(chain, output, fails_at, monkeypatch)
    part = partial / "part-00001.parquet"
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 4
    part.write_bytes(content)
    (partial / ".part-00002.json").unlink()
    (partial / ".part-00007.parquet.999999.tmp").write_bytes(b"PAR1 of a killed worker")
    (partial / "part-00099.parquet").write_bytes(b"of nobody")
    assert score(chain, output, "--resume").json["run"]["shards_kept"] == 1
    assert digests(output) == digests(whole)


def test_parts_that_changed_places_are_made_again(
    chain: Chain,
    whole: Path,
    tmp_path: Path,
    fails_at: Callable[[int, BaseException], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / "slates.parquet"
    partial = interrupted(chain, output, fails_at, monkeypatch)
    for pattern in ("part-{:05d}.parquet", ".part-{:05d}.json"):
        first, second = (partial / pattern.format(index) for index in (0, 1))
        first.rename(partial / "aside")
        second.rename(first)
        (partial / "aside").rename(second)
    note = json.loads((partial / ".part-00002.json").read_text())
    note["counts"]["candidates"] = "many"
    (partial / ".part-00002.json").write_text(json.dumps(note))
    assert score(chain, output, "--resume").json["run"]["shards_kept"] == 0
    assert digests(output) == digests(whole)


def test_without_resume_old_parts_are_discarded(
    chain: Chain,
    whole: Path,
    tmp_path: Path,
    fails_at: Callable[[int, BaseException], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / "slates.parquet"
    interrupted(chain, output, fails_at, monkeypatch)
    ran = score(chain, output)
    assert "3 parts of an unfinished job were discarded" in ran.err
    assert ran.json["run"]["shards_kept"] == 0
    assert digests(output) == digests(whole)
    again = score(chain, output, "--resume")
    assert "no job was begun there; beginning" in again.err
    assert digests(output) == digests(whole)


def test_another_job_does_not_resume(
    chain: Chain,
    whole: Path,
    tmp_path: Path,
    fails_at: Callable[[int, BaseException], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output, mine = tmp_path / "slates.parquet", tmp_path / "mine.parquet"
    mine.write_bytes(chain.candidates.read_bytes())
    partial = interrupted(chain, output, fails_at, monkeypatch, candidates=mine)
    before = digests(partial)
    weights = tmp_path / "weights.yaml"
    weights.write_text("weights: {click: 2}", encoding="utf-8")
    for more, message in (
        (["--set", "slate.size=3"], "slate was {'size': 10,"),
        (["--seed", "4"], "seed was 0 and is 4"),
        (["--score-weights", weights], "another score weights"),
        (["--keep-columns", "device"], "the columns were ['request_id', "),
    ):
        ran = score(chain, output, "--resume", *more, candidates=mine)
        refused(ran, 3, "this is not the job that was begun there", message, "leave out --resume")
    frame = pd.read_parquet(mine)
    frame[:-1].to_parquet(mine)
    ran = score(chain, output, "--resume", candidates=mine)
    refused(ran, 3, "candidates: mine.parquet had ")
    ran = score(chain, output, "--resume")
    refused(ran, 3, "mine.parquet is gone", "candidates.parquet is new")
    assert digests(partial) == before


def test_columns_that_stay_behind(chain: Chain, whole: Path, tmp_path: Path) -> None:
    ran = score(chain, tmp_path / "few", "--keep-columns", "popularity_rank, device")
    assert ran.code == 0, ran.err
    few, every = pd.read_parquet(tmp_path / "few"), pd.read_parquet(whole)
    made = [n for n in every.columns if n.startswith("prediction.") or n in EXPOSURE_COLUMNS]
    named = ["request_id", "user_id", "time_s", "device", "item_id", "popularity_rank"]
    assert sorted(few.columns) == sorted([*named, *made])
    pd.testing.assert_frame_equal(few, every[few.columns])
    ran = score(chain, tmp_path / "none", "--keep-columns", "popularty_rank")
    refused(ran, 2, "no column 'popularty_rank'; did you mean 'popularity_rank'?")


def test_a_folder_of_files_and_small_row_groups(chain: Chain, whole: Path, tmp_path: Path) -> None:
    """How rows are spread over files changes nothing but what the manifest says of them."""
    table = pq.read_table(chain.candidates)
    folder = tmp_path / "candidates"
    folder.mkdir()
    for number, (start, rows) in enumerate([(0, 1001), (1001, 2), (1003, 10_000)]):
        path = folder / f"c{number}.parquet"
        pq.write_table(table.slice(start, rows), path, row_group_size=97)
    ran = score(chain, tmp_path / "slates", candidates=folder)
    assert ran.code == 0, ran.err
    parts, expected = digests(tmp_path / "slates"), digests(whole)
    del parts["_manifest.json"], expected["_manifest.json"]
    assert parts == expected


# What is rejected


def flip(data: bytes) -> bytes:
    """A bit of the first page of a column in the middle."""
    content = bytearray(data)
    content[len(content) // 3] ^= 8
    return bytes(content)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[: len(data) // 2], "is truncated (it does not end with PAR1)"),
        (flip, "row group 0, column "),
        (lambda data: b"", "is empty (0 bytes)"),
        (lambda data: b"GIF8" + data[4:], "is not a Parquet file"),
    ],
)
def test_a_rejected_input_leaves_the_earlier_output(
    change: Callable[[bytes], bytes], message: str, chain: Chain, tmp_path: Path
) -> None:
    output, mine = tmp_path / "slates.parquet", tmp_path / "mine.parquet"
    mine.write_bytes(chain.candidates.read_bytes())
    assert score(chain, output, candidates=mine).code == 0
    before = digests(output)
    mine.write_bytes(change(mine.read_bytes()))
    refused(score(chain, output, candidates=mine), 3, str(mine), message)
    assert digests(output) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.parquet", "slates.parquet"]


def test_a_bad_row_is_named_and_ends_the_job(chain: Chain, tmp_path: Path) -> None:
    output, mine = tmp_path / "slates.parquet", tmp_path / "mine.parquet"
    frame = pd.read_parquet(chain.candidates)
    for column, value, message in (
        ("item_id", None, "column 'item_id': null: got None, expected an id"),
        ("time_s", frame["time_s"].min() - 10**6, "column 'time_s': the state (as of "),
        ("time_s", 5, "column 'time_s': impossible time stamp: got 5"),
    ):
        bad = frame.copy()
        bad.loc[5_003, column] = value
        pq.write_table(_table(bad), mine, row_group_size=1_000)
        refused(score(chain, output, candidates=mine), 3, f"{mine}: row group 5, row 3", message)
        assert not output.exists() and not partial_of(output).exists()
    frame.loc[5_004, "item_id"] = frame.loc[5_003, "item_id"]
    frame.loc[5_004, "request_id"] = frame.loc[5_003, "request_id"]
    pq.write_table(_table(frame), mine, row_group_size=1_000)
    refused(score(chain, output, candidates=mine), 3, "row group 5, row 4, column 'item_id': 1 of ")


def _table(frame: pd.DataFrame) -> pa.Table:
    return pa.Table.from_pandas(frame, preserve_index=False)


def test_numbers_that_are_none_are_rejected(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that predicts NaN gives no slates."""
    predict = FactorisedPredictor.predict

    def broken(self: FactorisedPredictor, *rest: object) -> dict[str, np.ndarray]:
        return {task: p * np.nan for task, p in predict(self, *rest).items()}  # type: ignore[arg-type]

    monkeypatch.setattr(FactorisedPredictor, "predict", broken)
    refused(score(chain, tmp_path / "slates"), 2, "must be probabilities in [0, 1], got nan")
    assert list(tmp_path.iterdir()) == []


def test_only_our_own_output_is_replaced(chain: Chain, tmp_path: Path) -> None:
    folder = tmp_path / "precious"
    folder.mkdir()
    (folder / "part-00000.parquet").write_bytes(b"hers")
    message = "is a folder that holds no slates of an earlier job"
    refused(score(chain, folder), 2, message)
    for content in ("{}", "[]", "nonsense", '{"kind": "bundle"}'):
        (folder / "_manifest.json").write_text(content)
        refused(score(chain, folder), 2, message)
    assert (folder / "part-00000.parquet").read_bytes() == b"hers"
    refused(score(chain, chain.candidates.parent), 2, "is also an input")
    refused(score(chain, tmp_path / "in" / "out", candidates=tmp_path / "in"), 2, "also an input")


@pytest.mark.parametrize(
    "name",
    ["thesis.tex", "photos/cat.jpg", ".vimrc", "part-00000.parquet.bak", "part-00001.parquet/x"],
)
def test_only_its_own_files_are_cleared_away(name: str, chain: Chain, tmp_path: Path) -> None:
    output = tmp_path / "slates"
    foreign = partial_of(output) / name
    foreign.parent.mkdir(parents=True)
    foreign.write_text("hers")
    for more in ([], ["--resume"]):
        refused(score(chain, output, *more), 2, "which no scoring job has written")
        assert foreign.read_text() == "hers"
    assert not output.exists()


def test_what_somebody_puts_beside_the_parts_stays(tmp_path: Path) -> None:
    """Also if it comes while the job is going on, and if the job ends badly."""
    partial = PartialFolder(tmp_path / "slates")
    with partial.locked():
        partial.begin({"kind": "slates"})
        (partial.path / "notes.txt").write_text("hers")
        with pytest.raises(OutputError, match=r"holds 'notes\.txt'"):
            partial.publish({"kind": "slates"}, [])
        partial.discard()
    assert [file.name for file in partial.path.iterdir()] == ["notes.txt"]
    assert not (tmp_path / "slates").exists()


def test_slates_moved_away_by_a_killed_job_are_put_back(
    chain: Chain, tmp_path: Path, whole: Path
) -> None:
    """Whatever becomes of the next job; in a container it has the killed one's number."""
    output = tmp_path / "slates"
    shutil.copytree(whole, tmp_path / f".slates.{os.getpid()}.old")
    refused(score(chain, output, "--set", "threads=0.5"), 2)
    refused(score(chain, output, candidates=tmp_path), 2, "is also an input")
    empty = tmp_path / "elsewhere"
    empty.mkdir()
    refused(score(chain, output, candidates=empty), 3, "holds no *.parquet files")
    assert digests(output) == digests(whole)
    assert score(chain, output).code == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["elsewhere", "slates"]


def test_a_pipe_is_no_output(chain: Chain, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "slates")
    refused(score(chain, tmp_path / "slates"), 2, "is no folder")
    assert [path.name for path in tmp_path.iterdir()] == ["slates"]


def test_two_jobs_do_not_write_one_output(chain: Chain, tmp_path: Path) -> None:
    output = tmp_path / "slates.parquet"
    partial_of(output).mkdir()
    holding = (
        "import sys; from pathlib import Path; from ranker.only_writer import only_writer\n"
        "with only_writer(Path(sys.argv[1]), command='score'): print(flush=True); input()"
    )
    words = [sys.executable, "-c", holding, str(partial_of(output))]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None and holder.stdout is not None
        holder.stdout.readline()
        refused(score(chain, output), 2, "another `ranker score` is writing there")
        holder.stdin.close()
    assert score(chain, output).code == 0


def test_options_of_ray_need_ray(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused(score(chain, tmp_path / "s", "--workers", "2"), 2, "--workers belongs to --engine ray")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    refused(score(chain, tmp_path / "s", "--engine", "ray"), 2, "pip install -e '.[ray]'")


def test_slates_of_a_folder_are_an_arm_and_a_report(chain: Chain, whole: Path) -> None:
    from pipelines.arms import is_slates

    assert is_slates(whole)
    assert not is_slates(chain.bundle)


@pytest.mark.slow
def test_the_measured_runtime_stays_in_the_manifest(chain: Chain, tmp_path: Path) -> None:
    ran = score(chain, tmp_path / "slates", "--set", "runtime=auto")
    assert ran.code == 0, ran.err
    manifest = json.loads((tmp_path / "slates" / "_manifest.json").read_text())
    assert manifest["config"]["runtime"] in ("factorised", "plain", "onnx")


def test_no_input_is_ever_written_to(chain: Chain, tmp_path: Path) -> None:
    own = tmp_path / "own"
    assert score(chain, own).code == 0
    before = digests(own)
    refused(score(chain, own, candidates=own / "part-00000.parquet"), 2, "lies in it")
    for inside in (chain.state / "slates", chain.bundle / "slates"):
        refused(score(chain, inside), 2, "and nothing is written there")
        assert not inside.exists()
    assert digests(own) == before


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({}, "column 'shelf' is missing, but int64"),
        ({"shelf": "text"}, "column 'shelf' is string, but int64"),
    ],
)
def test_a_capped_column_is_alike_in_all_files(
    second: dict[str, str], message: str, chain: Chain, tmp_path: Path
) -> None:
    table = pq.read_table(chain.candidates)
    half = table.num_rows // 2
    folder = tmp_path / "candidates"
    folder.mkdir()
    shelf = pa.array(np.arange(half) % 3)
    pq.write_table(table.slice(0, half).append_column("shelf", shelf), folder / "a.parquet")
    rest = table.slice(half)
    for name, value in second.items():
        rest = rest.append_column(name, pa.array([value] * rest.num_rows))
    pq.write_table(rest, folder / "b.parquet")
    words = ["--set", "slate.max_per={shelf: 1}", "--keep-columns", "device"]
    refused(score(chain, tmp_path / "slates", *words, candidates=folder), 3, message)
    assert not partial_of(tmp_path / "slates").exists()


def test_columns_of_any_layout_travel(chain: Chain, tmp_path: Path) -> None:
    """Arrow's views, for one, can be read and written, but their rows can't be taken."""
    table = pq.read_table(chain.candidates)
    texts = pa.array([f"text {row}" for row in range(table.num_rows)])
    mine = {
        "view": texts.cast(pa.string_view()),
        "bytes": texts.cast(pa.binary()).cast(pa.binary_view()),
        "views": pa.array([[t] for t in texts.to_pylist()], pa.list_(pa.string_view())),
        "large": texts.cast(pa.large_string()),
        "dictionary": texts.dictionary_encode(),
    }
    for name, values in mine.items():
        table = table.append_column(name, values)
    item = table.column("item_id").cast(pa.string_view())
    table = table.set_column(table.column_names.index("item_id"), "item_id", item)
    pq.write_table(table, tmp_path / "c.parquet")
    output = tmp_path / "slates"
    assert score(chain, output, candidates=tmp_path / "c.parquet").code == 0
    slates = pq.read_table(output).to_pandas()
    row_of = {(r["request_id"], r["item_id"]): r for r in table.to_pylist()}
    for shown in slates.sample(41, random_state=3).to_dict("records"):
        theirs = row_of[shown["request_id"], shown["item_id"]]
        assert {name: theirs[name] for name in mine} == {
            name: list(shown[name]) if name == "views" else shown[name] for name in mine
        }


def test_a_column_twice_is_a_sentence(chain: Chain, tmp_path: Path) -> None:
    table = pq.read_table(chain.candidates)
    twice = table.append_column("x", table.column(0)).append_column("x", table.column(0))
    pq.write_table(twice, tmp_path / "c.parquet")
    ran = score(chain, tmp_path / "slates", candidates=tmp_path / "c.parquet")
    refused(ran, 3, "column 'x' is there 2 times")


@pytest.mark.parametrize("combination", ["weighted_sum", "rank_normalised_sum"])
def test_weights_beyond_all_numbers(combination: str, chain: Chain, tmp_path: Path) -> None:
    weights = tmp_path / "weights.yaml"
    weights.write_text(f"combination: {combination}\nweights: {{click: 1.0e+308, like: 1.0e+308}}")
    ran = score(chain, tmp_path / "slates", "--score-weights", weights)
    refused(ran, 2, "a weight is 0 or between 1e-08 and 1e+08")


@pytest.mark.parametrize("setting", ["slate.size=100000000000000000000", "threads=100000"])
def test_absurd_numbers_are_refused(setting: str, chain: Chain, tmp_path: Path) -> None:
    refused(score(chain, tmp_path / "slates", "--set", setting), 2, f"--set {setting}")


def test_long_slates_need_no_memory_of_their_length(chain: Chain, tmp_path: Path) -> None:
    words = ["--set", "slate.size=1000000", "--set", "slate.max_per={device: 2}"]
    assert score(chain, tmp_path / "slates", *words).code == 0


def merge_the_first_shards(job: dict[str, Any]) -> None:
    """A plan that covers all rows, but not as the parts were cut."""
    (start, _, first), (_, stop, second), *rest = job["plan"]["shards"]
    job["plan"]["shards"] = [[start, stop, first + second], *rest]


@pytest.mark.parametrize(
    "change",
    [
        lambda job: [job.pop(name) for name in list(job) if name != "format"],
        lambda job: job.pop("sha256"),
        lambda job: job.update(format=2),
        lambda job: job.update(plan=7),
        lambda job: job.update(bundle=float("nan")),
        lambda job: job["plan"].update(shards=[]),
        lambda job: job["plan"]["files"][0].update(rows_by_row_group="many"),
        lambda job: job["config"].update(threads="two"),
        merge_the_first_shards,
    ],
)
def test_a_damaged_job_file_does_not_resume(
    change: Callable[[dict[str, Any]], object],
    chain: Chain,
    tmp_path: Path,
    fails_at: Callable[[int, BaseException], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / "slates.parquet"
    partial = interrupted(chain, output, fails_at, monkeypatch)
    job = json.loads((partial / ".job.json").read_text())
    change(job)
    (partial / ".job.json").write_text(json.dumps(job))
    refused(score(chain, output, "--resume"), 3, "or is damaged; to score anew, leave out --resume")


@pytest.mark.parametrize("content", [b"", b'{"format": 1, "bun', b"[1, 2]", b"\xff\xfe{}"])
def test_a_job_file_that_is_none_begins_anew(
    content: bytes,
    chain: Chain,
    whole: Path,
    tmp_path: Path,
    fails_at: Callable[[int, BaseException], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / "slates.parquet"
    partial = interrupted(chain, output, fails_at, monkeypatch)
    (partial / ".job.json").write_bytes(content)
    ran = score(chain, output, "--resume")
    assert "3 parts of an unfinished job were discarded" in ran.err
    assert digests(output) == digests(whole)


def test_what_freshness_hides_is_said(chain: Chain, tmp_path: Path) -> None:
    freshness = "slate.freshness={column: time_s, max_age_hours: 0.000001, unknown: hide}"
    words = score_words(chain, tmp_path / "slates", "--set", freshness)
    ran = run_ranker(*words[:-1], "--set", "slate.size=1000")
    assert ran.code == 0, ran.err
    assert "slates are shorter than asked for" in ran.out
