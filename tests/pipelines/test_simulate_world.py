"""`ranker simulate` in a world: a log, an experiment with its truth, a world like a log."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from chain_run import run_ranker

from pipelines.simulate_world import WorldExperimentConfig
from ranker.config import load_config
from ranker.experiment.world.settings import WorldSettings

ROOT = Path(__file__).resolve().parents[2]
SMALL = """
seed: 5
num_users: 211
num_items: 127
num_topics: 5
num_days: 7
slate_size: 6
candidates: {count: 17}
"""
CLIX = "{name: x, role: primary, measure: {kind: mean, column: clix}}"
DAYS = ["--set", "first_day=3", "--set", "num_days=4", "--set", "pre_period_days=3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("world")
    (made / "world.yaml").write_text(SMALL, "utf-8")
    return made


@pytest.fixture(scope="module")
def simulated(folder):
    ran = experiment(folder, "popularity", "satisfaction-oracle", "run", "--jobs", "1")
    assert ran.code == 0, ran.err
    return ran.json


@pytest.fixture(scope="module")
def log(folder):
    ran = run_ranker(
        "simulate", "--world", folder / "world.yaml", "--write-log", folder / "log",
        "--set", "log_days=3", "--set", "candidates_from=0", "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    return folder / "log"


def experiment(folder, control, treatment, output, *more):
    return run_ranker(
        "simulate", "--world", folder / "world.yaml", "--control", control,
        "--treatment", treatment, "--output", folder / output, *DAYS, "--json", *more,
    )  # fmt: skip


def test_the_truth_stands_beside_every_estimate(simulated):
    lifts = {one["metric"]: one for one in simulated["lifts"]}
    assert set(lifts) == {one["metric"] for one in simulated["analysis"]["metrics"]}
    for one in lifts.values():
        assert one["covers"] == (one["ci_low"] <= one["true_lift"] <= one["ci_high"])
    # clickbait loses the clicks that satisfaction gains
    assert lifts["dismissals"]["true_lift"] < 0 < lifts["rating"]["true_lift"]


def test_the_estimate_is_that_of_the_table(folder, simulated):
    rows = pq.read_table(folder / "run" / "outcomes.parquet").to_pandas()
    rows = rows[rows["day"] >= np.datetime64("2024-03-07").item()]
    sums = rows.groupby("arm")[["clicks", "impressions"]].sum()
    rate = sums["clicks"] / sums["impressions"]
    (metric,) = (m for m in simulated["analysis"]["metrics"] if m["metric"] == "click rate")
    assert metric["plain"]["control"] == pytest.approx(rate["popularity"], rel=1e-9)
    assert metric["plain"]["treatment"] == pytest.approx(rate["satisfaction-oracle"], rel=1e-9)


def test_analyze_says_the_same_of_the_table(folder, simulated):
    run = folder / "run"
    ran = run_ranker(
        "analyze", run / "outcomes.parquet", "--config", run / "analyze.yaml",
        "--output", folder / "analysed",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    first, again = (one / "analysis.json" for one in (run, folder / "analysed"))
    assert first.read_bytes() == again.read_bytes()


def test_bytes_do_not_depend_on_jobs(folder, simulated):
    ran = experiment(folder, "popularity", "satisfaction-oracle", "again", "--jobs", "3")
    assert ran.json["lifts"] == simulated["lifts"]
    for name in ("outcomes.parquet", "simulation.json", "report.html", "manifest.json"):
        assert (folder / "again" / name).read_bytes() == (folder / "run" / name).read_bytes()


def test_the_page_tells_simulated_from_real(folder, simulated):
    page = (folder / "run" / "report.html").read_text("utf-8")
    assert "What was simulated and what was real" in page
    assert "What is true in this world" in page
    for one in simulated["lifts"]:
        assert f"{one['true_lift']:+.2%}</td>" in page
    written = json.loads((folder / "run" / "simulation.json").read_text("utf-8"))
    assert written["real"] == ["only the analysis, which is the one for live traffic"]


def test_an_injected_lift_is_the_true_lift_of_clicks(folder):
    # nobody's return hangs on satisfaction, so only the clicks themselves change
    ran = experiment(
        folder, "random", "random", "injected", "--set", "click_lift=0.02",
        "--set", "world.activity.return_slope=0",
    )  # fmt: skip
    lifts = {one["metric"]: one["true_lift"] for one in ran.json["lifts"]}
    assert (ran.json["control"], ran.json["treatment"]) == (
        "random (control)",
        "random (treatment)",
    )
    for name, lift in (("clicks", 0.02), ("click rate", 0.02), ("rating", 0), ("dismissals", 0)):
        assert lifts[name] == pytest.approx(lift, abs=1e-12)


@pytest.fixture(scope="module")
def quality(folder, log):
    """Candidates with their quality as score, as a file."""
    items = pq.read_table(log / "items.parquet").to_pandas().set_index("item_id")
    candidates = pq.read_table(log / "candidates", columns=["request_id", "item_id"])
    scores = items["quality_proxy"].loc[candidates["item_id"].to_numpy()].to_numpy()
    pq.write_table(candidates.append_column("score", pa.array(scores)), folder / "quality.parquet")
    return folder / "quality.parquet"


@pytest.fixture(scope="module")
def slates(folder, quality):
    """The six best of each request by `quality`, as a file."""
    frame = pq.read_table(quality).to_pandas()
    order = frame.sort_values(["request_id", "score", "item_id"], ascending=[True, False, True])
    rank = order.groupby("request_id").cumcount() + 1
    order[["request_id", "item_id"]].assign(rank=rank)[rank <= 6].to_parquet(
        folder / "slates.parquet"
    )
    return folder / "slates.parquet"


def test_a_file_ranks_as_the_policy_whose_scores_it_holds(folder, quality, slates):
    runs = [
        experiment(folder, "random", path, path.stem, "--treatment-name", "theirs")
        for path in (quality, slates)
    ]
    assert [ran.code for ran in runs] == [0, 0], runs[0].err + runs[1].err
    assert runs[0].json["lifts"] == runs[1].json["lifts"]
    assert runs[0].json["real"][0].startswith("the ranking of theirs (file ")
    # quality raises clicks and satisfaction; a file may also rank as control, pre-period and all
    lifts = {one["metric"]: one["true_lift"] for one in runs[0].json["lifts"]}
    assert min(lifts["clicks"], lifts["rating"]) > 0
    same = experiment(folder, quality, slates, "same")
    assert {one["true_lift"] for one in same.json["lifts"]} == {0.0}


def test_the_log_is_validated_and_prepared_with_nothing_else(folder, log):
    inputs = [
        "--schema", log / "schema.yaml", "--log", log / "log",
        "--users", log / "users.parquet", "--items", log / "items.parquet",
    ]  # fmt: skip
    assert run_ranker("validate", *inputs).code == 0
    ran = run_ranker("prepare", *inputs, "--output", folder / "data", "--json", "--quiet")
    assert ran.code == 0, ran.err
    assert yaml.safe_load((log / "schema.yaml").read_text("utf-8"))["max_positions"] == 6
    resolved = load_config(WorldSettings, log / "world.yaml")
    assert resolved == load_config(WorldSettings, folder / "world.yaml")


def test_a_log_is_replaced_and_other_folders_are_not(folder, log):
    words = ["simulate", "--world", folder / "world.yaml", "--set", "candidates_from=6"]
    first = (log / "log" / "day-000.parquet").read_bytes()
    assert run_ranker(*words, "--write-log", log, "--set", "log_days=1").code == 0
    assert (log / "log" / "day-000.parquet").read_bytes() == first
    assert not (log / "log" / "day-001.parquet").exists()
    occupied = folder / "occupied"
    occupied.mkdir()
    (occupied / "thesis.txt").write_text("mine", "utf-8")
    ran = run_ranker(*words, "--write-log", occupied)
    assert (ran.code, "is not empty" in ran.err) == (2, True)
    ran = experiment(folder, "random", "popularity", "occupied")
    assert (ran.code, "is not empty" in ran.err) == (2, True)
    assert [file.name for file in occupied.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--treatment", "satisfaction_oracle"], 2, "did you mean 'satisfaction-oracle'?"),
        (["--set", "world.num_user=7"], 2, "key 'num_user' is unknown; did you mean 'num_users'?"),
        (["--set", "world.num_days=5"], 2, "the experiment ends on day 7, the world on day 5"),
        (["--set", "pre_period_days=4"], 2, "pre_period_days 4 must be at most first_day 3"),
        (["--set", "world.conflict=0.99"], 2, "choose a value within"),
        (["--set", "slice=[]"], 2, "key 'slice' is unknown; did you mean 'slices'?"),
        (["--set", f"metrics=[{CLIX}]"], 2, "did you mean 'clicks'?"),
        (["--set", "slices=[colour]"], 3, "column 'colour' is missing"),
        (["--before", "2024-03-05"], 2, "--before means nothing with --world"),
        (["--treatment-weights", "w.yaml"], 2, "--treatment-weights belongs to a bundle"),
    ],
)
def test_mistakes_in_a_world_are_explained(folder, words, code, message):
    ran = experiment(folder, "random", "popularity", "bad", *words)
    assert ran.code == code, ran.err
    assert message in ran.err
    assert not (folder / "bad").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.slice(0, rows.num_rows - 6), "of its candidates, a slate shows 6"),
        (lambda rows: rows.drop_columns(["request_id"]), "column 'request_id' is missing"),
        (lambda rows: rows.drop_columns(["rank"]), "has no column 'score' or 'rank'"),
        (lambda rows: pa.concat_tables([rows, rows.slice(0, 2)]), "rows repeat an item"),
        (
            lambda rows: rows.set_column(1, "item_id", pa.array(["x"] * rows.num_rows)),
            "'item_id' must hold whole numbers, none missing",
        ),
    ],
)
def test_files_that_cannot_rank_are_rejected(folder, slates, change, message):
    rows = pq.read_table(slates, columns=["request_id", "item_id", "rank"])
    pq.write_table(change(rows), folder / "broken.parquet")
    ran = experiment(folder, "random", folder / "broken.parquet", "bad")
    assert ran.code == 3, ran.err
    assert "broken.parquet: " in ran.err
    assert message in ran.err


def test_a_folder_without_tables_needs_data_and_state(folder, tmp_path):
    ran = experiment(folder, "random", tmp_path, "bad")
    assert (ran.code, "a bundle needs --data and --state" in ran.err) == (2, True)


def test_a_world_like_its_own_log_comes_close(folder, log):
    words = ["--set", "max_users=211", "--set", "world.candidates.count=17", "--json"]
    ran = run_ranker(
        "simulate", "--like", log / "log", "--schema", log / "schema.yaml",
        "--output", folder / "like", *words,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    by_name = {one["statistic"]: one for one in ran.json["closeness"]}
    assert by_name["impressions per request"]["world"] == 6
    assert abs(by_name["mean click"]["relative_error"]) < 0.15
    fitted = load_config(WorldSettings, folder / "like" / "world.yaml")
    assert (fitted.slate_size, fitted.num_users <= 211) == (6, True)
    assert not any("no positions" in note for note in ran.json["notes"])


def test_rows_written_twice_are_measured_once(folder, log, tmp_path):
    rows = pa.concat_tables([pq.read_table(file) for file in (log / "log").rglob("*.parquet")])
    (tmp_path / "twice").mkdir()
    pq.write_table(rows, tmp_path / "twice" / "a.parquet")
    pq.write_table(rows.slice(3, 41), tmp_path / "twice" / "b.parquet")
    paths = (log / "log", tmp_path / "twice")
    words = ["simulate", "--schema", log / "schema.yaml", "--set", "max_users=53", "--json"]
    once, twice = (
        run_ranker(*words, "--like", path, "--output", tmp_path / f"like-{path.name}")
        for path in paths
    )
    assert (once.code, twice.code) == (0, 0), twice.err
    assert once.json["log"] == twice.json["log"]
    assert (once.json["exact_duplicates"], twice.json["exact_duplicates"]) == (0, 41)
    assert "41 exact duplicates of the log were dropped" in twice.json["notes"]
    assert twice.json["log"]["num_impressions"] == rows.num_rows


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--data is required with --candidates"),
        (["--like", "x"], "--schema is required with --like"),
        (["--world", "x.yaml"], "--control is required with --world"),
        (["--write-log", "x", "--control", "random"], "--control means nothing with --write-log"),
        (["--world", "nothing.yaml", "--write-log", "x"], "nothing.yaml: no such file"),
    ],
)
def test_every_form_says_what_it_needs(words, message):
    ran = run_ranker("simulate", *words)
    assert (ran.code, message in ran.err) == (2, True), ran.err


def test_shipped_configs_load_and_print():
    files = sorted((ROOT / "configs" / "simulate").glob("world*.yaml"))
    assert len(files) == 2
    for file in files:
        assert load_config(WorldExperimentConfig, file).metrics[0].role == "primary"
    ran = run_ranker(
        "simulate", "--world", ROOT / "configs/world/default.yaml", "--config", files[0],
        "--print-config",
    )  # fmt: skip
    shown = yaml.safe_load(ran.out)
    assert shown["experiment"]["metrics"][0]["measure"]["column"] == "watch_time_s"
    assert WorldSettings.model_validate(shown["world"]) == WorldSettings()


@pytest.mark.slow
def test_built_in_arms_need_no_torch(folder):
    words = [
        "simulate", "--world", str(folder / "world.yaml"), "--control", "logging",
        "--treatment", "engagement-oracle", "--output", str(folder / "torchless"), *DAYS, "--json",
    ]  # fmt: skip
    code = (
        f"import sys; from pipelines.cli import main; assert main({words!r}) == 0; "
        "assert not {'torch', 'lightning'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_bundle_ranks_as_the_slates_that_it_scored(folder, log):
    run_ranker(
        "simulate", "--world", folder / "world.yaml", "--write-log", folder / "train",
        "--set", "log_days=3", "--set", "candidates_from=3", "--quiet",
    )  # fmt: skip
    raw, data, trained = folder / "train", folder / "train_data", folder / "trained"
    state = data / "snapshots" / "2024-03-07"
    steps = [
        ("prepare", "--schema", raw / "schema.yaml", "--log", raw / "log",
         "--users", raw / "users.parquet", "--items", raw / "items.parquet",
         "--output", data, "--set", "snapshots=['2024-03-07']"),
        ("train", "--data", data, "--output", trained),
        ("score", "--bundle", trained / "bundle", "--state", state,
         "--candidates", raw / "candidates", "--output", folder / "scored.parquet"),
    ]  # fmt: skip
    for step in steps:
        ran = run_ranker(*step, "--quiet")
        assert ran.code == 0, ran.err
    words = ["--data", data, "--state", state]
    bundle = experiment(folder, "random", trained / "bundle", "bundle_run", *words)
    file = experiment(folder, "random", folder / "scored.parquet", "scored_run")
    assert (bundle.code, file.code) == (0, 0), bundle.err + file.err
    assert bundle.json["lifts"] == file.json["lifts"]
    refused = experiment(folder, trained / "bundle", "random", "bad", *words)
    assert refused.code == 3
    assert "Control ranks the pre-period too: --set pre_period_days=0" in refused.err
