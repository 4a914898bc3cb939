"""Whole passes over workload A: test AUC of every arm, and how soon a given AUC is reached.

`ranker` and the reference make a pass for every seed, the others, which are far below, for the
first one.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from arms import OURS, ArmError, Run, RunPlan, has_peer, prepare, run_arm
from auc import (
    FloatArray,
    TestRows,
    bootstrap_auc,
    interval_figure,
    read_predictions,
    read_test_rows,
)
from make_data import TRAIN_DAYS
from record import Figure, median_figure, progress, ratio_figure

BATCH = 4_096
TIME_BATCH = 1_024  # of `ranker` on its way to an AUC, chosen on the ninth day with the rates
REFERENCE = "torch_rechub"
BOOSTING = "lightgbm"
BOOTSTRAP_SEED = 0


def quality_figures(
    data: Path, work: Path, *, arms: Sequence[str], seeds: Sequence[int]
) -> tuple[dict[str, Figure], dict[str, object]]:
    """Figures of the whole passes, and all that was measured."""
    document = json.loads((data / "data.json").read_text())
    rows = _judged_rows(data)
    # the plain loop has no quality of its own: it exists for its speed
    judged = [arm for arm in arms if arm != "plain_loop"]
    judged += [BOOSTING] if has_peer(BOOSTING) else []
    runs, failures = _whole_passes(data, work, judged, seeds)
    figures = {
        f"best_possible_auc_{task}": Figure(value=document["bayes_auc_test"][task])
        for task in rows.labels
    }
    figures |= auc_figures(runs, rows)
    # no figures: these runs don't take turns, so their rates can't be compared
    details: dict[str, object] = {
        "timings": {arm: [run.timing for run in made] for arm, made in runs.items()},
        "failures": failures,
    }
    return figures, details


def time_figures(
    data: Path, work: Path, *, seeds: Sequence[int]
) -> tuple[dict[str, Figure], dict[str, object]]:
    """Wall time to the reference's AUC, and how it came about."""
    rows = _judged_rows(data)
    reference, failures = _whole_passes(data, work, [REFERENCE], seeds)
    if failures:
        raise ArmError(f"{REFERENCE}: {failures[REFERENCE]}")
    figures, reached = time_to_auc(data, work, rows, reference[REFERENCE], seeds)
    return figures, {"settings": list(time_settings(work)), "seeds": reached}


def auc_figures(runs: Mapping[str, Sequence[Run]], rows: TestRows) -> dict[str, Figure]:
    """AUC of every arm by task, mean over seeds, and `ranker`'s less each other arm's, paired."""
    samples = {
        arm: bootstrap_auc(
            rows,
            [read_predictions(run.predictions, rows) for run in made],
            rng=np.random.default_rng(BOOTSTRAP_SEED),  # the same users for every arm
        )
        for arm, made in runs.items()
    }
    figures = {}
    for task in rows.labels:
        for arm, by_task in samples.items():
            figures[f"auc_{task}_{arm}"] = interval_figure(by_task[task])
            if arm != "ranker" and "ranker" in samples:
                difference = samples["ranker"][task] - by_task[task]
                figures[f"auc_{task}_ranker_minus_{arm}"] = interval_figure(difference)
    return figures


def time_to_auc(
    data: Path, work: Path, rows: TestRows, reference: Sequence[Run], seeds: Sequence[int]
) -> tuple[dict[str, Figure], list[dict[str, object]]]:
    """Wall time from raw Parquet until `ranker` has the reference's one-pass AUC on both tasks.

    For each seed `ranker` is trained on the last k train days, k = 1, 2, ..., until its test AUC is
    not below the reference's on any task; its time is that of `prepare` (the whole log) and of that
    one training, imports included. The reference's is from its start to its last step. Each trains
    at the batch that suits it: the reference at that of the whole passes, where it is fastest.
    Neither predicts validation rows before its last step.
    """
    prepare_s = prepare(data)
    overrides = time_settings(work)
    rates = []
    ours, theirs, details = [], [], []
    for seed, run in zip(seeds, reference, strict=True):
        wanted = _aucs(run, rows)
        for days in range(1, TRAIN_DAYS + 1):
            progress(f"time to AUC, seed {seed}: ranker on {days} days")
            plan = RunPlan(
                arm="ranker",
                data=data,
                batch=TIME_BATCH,
                seed=seed,
                train_days=days,
                overrides=overrides,
            )
            trial = run_arm(plan, work / f"days_{days}_{seed}")
            got = _aucs(trial, rows)
            if all(got[task] >= wanted[task] for task in wanted):
                ours.append(prepare_s + trial.timing["saved_s"])
                rates.append(trial.timing["examples_per_s"])
                theirs.append(run.timing["trained_s"])
                break
        details.append({"seed": seed, "days": days, "wanted": wanted, "got": got})
    if len(ours) < len(details):  # not reached within the train days for some seed
        return {"time_to_auc_ranker_over_reference": Figure(value=None)}, details
    return {
        "time_to_auc_ranker_s": median_figure(ours),
        "time_to_auc_ranker_examples_per_s": median_figure(rates),
        f"time_to_auc_{REFERENCE}_s": median_figure(theirs),
        "time_to_auc_ranker_over_reference": ratio_figure(ours, theirs),
    }, details


def time_settings(work: Path) -> tuple[str, ...]:
    """Overrides on the way to an AUC: what `ranker doctor` found to pay, measured once a contest.

    Of its recommendations only the precision: the others were chosen with the rates.
    """
    kept = work / "doctor.json"
    if not kept.is_file():
        progress("ranker doctor")
        command = [sys.executable, "-m", "pipelines.cli", "doctor"]
        command += ["--measure", "quick", "--json"]
        # it exits with 4 where it finds problems, and still says what it measured
        found = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
        kept.write_text(found.stdout)
    recommended = json.loads(kept.read_text())["recommended"] or {}
    precision = recommended.get("precision", "fp32")
    return (f"precision={precision}", "progressive_validation=false")


def _judged_rows(data: Path) -> TestRows:
    document = json.loads((data / "data.json").read_text())
    tasks = [task["name"] for task in document["tasks"]]
    return read_test_rows(data, tasks=tasks, test_from_ms=document["test_from_ms"])


def _whole_passes(
    data: Path, work: Path, arms: Sequence[str], seeds: Sequence[int]
) -> tuple[dict[str, list[Run]], dict[str, str]]:
    """Runs by arm, one a seed, and why an arm that failed has none."""
    runs: dict[str, list[Run]] = {arm: [] for arm in arms}
    failures: dict[str, str] = {}
    for seed in seeds:
        for arm in list(runs):
            if seed != seeds[0] and arm not in ("ranker", REFERENCE):
                continue
            progress(f"whole pass, seed {seed}: {arm}")
            plan = RunPlan(arm=arm, data=data, batch=BATCH, seed=seed)
            try:
                runs[arm].append(run_arm(plan, work / f"pass_{arm}_{seed}"))
            except ArmError as error:
                if arm in OURS:
                    raise
                failures[arm] = str(error).partition("\n")[0]
                del runs[arm]
    return runs, failures


def _aucs(run: Run, rows: TestRows) -> dict[str, float]:
    from sklearn.metrics import roc_auc_score

    predictions: Mapping[str, FloatArray] = read_predictions(run.predictions, rows)
    return {
        task: float(roc_auc_score(labels, predictions[task]))
        for task, labels in rows.labels.items()
    }
