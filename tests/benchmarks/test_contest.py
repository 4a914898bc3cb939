import json
import os
import subprocess
import sys
from pathlib import Path

import arms
import auc
import numpy as np
import pandas as pd
import pytest
import torch
import training
import whole_pass
from roofline import mmoe_multiplications
from sklearn.metrics import roc_auc_score
from torch.utils.flop_counter import FlopCounterMode
from training import Contest, Rounds, interleave, speed_figures

from ranker.models.layers import LayerStyle
from ranker.models.mmoe import MMoE
from ranker.models.towers import Towers

BENCHMARKS = Path(arms.__file__).parent
TASKS = ["engage", "satisfy"]


def make_run(folder, *, examples_per_s=1.0):
    timing = {"examples_per_s": examples_per_s, "trained_s": 30.0, "saved_s": 4.0}
    return arms.Run(wall_s=5.0, peak_memory_mb=7.0, timing=timing, folder=folder)


def test_the_fastest_peer_is_the_fastest_of_each_round(tmp_path):
    rate = {"ranker": [30.0, 60.0, 90.0], "one": [10.0, 30.0, 20.0], "two": [15.0, 20.0, 45.0]}
    runs = {
        arm: [make_run(tmp_path, examples_per_s=value) for value in values]
        for arm, values in rate.items()
    }
    figures = dict(speed_figures("a", Rounds(runs=runs, failures={})))
    assert figures["a_ranker_over_fastest_peer"].value == 2.0  # 30/15, 60/30, 90/45
    assert figures["a_ranker_over_one"].value == 3.0  # 3, 2, 4.5


@pytest.mark.parametrize(("limit_steps", "rows", "examples"), [(0, 1_150, 850), (12, 9_999, 900)])
def test_a_rate_counts_the_rows_after_the_warm_up(
    tmp_path, monkeypatch, limit_steps, rows, examples
):
    monkeypatch.syspath_prepend(str(BENCHMARKS / "peers"))
    import protocol

    arguments = protocol.Arguments(
        data=tmp_path,
        output=tmp_path,
        batch=100,
        threads=1,
        seed=0,
        limit_steps=limit_steps,
        train_days=8,
    )
    clock = iter([protocol.STARTED_S + 3.0 * number for number in range(12)])
    monkeypatch.setattr(protocol.time, "perf_counter", lambda: next(clock))
    stopwatch = protocol.Stopwatch(arguments)
    try:
        for _ in range(12):  # the last of 12 batches holds 50 rows, unless the run is cut short
            stopwatch.step()
    except protocol.StepLimitError:
        assert limit_steps == 12
    stopwatch.save(rows=rows)
    timing = json.loads((tmp_path / "timing.json").read_text())
    assert timing["steps"] == 12
    # three of twelve steps are warm-up: nothing before the end of the third counts
    assert timing["examples_per_s"] == pytest.approx(examples / (9 * 3.0))


def test_a_failed_process_says_what_it_printed_last(tmp_path):
    command = [sys.executable, "-c", "print('read half'); raise SystemExit(3)"]
    with pytest.raises(arms.ArmError, match=r"exited with 3:\nread half"):
        arms.run_process(command, tmp_path / "output.txt", threads=1)


def test_memory_of_child_processes_counts(tmp_path):
    child = "import time; block = bytearray(90_000_000); time.sleep(2.5)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    wall_s, peak_mb = arms.run_process(
        [sys.executable, "-c", code], tmp_path / "output.txt", threads=1
    )
    assert wall_s > 2.5
    assert 85 < peak_mb < 250


def test_a_run_that_is_there_is_not_made_again(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    kept = {"wall_s": 5.0, "peak_memory_mb": 7.0, "timing": {"steps": 11}}
    (folder / arms.RUN_FILE).write_text(json.dumps(kept))
    plan = arms.RunPlan(arm="no_such_arm", data=tmp_path, batch=11)
    assert arms.run_arm(plan, folder).timing == {"steps": 11}


def test_a_failure_that_is_there_is_not_tried_again(tmp_path):
    (tmp_path / arms.FAILURE_FILE).write_text("exited with -9")
    plan = arms.RunPlan(arm="no_such_arm", data=tmp_path, batch=11)
    with pytest.raises(arms.ArmError, match="exited with -9"):
        arms.run_arm(plan, tmp_path)


def test_an_arm_that_fails_late_is_left_out_with_what_it_had_done(tmp_path, monkeypatch):
    def run_arm(plan, folder):
        if plan.arm == "weak" and folder.name.endswith("_1"):
            raise arms.ArmError("killed")
        return make_run(folder)

    monkeypatch.setattr(training, "run_arm", run_arm)
    contest = Contest(work=tmp_path, arms=("ranker", "weak"), rounds=3)
    plans = [arms.RunPlan(arm=arm, data=tmp_path, batch=11) for arm in contest.arms]
    rounds = interleave(contest, "b", plans)
    assert (len(rounds.runs["ranker"]), [*rounds.runs]) == (3, ["ranker"])
    assert rounds.failures == {"weak": "killed"}
    assert len(rounds.unfinished["weak"]) == 1


def write_predictions(folder, rows, *, noise, rng):
    """Predictions of ``rows`` in another order, the worse the more noise."""
    folder.mkdir()
    table = pd.DataFrame({"time_ms": rows.time_ms})
    for task, labels in rows.labels.items():
        table[task] = 1 / (1 + np.exp(-labels - noise * rng.normal(size=len(labels))))
    table.sample(frac=1, random_state=0).to_parquet(folder / "predictions.parquet")
    return make_run(folder)


@pytest.fixture
def judged_rows():
    rng = np.random.default_rng(1)
    return auc.TestRows(
        time_ms=np.arange(1_009) * 7,
        users=rng.integers(0, 211, 1_009),
        labels={task: (rng.random(1_009) < 0.3).astype(float) for task in TASKS},
    )


def test_auc_figures_are_scikit_learn_s_and_differences_are_paired(tmp_path, judged_rows):
    rng = np.random.default_rng(2)
    runs = {
        arm: [
            write_predictions(tmp_path / f"{arm}_{seed}", judged_rows, noise=noise, rng=rng)
            for seed in range(2)
        ]
        for arm, noise in (("ranker", 0.8), ("peer", 3.0))
    }
    figures = whole_pass.auc_figures(runs, judged_rows)
    expected = {}
    for arm, made in runs.items():
        values = []
        for run in made:
            table = pd.read_parquet(run.predictions).sort_values("time_ms")
            values.append(roc_auc_score(judged_rows.labels["satisfy"], table["satisfy"]))
        expected[arm] = np.mean(values)
        assert figures[f"auc_satisfy_{arm}"].value == pytest.approx(expected[arm], abs=1e-12)
    difference = figures["auc_satisfy_ranker_minus_peer"]
    assert difference.value == pytest.approx(expected["ranker"] - expected["peer"], abs=1e-12)
    assert 0 < difference.ci_low < difference.value < difference.ci_high


def test_predictions_of_other_rows_are_refused(tmp_path, judged_rows):
    run = write_predictions(tmp_path / "run", judged_rows, noise=1.0, rng=np.random.default_rng(0))
    pd.read_parquet(run.predictions)[1:].to_parquet(run.predictions)
    with pytest.raises(ValueError, match="every test row exactly once"):
        auc.read_predictions(run.predictions, judged_rows)


def test_time_to_auc_takes_the_fewest_days_that_reach_it(tmp_path, judged_rows, monkeypatch):
    rng = np.random.default_rng(3)
    reference = write_predictions(tmp_path / "reference", judged_rows, noise=1.5, rng=rng)
    noise_by_days = {1: 6.0, 2: 4.0, 3: 0.5, 4: 0.4}
    trained = []
    (tmp_path / "doctor.json").write_text('{"recommended": {"precision": "bf16", "threads": 2}}')

    def run_arm(plan, folder):
        trained.append(plan.train_days)
        assert plan.overrides == ("precision=bf16", "progressive_validation=false")
        return write_predictions(folder, judged_rows, noise=noise_by_days[plan.train_days], rng=rng)

    monkeypatch.setattr(whole_pass, "run_arm", run_arm)
    monkeypatch.setattr(whole_pass, "prepare", lambda data: 2.0)
    figures, details = whole_pass.time_to_auc(tmp_path, tmp_path, judged_rows, [reference], [0])
    assert trained == [1, 2, 3]
    assert details[0]["days"] == 3
    assert figures["time_to_auc_ranker_s"].value == 2.0 + 4.0
    assert figures["time_to_auc_ranker_over_reference"].value == pytest.approx(6.0 / 30.0)


def test_multiplications_are_those_that_our_own_model_counts():
    style = LayerStyle()
    bottom = MMoE(
        in_width=23,
        shared_widths=[],
        num_experts=5,
        expert_widths=[13, 7],
        tasks=TASKS,
        style=style,
    )
    towers = Towers(in_width=7, widths=[3], initial_logits=dict.fromkeys(TASKS, 0.0), style=style)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        towers(bottom.eval()(torch.zeros(11, 23)))
    counted = mmoe_multiplications(
        in_width=23, num_experts=5, expert_widths=(13, 7), tower_widths=(3,), num_tasks=2
    )
    assert counted == counter.get_total_flops() // 2 // 11


@pytest.mark.slow
def test_a_quick_contest_prints_one_json_object(tmp_path):
    command = [sys.executable, str(BENCHMARKS / "training.py"), "--quick", "--work", str(tmp_path)]
    result = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ}, timeout=300
    )
    record = json.loads(result.stdout)
    assert set(record) >= {"benchmark", "machine", "figures"}
    figures = record["figures"]
    ours = figures["a_1024_ranker_examples_per_s"]["value"]
    plain = figures["a_1024_plain_loop_examples_per_s"]["value"]
    assert figures["a_1024_ranker_over_plain_loop"]["value"] == pytest.approx(ours / plain)
    assert all(set(figure) == {"value", "ci_low", "ci_high"} for figure in figures.values())
