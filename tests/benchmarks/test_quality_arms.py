import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import quality_arms
from peers import quality_job
from quality_arms import Plan, Run, Workshop, read_arms
from quality_choice import choose, quick_choice
from quality_data import Split, outcome_shares
from quality_final import train_finalists
from quality_verdicts import verdicts_of
from record import Figure
from sklearn.metrics import roc_auc_score

from ranker.config import load_config
from ranker.data.store import Window
from ranker.training.fit import TrainConfig

REPOSITORY = Path(quality_arms.__file__).parents[1]
TASKS = quality_job.TASKS


def make_split(*windows):
    """Windows as (label, start, stop)."""
    made = tuple(
        Window(label=label, start=start, stop=stop, vocabulary_sizes={})
        for label, start, stop in windows
    )
    return Split(train_before=made[0].label, windows=made, sizes={"item": 5})


def write_run(folder, rows, values, length=None):
    folder.mkdir(parents=True, exist_ok=True)
    columns = {task: pa.array(np.asarray(values, dtype=float)) for task in TASKS}
    columns |= {f"list.{task}": columns[task] for task in TASKS}
    table = pa.table({"row": pa.array(rows), **columns})
    pq.write_table(table, folder / quality_job.PREDICTIONS)
    text = json.dumps({"length": length or {}, "seconds": 1.0})
    (folder / quality_job.RESULT).write_text(text)


def test_every_arm_has_four_different_settings():
    arms = {arm.name: arm for arm in read_arms()}
    assert set(arms) == {
        *("hist_gradient_boosting", "lightgbm", "torch_rechub", "shared_bottom", "mmoe")
    }
    for arm in arms.values():
        assert len({json.dumps(settings, sort_keys=True) for settings in arm.grid}) == 4
        assert (REPOSITORY / "benchmarks" / "peers" / f"{arm.script}.py").is_file()


@pytest.mark.parametrize("name", ["mmoe", "shared_bottom"])
def test_our_settings_are_configs_of_that_bottom(name):
    (arm,) = [arm for arm in read_arms() if arm.name == name]
    config = REPOSITORY / "configs" / "train" / "kuairand.yaml"
    loaded = [
        load_config(TrainConfig, config, [f"{k}={json.dumps(v)}" for k, v in settings.items()])
        for settings in arm.grid
    ]
    assert {one.model.bottom.kind for one in loaded} == {name}
    assert len({one.model_dump_json() for one in loaded}) == 4


@pytest.fixture
def job(tmp_path):
    """Seven rows, of which two are of a judged day, the second in the list of the first."""
    table = pa.table(
        {
            "video_id": pa.array([1, 2, 3, 4, 5, 6, 7], pa.int32()),
            "history_item": pa.FixedSizeListArray.from_arrays(
                pa.array(np.arange(21, dtype=np.int32)), 3
            ),
            "age_s": pa.array([0.5, np.nan, 1, 2, 3, 4, 5], pa.float32()),
        }
    )
    pq.write_table(table, tmp_path / quality_job.FEATURES)
    labels = {task: pa.array([0.0, 1.0, 0.0, 1.0, 1.0]) for task in TASKS}
    pq.write_table(pa.table(labels), tmp_path / quality_job.LABELS)
    np.save(tmp_path / quality_job.REQUESTS, np.array([0, 1, 2, 3, 4, 4, 6]))
    layout = {
        "of_request": ["history_item", "age_s"],
        "categorical": {"video_id": "item"},
        "sequences": {"history_item": "item"},
        "numeric": ["age_s"],
        "nullable": ["age_s"],
        "fixed_sizes": {},
    }
    (tmp_path / quality_job.LAYOUT).write_text(json.dumps(layout))
    return quality_job.Job(
        folder=tmp_path,
        prepared=tmp_path,
        exported=tmp_path,
        train_before="2022-05-05",
        train_stop=4,
        stop=6,
        sizes={"item": 5},
        progressive="",
        settings={},
        length={},
        choose_length=False,
        seed=0,
        threads=1,
    )


def test_ids_that_training_had_not_seen_are_unknown(job):
    features = quality_job.read_features(job)
    assert features.categorical["video_id"].tolist() == [1, 2, 3, 4, 0, 0, 0, 0]
    history = features.sequences["history_item"]
    assert history[:3].tolist() == [[0, 1, 2], [3, 4, 0], [0, 0, 0]]
    assert np.isnan(features.numeric["age_s"]).tolist() == [False, True] + [False] * 6


def test_a_row_in_its_list_has_the_request_of_the_first(job):
    features = quality_job.read_features(dataclasses.replace(job, sizes={"item": 99}))
    assert features.categorical["video_id"].tolist() == [1, 2, 3, 4, 5, 6, 5, 6]
    assert features.numeric["age_s"][4:].tolist() == [3, 4, 3, 3]
    history = features.sequences["history_item"]
    np.testing.assert_array_equal(history[6:], history[[4, 4]])
    predictions = {task: np.array([0.1, 0.2, 0.3, 0.4]) for task in TASKS}
    quality_job.write_result(job, predictions, rows=quality_job.predicted_rows(job), length={})
    run = Run(folder=job.folder, length={}, seconds=1.0)
    assert run.predictions(start=4, stop=6)["like"].tolist() == [0.1, 0.2]
    assert run.predictions(start=4, stop=6, in_lists=True)["like"].tolist() == [0.3, 0.4]


def test_an_arm_that_chooses_its_length_is_given_no_lists(job):
    choosing = dataclasses.replace(job, choose_length=True)
    assert len(quality_job.read_features(choosing).numeric["age_s"]) == job.stop


def test_labels_of_judged_days_are_not_to_be_had(job):
    assert quality_job.read_labels(job, stop=4)["like"].tolist() == [0, 1, 0, 1]
    with pytest.raises(ValueError, match="kept away from the arms"):
        quality_job.read_labels(job, stop=6)


def test_outcome_shares_are_counted_by_hand():
    # code - 1 holds a bit for click and one for like; 0 is no element
    codes = np.zeros((3, 20), dtype=np.int32)
    codes[0, -2:] = [4, 1]  # both, then nothing
    codes[1, -6:] = [2, 1, 1, 1, 1, 3]  # click; four of nothing; like
    shares = outcome_shares(codes, outcomes=("click", "like"))
    np.testing.assert_allclose(shares["history_click_of_1"], [0, 0, np.nan])
    np.testing.assert_allclose(shares["history_click_of_5"], [1 / 2, 0, np.nan])
    np.testing.assert_allclose(shares["history_click_of_20"], [1 / 2, 1 / 6, np.nan])
    np.testing.assert_allclose(shares["history_like_of_1"], [0, 1, np.nan])
    np.testing.assert_allclose(shares["history_like_of_5"], [1 / 2, 1 / 5, np.nan])


def test_predictions_must_be_whole_and_probabilities(tmp_path):
    write_run(tmp_path, [3, 4, 5, 6], [0.1, 0.2, 0.3, 0.4])
    run = Run(folder=tmp_path, length={}, seconds=1.0)
    assert run.predictions(start=4, stop=6)["like"].tolist() == [0.2, 0.3]
    with pytest.raises(ValueError, match="not predicted once"):
        run.predictions(start=4, stop=8)
    write_run(tmp_path, [3, 4], [0.1, np.nan])
    with pytest.raises(ValueError, match="other than probabilities"):
        run.predictions(start=3, stop=5)


def test_a_kept_run_is_made_again_only_when_something_changed(tmp_path, monkeypatch):
    made = []

    def run_to_file(command, output):
        made.append(command)
        write_run(Path(command[-1]), [0], [0.5])

    monkeypatch.setattr(quality_arms, "run_to_file", run_to_file)
    store = SimpleNamespace(folder=tmp_path / "prepared", sha256_by_column={"a": "1"})
    arm = read_arms()[0]
    plan = Plan(arm=arm, split=make_split(("2022-05-05", 3, 7)), settings=arm.grid[0])
    for _ in range(2):
        Workshop(work=tmp_path, store=store, jobs=2).make([plan])
    assert len(made) == 1
    other = Plan(arm=arm, split=plan.split, settings=arm.grid[0], seed=1)
    Workshop(work=tmp_path, store=store, jobs=2).make([plan, other])
    assert len(made) == 2
    store.sha256_by_column["a"] = "2"  # other data
    Workshop(work=tmp_path, store=store, jobs=2).make([plan])
    assert len(made) == 3


class FakeWorkshop:
    """Notes the plans; every prediction tells its split's first row, but for progressive runs."""

    def __init__(self, folder, store=None, value_of=None):
        self.folder, self.store, self.plans = folder, store, []
        self._value_of = value_of or (lambda plan, rows: np.full(rows.size, 0.1))

    def make(self, plans):
        runs = []
        for plan in plans:
            folder = self.folder / str(len(self.plans))
            self.plans.append(plan)
            rows = np.arange(plan.split.start, plan.split.stop)
            values = self._value_of(plan, rows)
            if plan.progressive:
                rows = np.concatenate([[5, 6], rows])
                values = np.concatenate([[0.9, 0.9], values])
            write_run(folder, rows, values, {"epochs": 3})
            runs.append(Run(folder=folder, length={"epochs": 3}, seconds=1.0))
        return runs


def test_the_calibration_day_is_predicted_by_a_model_that_had_not_seen_it(tmp_path):
    splits = SimpleNamespace(
        calibrate=make_split(("2022-05-04", 5, 7)), judge=make_split(("2022-05-05", 7, 10))
    )
    value_by_split = {"2022-05-04": 0.4, "2022-05-05": 0.5}
    workshop = FakeWorkshop(
        tmp_path,
        value_of=lambda plan, rows: np.full(rows.size, value_by_split[plan.split.train_before]),
    )
    arms = [arm for arm in read_arms() if arm.name in ("lightgbm", "mmoe")]
    choices = {arm.name: quick_choice(arm) for arm in arms}
    found = train_finalists(workshop, arms, choices, splits, seeds=[0, 1, 2])
    assert [plan.arm.name for plan in workshop.plans].count("lightgbm") == 6
    assert [plan.arm.name for plan in workshop.plans].count("mmoe") == 3
    for name, value in {"lightgbm": 0.4, "mmoe": 0.9}.items():
        assert len(found[name].judged) == 3
        for day, judged in zip(found[name].calibration_day, found[name].judged, strict=True):
            assert day["click"].tolist() == [value] * 2
            assert judged["click"].tolist() == [0.5] * 3


def test_the_highest_mean_auc_is_chosen(tmp_path):
    rng = np.random.default_rng(0)
    split = make_split(("2022-05-03", 3, 400), ("2022-05-04", 400, 900))
    columns = {f"label.{task}": (rng.random(1_000) < 0.3).astype(float) for task in TASKS}
    columns["user"] = rng.integers(0, 17, 1_000)
    store = SimpleNamespace(
        column=lambda name: columns[name],
        schema=SimpleNamespace(
            list_by="user_window", tasks=[SimpleNamespace(name=task) for task in TASKS]
        ),
    )
    (arm,) = [arm for arm in read_arms() if arm.name == "torch_rechub"]
    noise = dict(zip(map(json.dumps, arm.grid), (2.0, 0.5, 4.0, 3.0), strict=True))

    def value_of(plan, rows):
        scale = noise[json.dumps(plan.settings)]
        signal = columns["label.click"][rows] + scale * np.random.default_rng(1).normal(
            size=rows.size
        )
        return 1 / (1 + np.exp(-signal))

    workshop = FakeWorkshop(tmp_path, store=store, value_of=value_of)
    choice = choose(workshop, [arm], split)["torch_rechub"]
    assert choice.settings == arm.grid[1]
    assert choice.length == {"epochs": 3}
    assert {plan.seed for plan in workshop.plans} == {0}
    expected = roc_auc_score(
        columns["label.click"][3:900], value_of(workshop.plans[1], np.arange(3, 900))
    )
    assert choice.candidates[1].auc["click"] == pytest.approx(expected)


def make_figures(differences):
    figures = {
        f"ece_calibrated_{task}_{arm}": Figure(value=0.005 if arm == "mmoe" else 0.02)
        for task in TASKS
        for arm in ("mmoe", *differences)
    }
    for arm, (low, high) in differences.items():
        for task in TASKS:
            figure = Figure(value=(low + high) / 2, ci_low=low, ci_high=high)
            figures[f"auc_{task}_mmoe_minus_{arm}"] = figure
    return figures


def test_a_claim_must_hold_against_every_arm():
    differences = {
        "hist_gradient_boosting": (0.001, 0.004),
        "lightgbm": (-0.004, 0.006),
        "torch_rechub": (0.002, 0.007),
    }
    holds = {one.claim: one.holds for one in verdicts_of(make_figures(differences))}
    assert not holds["click: AUC non-inferior to every arm, margin 0.003"]  # lightgbm's -.004
    assert holds["like: AUC non-inferior to every arm, margin 0.01"]
    assert holds["like: AUC better than torch-rechub"]
    assert not holds["like: AUC better than boosting"]  # than one of the two only
    assert holds["click: ECE after calibration below 0.01"]
