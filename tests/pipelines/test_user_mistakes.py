"""Mistakes of users end in a sentence and an exit code, never in a traceback."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from chain_run import TEST_START, Chain, Ran, run_ranker

from ranker.config import dump_yaml
from ranker.schema import Schema

Words = list[str | Path]
Change = Callable[[pd.DataFrame], pd.DataFrame]


def refused(ran: Ran, code: int, message: str) -> None:
    assert "Traceback" not in ran.err, ran.err
    assert (ran.code, ran.out) == (code, ""), ran
    assert message in ran.err, ran.err
    assert "ranker" in ran.err


def score(chain: Chain, output: Path, *more: str | Path, **paths: Path) -> Ran:
    where = {"bundle": chain.bundle, "state": chain.state, "candidates": chain.candidates} | paths
    words = [word for name, path in where.items() for word in (f"--{name}", path)]
    return run_ranker("score", *words, "--output", output, *more, "--json")


def folder_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def simulate(chain: Chain, output: Path, *more: str | Path, **paths: Path) -> Ran:
    where = {
        "data": chain.data,
        "state": chain.state,
        "candidates": chain.candidates,
        "control": chain.bundle,
        "treatment": chain.bundle,
    } | paths
    words = [word for name, path in where.items() for word in (f"--{name}", path)]
    quick = ["--set", "num_refits=2", "--set", "response_iterations=3", "--set", "metrics=[click]"]
    before = [] if "--before" in more else ["--before", TEST_START]
    return run_ranker("simulate", *words, *before, *quick, "--output", output, *more, "--json")


# Paths


@pytest.mark.parametrize(
    ("name", "wrong", "code", "message"),
    [
        ("bundle", "missing", 3, "is no bundle"),
        ("bundle", "a_file", 3, "is no bundle"),
        ("bundle", "a_folder", 3, "is no bundle"),
        ("state", "missing", 3, "holds no state"),
        ("state", "a_file", 2, "Not a directory"),
        ("state", "a_folder", 3, "holds no state"),
        ("candidates", "missing", 3, "no such file or folder"),
        ("candidates", "a_folder", 3, "holds no *.parquet files"),
        ("candidates", "a_file", 3, "is not a Parquet file"),
        ("candidates", "no_rows", 3, "holds no rows"),
        ("candidates", "no_bytes", 3, "is empty (0 bytes)"),
    ],
)
def test_wrong_inputs_of_score(
    name: str, wrong: str, code: int, message: str, chain: Chain, tmp_path: Path
) -> None:
    (tmp_path / "a_file").write_text("hello world", encoding="utf-8")
    (tmp_path / "a_folder").mkdir()
    (tmp_path / "no_bytes").touch()
    pd.read_parquet(chain.candidates).head(0).to_parquet(tmp_path / "no_rows")
    ran = score(chain, tmp_path / "slates.parquet", **{name: tmp_path / wrong})
    refused(ran, code, message)
    assert str(tmp_path / wrong) in ran.err
    assert not (tmp_path / "slates.parquet").exists()


def test_wrong_inputs_of_the_other_commands(chain: Chain, tmp_path: Path) -> None:
    missing, folder = tmp_path / "missing", tmp_path / "a-folder"
    folder.mkdir()
    schema, log, *tables = chain.raw_words[1], chain.raw_words[3], *chain.raw_words[4:]
    data = ["--data", chain.data]
    out = ["--output", tmp_path / "out"]
    weightless = tmp_path / "weightless.yaml"
    weightless.write_text(re.sub(r"score_weight: [\d.]+", "score_weight: 0", schema.read_text()))
    told = f"{weightless}: no task has a score_weight above 0"
    cases: list[tuple[Words, int, str]] = [
        (["validate", "--schema", missing, "--log", log, *tables], 2, "no such file"),
        (["validate", "--schema", folder, "--log", log, *tables], 2, "can't be read"),
        (["prepare", "--schema", weightless, "--log", log, *tables, *out], 2, told),
        (["prepare", "--schema", schema, "--log", missing, *tables, *out], 3, "no such file"),
        (["prepare", "--schema", schema, "--log", folder, *tables, *out], 3, "no *.parquet"),
        (["prepare", "--schema", schema, "--log", log, *out], 3, "give --users FILE"),
        (["prepare", *chain.raw_words, "--state", missing, *out], 3, "holds no state"),
        (["prepare", *chain.raw_words], 2, "arguments are required: --output"),
        (["prepare", *chain.raw_words, "--set", "snapshots=['soon']", *out], 2, "not a local date"),
        (["train", "--data", missing, *out], 3, "holds no prepared data"),
        (["train", "--data", chain.run, *out], 3, "holds no prepared data"),
        (["train", *data, "--continue", missing, *out], 3, "is no bundle"),
        (["evaluate", "--bundle", chain.run, *data, *out], 3, "is no bundle"),
        (["evaluate", "--bundle", chain.bundle, "--data", missing, *out], 3, "no prepared data"),
        (["evaluate", "--bundle", chain.bundle, *data, "--run", missing, *out], 3, "no such fol"),
        (["compare", chain.bundle, missing, *data], 3, "no such file or folder"),
        (["compare", chain.bundle, folder, *data], 3, "is no bundle"),
        (["candidates", "--state", missing, "--log", log, *out], 3, "holds no state"),
        (["candidates", "--state", chain.state, "--log", missing, *out], 3, "no such file"),
        (["report", missing], 3, "holds no prepared data"),
        (["report", folder, *data], 3, "neither metrics.json nor simulation.json"),
        (["verify", missing], 3, "is no bundle"),
        (["verify", log], 3, "is no bundle"),
    ]
    for words, code, message in cases:
        refused(run_ranker(*words, "--json"), code, message)


def test_nothing_is_written_into_what_is_whole(chain: Chain) -> None:
    holds = {
        chain.data: "prepared data",
        chain.bundle: "a bundle",
        chain.state.parent: "prepared data",
        chain.slates: "slates",
    }
    for place, what in holds.items():
        before = sorted(place.rglob("*"))
        for name in ("prepare", "train", "evaluate", "candidates", "score"):
            outputs = [place, place / "inside"] if name in ("train", "evaluate") else [place / "x"]
            for output in outputs:
                words = [*chain.commands[name][:-1], output]
                message = f"{what}, and nothing is written there"
                refused(run_ranker(name, *words, "--json"), 2, message)
        assert sorted(place.rglob("*")) == before


def test_outputs_are_checked_before_the_work(chain: Chain, tmp_path: Path) -> None:
    a_file = tmp_path / "a-file"
    a_file.write_text("precious", encoding="utf-8")
    refused(score(chain, tmp_path), 2, "is a folder that holds no slates of an earlier job")
    refused(score(chain, a_file), 2, "a-file: is a file; slates are a folder of parts now")
    refused(score(chain, chain.candidates), 2, "is also an input")
    refused(score(chain, a_file / "slates.parquet"), 2, "a-file: is a file; --output needs")
    refused(simulate(chain, a_file), 2, "a-file: is a file")
    for name in ("prepare", "train", "evaluate"):
        words = [*chain.commands[name][:-1], a_file]
        refused(run_ranker(name, *words, "--json"), 2, "a-file: is a file")
    for name in ("demo", "kuairand"):
        raw = [tmp_path] if name == "kuairand" else []
        (tmp_path / "log_standard_0425_0508.parquet").touch()
        refused(run_ranker(name, *raw, "--output", a_file), 2, "is a file; --output names a")
        # anybody's folder is not emptied, nor a bundle that took hours
        for folder in (tmp_path, chain.bundle):
            ran = run_ranker(name, *raw, "--output", folder)
            refused(ran, 2, "is not empty and no earlier run")
    assert a_file.read_text(encoding="utf-8") == "precious"
    assert run_ranker("verify", chain.bundle).code == 0


@pytest.mark.parametrize("text", ["yesterday", "2024-3-14", "14.03.2024", "2024-03-14T10:30"])
@pytest.mark.parametrize("option", ["--from", "--before"])
def test_dates_must_be_dates(option: str, text: str, chain: Chain, tmp_path: Path) -> None:
    for name in ("evaluate", "compare", "candidates"):
        ran = run_ranker(name, *chain.commands[name], option, text)
        refused(ran, 2, f"argument {option}: {text!r} is not a local date like 2022-05-05")
    refused(simulate(chain, tmp_path, "--before", text), 2, "is not a local date")


def test_dates_without_rows(chain: Chain, tmp_path: Path) -> None:
    words = chain.commands["candidates"]
    ran = run_ranker("candidates", *words, "--from", "2031-01-01", "--output", tmp_path / "x")
    refused(ran, 3, "no rows from 2031-01-01 to the end")
    ran = run_ranker("evaluate", *chain.commands["evaluate"], "--from", "2024-03-17", "--before",
                     "2024-03-15")  # fmt: skip
    refused(ran, 2, "--from 2024-03-17 must lie before --before 2024-03-15")
    ran = simulate(chain, tmp_path / "y", "--before", "1999-01-01")
    refused(ran, 3, "no rows before 1999-01-01 to learn responses from")


@pytest.mark.parametrize("number", ["0", "-3", "1.5", "many"])
def test_numbers_must_make_sense(number: str, chain: Chain) -> None:
    ran = run_ranker("candidates", *chain.commands["candidates"], "--max-requests", number)
    refused(ran, 2, "argument --max-requests: expected")
    ran = run_ranker("evaluate", *chain.commands["evaluate"], "--set", "seed=-1")
    refused(ran, 2, "key 'seed': Input should be greater than or equal to 0")


@pytest.mark.parametrize("key", ["first_window", "before_window"])
@pytest.mark.parametrize("text", ["soon", "2024-3-14"])
def test_training_windows_must_be_dates(key: str, text: str, chain: Chain, tmp_path: Path) -> None:
    """As texts, 2024-03-17 < 2024-3-14: the bundle would be trained on the test windows."""
    words = [*chain.commands["train"][:4], "--set", f"{key}={text}", "--output", tmp_path / "run"]
    refused(run_ranker("train", *words), 2, f"key {key!r}: {text!r} is not a local date like")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("feedback_weights.like=-2", "key 'feedback_weights.like': Input should be greater than"),
        ("feedback_weights.likes=2", "'likes' is not one of ['click', 'like']"),
        ("generators=[{kind: popularity}, {kind: popularity}]", "is configured twice"),
        ("generators=[{kind: magic}]", "key 'generators.0'"),
    ],
)
def test_bad_candidate_configs(override: str, message: str, chain: Chain, tmp_path: Path) -> None:
    words = [*chain.commands["candidates"][:-1], tmp_path / "c.parquet", "--set", override]
    refused(run_ranker("candidates", *words), 2, message)
    weightless = ["--set", "impression_weight=0", "--set", "feedback_weights.click=0"]
    refused(run_ranker("candidates", *words[:-2], *weightless), 2, "all are 0")


# States


def test_a_state_newer_than_the_request(chain: Chain, tmp_path: Path) -> None:
    late = chain.data / "state"
    ran = score(chain, tmp_path / "slates.parquet", state=late)
    refused(ran, 3, "is newer than ")
    assert "it knows their future; use a snapshot" in ran.err
    assert re.search(
        r"\(as of \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\S* UTC \(\d+ ms\)\) is newer", ran.err
    )
    refused(simulate(chain, tmp_path / "simulation", state=late), 3, "is newer than ")
    words = ["candidates", "--state", late, *chain.commands["candidates"][2:-1]]
    refused(run_ranker(*words, tmp_path / "candidates.parquet"), 3, "is newer than ")


@pytest.fixture(scope="module")
def other_data(
    chain: Chain, synthetic_schema: Schema, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The log without its first days, with a schema that keeps less, and the same once more."""
    folder = tmp_path_factory.mktemp("other")
    history = synthetic_schema.history.model_copy(update={"kept": 17})
    shorter = synthetic_schema.model_copy(update={"history": history})
    (folder / "schema.yaml").write_text(dump_yaml(shorter), encoding="utf-8")
    log = pd.read_parquet(chain.raw.log)
    log[log["time_s"] >= 1_709_900_000].to_parquet(folder / "log.parquet")
    for name, path, schema in (
        ("late", folder / "log.parquet", chain.schema),
        ("short", chain.raw.log, folder / "schema.yaml"),
        ("twice", chain.raw.log, chain.schema),
    ):
        ran = run_ranker(
            *("prepare", "--schema", schema, "--log", path, "--users", chain.raw.users),
            *("--items", chain.raw.items, "--set", f"snapshots=['2024-03-11', '{TEST_START}']"),
            *("--output", folder / name, "--quiet"),
        )
        assert ran.code == 0, ran.err
    return folder


def test_a_state_of_other_data(chain: Chain, other_data: Path, tmp_path: Path) -> None:
    other = other_data / "late" / "snapshots" / TEST_START
    ran = score(chain, tmp_path / "slates.parquet", state=other)
    refused(ran, 3, "its vocabularies don't continue the bundle's")
    ran = simulate(chain, tmp_path / "simulation", state=other)
    refused(ran, 3, "the state does not belong to the prepared data")
    ran = run_ranker("compare", chain.bundle, chain.bundle, "--data", other_data / "late")
    refused(ran, 3, "its vocabularies don't continue the bundle's")
    ran = score(chain, tmp_path / "x", state=other_data / "short" / "snapshots" / TEST_START)
    refused(ran, 3, "was prepared with another schema")


def test_a_state_older_than_the_bundle(chain: Chain, other_data: Path, tmp_path: Path) -> None:
    early = other_data / "twice" / "snapshots" / "2024-03-11"
    message = "is older than the bundle, which was trained on windows up to 2024-03-13"
    refused(score(chain, tmp_path / "slates.parquet", state=early), 3, message)
    refused(simulate(chain, tmp_path / "simulation", state=early), 3, message)


def test_progressive_predictions_of_other_data(
    chain: Chain, other_data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(chain.run / "progressive", run / "progressive")
    file = run / "progressive" / "2024-03-09.parquet"
    pd.read_parquet(file).head(-1).to_parquet(file)
    words = [*chain.commands["evaluate"], "--run", run, "--output", tmp_path / "out"]
    ran = run_ranker("evaluate", *words)
    refused(ran, 3, f"{file}: was predicted on other data than {chain.data}")


# Candidates


def with_null_times(frame: pd.DataFrame) -> pd.DataFrame:
    stamps = pd.to_datetime(frame["time_s"], unit="s").astype("datetime64[ms]")
    return frame.assign(time_s=stamps.mask(frame.index == 4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_null_times, "row 4, column 'time_s': null: got None, expected a time stamp"),
        (lambda f: f.assign(time_s=7), "impossible time stamp: got 7, expected a time between"),
        (lambda f: f.drop(columns="device"), "column 'device' is missing"),
        (lambda f: f.drop(columns="request_id"), "column 'request_id' is missing"),
        (
            lambda f: f.assign(item_id=range(len(f))),
            "one type",
        ),
        (lambda f: f.assign(item_id=None), "column 'item_id' must be an integer, boolean or text"),
        (lambda f: pd.concat([f.head(3), f]), " rows repeat an item of their request's list"),
        (
            lambda f: f.assign(request_id=f["request_id"].iloc[0], item_id=f["item_id"] + "x"),
            "rows repeat an item",
        ),
        (
            lambda f: f.drop_duplicates("item_id").assign(request_id="r"),
            ": 1 of 1 requests have candidates of several users",
        ),
    ],
)
def test_bad_candidates(change: Change, message: str, chain: Chain, tmp_path: Path) -> None:
    path = tmp_path / "candidates.parquet"
    change(pd.read_parquet(chain.candidates)).to_parquet(path, index=False)
    refused(score(chain, tmp_path / "slates.parquet", candidates=path), 3, message)
    refused(simulate(chain, tmp_path / "simulation", candidates=path), 3, message)


def test_unknown_users_items_and_devices_are_counted(chain: Chain, tmp_path: Path) -> None:
    """They score like anything new: by what is known of them, which may be nothing."""
    path = tmp_path / "candidates.parquet"
    frame = pd.read_parquet(chain.candidates).head(2 * 23)
    frame["user_id"] = 77_777
    frame["request_id"] = "one"
    frame = frame.drop_duplicates("item_id").reset_index(drop=True)
    frame["time_s"] = frame["time_s"].max()
    frame.loc[:4, "item_id"] = [f"new-{k}" for k in range(5)]
    frame["device"] = ["fridge"] * 7 + ["tv"] * (len(frame) - 7)
    frame.to_parquet(path)
    ran = score(chain, tmp_path / "slates.parquet", candidates=path)
    assert ran.code == 0, ran.err
    found = ran.json
    unknown = found["unknown_or_null_ids"]
    assert found["rows_without_owner"] == {"user": len(frame), "item": 5}
    assert (unknown["user_id"], unknown["item_id"]) == (len(frame), 5)
    assert unknown["creator"] == unknown["topic"] == 5
    known_devices = set(pd.read_parquet(chain.raw.log)["device"])
    assert unknown["device"] == int((~frame["device"].isin(known_devices)).sum()) >= 7
    slates = pd.read_parquet(tmp_path / "slates.parquet")
    assert np.isfinite(slates["score"]).all()
    for_people = run_ranker(
        *("score", "--bundle", chain.bundle, "--state", chain.state, "--candidates", path),
        *("--output", tmp_path / "again.parquet"),
    ).out
    assert "unknown or null ids: age_group" in for_people
    assert "  5 candidates have no row in the item table" in for_people
    assert folder_bytes(tmp_path / "again.parquet") == folder_bytes(tmp_path / "slates.parquet")


def test_lists_shorter_than_a_slate(chain: Chain, tmp_path: Path) -> None:
    path = tmp_path / "candidates.parquet"
    frame = pd.read_parquet(chain.candidates)
    keep = frame.groupby("request_id").cumcount() < 3
    one_only = frame["request_id"] == frame["request_id"].iloc[0]
    frame[keep & (~one_only | ~one_only.duplicated())].to_parquet(path)
    ran = score(chain, tmp_path / "slates.parquet", "--set", "slate.size=1000", candidates=path)
    sizes = pd.read_parquet(tmp_path / "slates.parquet").groupby("request_id").size()
    assert ran.json["shown"] == ran.json["candidates"]
    assert sizes[frame["request_id"].iloc[0]] == 1
    assert sizes.max() == 3


def test_one_request_only(chain: Chain, tmp_path: Path) -> None:
    """Its user is in one arm; the other has nobody."""
    path, slates = tmp_path / "candidates.parquet", tmp_path / "slates.parquet"
    frame = pd.read_parquet(chain.candidates)
    frame[frame["request_id"] == frame["request_id"].iloc[0]].to_parquet(path)
    assert score(chain, slates, candidates=path).json["requests"] == 1
    found = simulate(chain, tmp_path / "simulation", candidates=path, treatment=slates)
    assert found.code == 0, found.err
    (lift,) = found.json["lifts"]
    assert sorted([lift["num_users_control"], lift["num_users_treatment"]]) == [0, 1]
    assert lift["lift"] is None and lift["verdict"] == "cannot tell"
    assert "an interval needs at least 2" in lift["reason"]
    report = run_ranker("report", tmp_path / "simulation", "--data", chain.data)
    assert report.code == 0, report.err


@pytest.mark.parametrize("command", ["candidates"])
def test_requests_of_ones_own(command: str, chain: Chain, tmp_path: Path) -> None:
    log = pd.read_parquet(chain.raw.log)
    first = log[log["time_s"] >= 1_710_374_400].drop_duplicates("request_id").head(9)
    requests = first[["request_id", "user_id", "time_s", "device"]]
    path = tmp_path / "requests.parquet"
    words = [command, "--state", chain.state, "--requests", path, "--output", tmp_path / "c"]
    requests.to_parquet(path)
    ran = run_ranker(*words, "--json")
    assert ran.json["requests"] == 9
    got = pd.read_parquet(tmp_path / "c")[list(requests)].drop_duplicates()
    assert set(got["request_id"]) == set(requests["request_id"])
    pd.concat([requests, requests.head(2)]).to_parquet(path)
    refused(run_ranker(*words), 3, "2 of 11 rows repeat a request")
    refused(run_ranker(*words, "--from", TEST_START), 2, "leave them out with --requests")
    requests.head(0).to_parquet(path)
    refused(run_ranker(*words), 3, "holds no rows")


def test_pair_features_of_the_log_are_unknown_of_candidates(
    chain: Chain, synthetic_schema: Schema, tmp_path: Path
) -> None:
    """The stage that makes candidates can't have them; who brings his own can."""
    values = synthetic_schema.model_dump()
    affinity = {"name": "affinity", "kind": "numeric", "owner": "pair"}
    values["features"] = [*values["features"], affinity]
    schema = tmp_path / "schema.yaml"
    schema.write_text(dump_yaml(Schema.model_validate(values)), encoding="utf-8")
    log = pd.read_parquet(chain.raw.log).query("time_s < 1709800000")
    log.assign(affinity=0.25).to_parquet(tmp_path / "log.parquet")
    tables = ["--users", chain.raw.users, "--items", chain.raw.items]
    words = ["prepare", "--schema", schema, "--log", tmp_path / "log.parquet", *tables]
    assert run_ranker(*words, "--output", tmp_path / "data", "--quiet").code == 0
    ran = run_ranker(
        *("candidates", "--state", tmp_path / "data" / "state", "--log", tmp_path / "log.parquet"),
        *("--output", tmp_path / "candidates.parquet"),
    )
    refused(ran, 3, "feature 'affinity' of the pair is read from the log")


# Training


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.exclude_features=[user_i]", "which is no feature; did you mean 'user_id'?"),
        ("model.exclude_features=[nope]", "'nope', which is no feature (user_id, age_group"),
        ("accelerator=gpu", "accelerator: gpu needs a GPU for each process, 1 in all, and torch"),
        ("threads=2000", "key 'threads': Input should be less than or equal to 1024"),
    ],
)
def test_bad_training_is_refused_before_anything_is_written(
    override: str, message: str, chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    words = [*chain.commands["train"][:-1], tmp_path / "run", "--set", override, "--json"]
    refused(run_ranker("train", *words), 2, message)
    assert not (tmp_path / "run").exists()


def test_a_finished_run_is_not_rewritten_under_another_setting(
    chain: Chain, tmp_path: Path
) -> None:
    shutil.copytree(chain.run, tmp_path / "run")
    before = folder_bytes(tmp_path / "run" / "bundle")
    words = [*chain.commands["train"][:-1], tmp_path / "run", "--resume", "--json"]
    ran = run_ranker("train", *words, "--set", "progressive_validation=false")
    refused(ran, 3, "its checkpoints belong to another config or other data")
    assert folder_bytes(tmp_path / "run" / "bundle") == before
    assert run_ranker("train", *words).code == 0
    assert folder_bytes(tmp_path / "run" / "bundle") == before


# Score weights and arms


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("weights: {clik: 1}", "unknown task 'clik'; did you mean 'click'?"),
        ("weights: {click: 0, like: 0}", "all score weights are 0"),
        ("weights: {click: -1}", "key 'weights.click': Input should be greater than or equal to 0"),
        ("weights: {click: .inf}", "key 'weights.click'"),
        ("weights: {click: 1.0e+308}", "key 'weights.click': a weight is 0 or between 1e-08 and"),
        ("weights: {click: 1.0e-320}", "key 'weights.click': a weight is 0 or between 1e-08 and"),
        ("weights: {click: 100000}", "the weighted product leaves the range of float64"),
        ("click: 1", "key 'click' is unknown"),
        ("", "key 'weights' is required"),
    ],
)
def test_bad_score_weights(text: str, message: str, chain: Chain, tmp_path: Path) -> None:
    path = tmp_path / "weights.yaml"
    path.write_text(text, encoding="utf-8")
    ran = score(chain, tmp_path / "slates.parquet", "--score-weights", path)
    refused(ran, 2, message)
    ran = simulate(chain, tmp_path / "simulation", "--control-weights", path)
    refused(ran, 2, message)


def all_scores(chain: Chain) -> pd.DataFrame:
    frame = pd.read_parquet(chain.candidates)[["request_id", "item_id"]]
    return frame.assign(score=np.random.default_rng(1).normal(size=len(frame)))


def test_anybodys_scores_are_an_arm(chain: Chain, tmp_path: Path) -> None:
    """Only request, item and score; shuffled, with rows of other requests; or ranks alone."""
    scores, ranks = tmp_path / "theirs.parquet", tmp_path / "ranks.parquet"
    frame = all_scores(chain)
    elsewhere = frame.head(6).assign(request_id="of-another-day", score=np.nan)
    pd.concat([elsewhere, frame.sample(frac=1, random_state=4)]).to_parquet(scores)
    order = frame.groupby("request_id")["score"].rank(ascending=False).astype(int)
    frame.assign(rank=order)[order <= 10].drop(columns="score").to_parquet(ranks)
    ran = simulate(chain, tmp_path / "simulation", control=scores, treatment=ranks)
    assert ran.code == 0, ran.err
    found = ran.json
    assert (found["control"], found["treatment"]) == ("theirs", "ranks")
    assert found["slate_overlap"] == 1
    assert found["expected_lifts"][0]["lift"] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(columns="score"), "has no column 'score' or 'rank'"),
        (lambda f: f.drop(columns="request_id"), "column 'request_id' is missing"),
        (lambda f: f.drop(index=range(20)), "1 of 327 requests have too few scored candidates"),
        (lambda f: f.assign(score=f["score"].mask(f.index == 3)), "the score in row 3 is nan"),
        (lambda f: f.assign(score="high"), "column 'score' must hold numbers"),
        (lambda f: f.assign(item_id=range(len(f))), "column 'item_id' is int64"),
        (lambda f: pd.concat([f, f.head(2).assign(score=9.0)]), "another score before it"),
    ],
)
def test_unusable_scores(change: Change, message: str, chain: Chain, tmp_path: Path) -> None:
    path = tmp_path / "theirs.parquet"
    change(all_scores(chain)).to_parquet(path, index=False)
    ran = simulate(chain, tmp_path / "simulation", treatment=path)
    refused(ran, 3, message)
    assert str(path) in ran.err


def test_mistakes_in_experiments(chain: Chain, tmp_path: Path) -> None:
    out = tmp_path / "simulation"
    theirs = tmp_path / "theirs.parquet"
    all_scores(chain).to_parquet(theirs)
    weights = tmp_path / "weights.yaml"
    weights.write_text("weights: {click: 1}", encoding="utf-8")
    ran = simulate(chain, out, "--control-weights", weights, control=theirs)
    refused(ran, 2, "--control-weights belongs to a bundle")
    refused(simulate(chain, out, "--set", "salt='a:b'"), 2, "key 'salt': ")
    refused(simulate(chain, out, "--set", "metrics=[clik]"), 2, "'clik' is not one of")
    refused(simulate(chain, out, "--set", "share_treatment=1"), 2, "key 'share_treatment'")


def test_damaged_results_are_no_bug(chain: Chain, tmp_path: Path) -> None:
    words: Words = ["report", tmp_path, "--data", chain.data]
    for text, message in (("{", "damaged"), ("[]", "expected an object"), ('{"a": 1}', "lack")):
        (tmp_path / "metrics.json").write_text(text, encoding="utf-8")
        refused(run_ranker(*words), 3, message)
