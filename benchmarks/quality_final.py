"""The final: the chosen rankers, each seed trained anew, calibrated, and judged on days unseen.

Only `judge` reads labels of the judged days.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from peers.quality_job import TASKS
from quality_arms import Arm, Plan, Predictions, Workshop
from quality_calibration import METHODS
from quality_choice import Choice, choose_calibration
from quality_data import Split, Splits
from quality_intervals import JudgedTask, Predicted, Sample, average_over_seeds, sample_metrics

from ranker.data.store import EncodedStore
from ranker.evaluation.baseline_predictions import LINEAR, USER_ITEM_RATE, fit_baselines
from ranker.evaluation.list_moment import request_rows
from ranker.evaluation.rows import EvaluationRows, read_rows

REFERENCES = {LINEAR: "logistic_regression", USER_ITEM_RATE: "smoothed_rates"}
RAW, CALIBRATED = "raw", "calibrated"
ByTask = Mapping[str, Predicted]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finalist:
    """What one arm predicts, by seed: the calibration day, the judged days, and these in lists."""

    calibration: str
    calibration_day: Sequence[Predictions]
    judged: Sequence[Predictions]
    in_lists: Sequence[Predictions]


def train_finalists(
    workshop: Workshop,
    arms: Sequence[Arm],
    choices: Mapping[str, Choice],
    splits: Splits,
    *,
    seeds: Sequence[int],
) -> dict[str, Finalist]:
    """Train every arm's choice with every seed; the calibration day is predicted before it is seen.

    A progressive arm predicts it on its way through the days, for another a model is trained that
    ends before it.
    """
    plans = {
        (arm.name, seed, split.train_before): Plan(
            arm=arm,
            split=split,
            settings=choices[arm.name].settings,
            seed=seed,
            length=choices[arm.name].length,
            progressive=splits.calibrate.train_before if arm.is_progressive else "",
        )
        for arm in arms
        for seed in seeds
        for split in ((splits.judge,) if arm.is_progressive else (splits.calibrate, splits.judge))
    }
    made = dict(zip(plans, workshop.make(list(plans.values())), strict=True))
    finalists = {}
    for arm in arms:
        before = splits.judge if arm.is_progressive else splits.calibrate
        day, judged = splits.calibrate, splits.judge
        judged_runs = [made[arm.name, seed, judged.train_before] for seed in seeds]
        finalists[arm.name] = Finalist(
            calibration=choices[arm.name].calibration,
            calibration_day=[
                made[arm.name, seed, before.train_before].predictions(
                    start=day.start, stop=day.stop
                )
                for seed in seeds
            ],
            judged=[run.predictions(start=judged.start, stop=judged.stop) for run in judged_runs],
            in_lists=[
                run.predictions(start=judged.start, stop=judged.stop, in_lists=True)
                for run in judged_runs
            ],
        )
    return finalists


def reference_finalists(store: EncodedStore, splits: Splits) -> dict[str, Finalist]:
    """Logistic regression and smoothed rates: nothing to choose, no seed."""
    by_split = {
        name: _predict_references(store, split)
        for name, split in (("choose", splits.choose), ("day", splits.calibrate))
    }
    judged = _predict_references(store, splits.judge)
    in_lists = _predict_references(store, splits.judge, in_lists=True)
    rows = read_rows(store, splits.choose.windows)
    fit_rows = splits.choose.windows[0].num_rows
    finalists = {}
    for name in judged:
        method, _ = choose_calibration(by_split["choose"][name], rows, fit_rows=fit_rows)
        finalists[name] = Finalist(
            calibration=method,
            calibration_day=[by_split["day"][name]],
            judged=[judged[name]],
            in_lists=[in_lists[name]],
        )
    return finalists


def _predict_references(
    store: EncodedStore, split: Split, *, in_lists: bool = False
) -> dict[str, Predictions]:
    earlier = read_rows(store, store.windows_between(None, split.train_before))
    rows = read_rows(store, split.windows)
    unlabelled = EvaluationRows(
        start=rows.start, stop=rows.stop, labels={}, users=rows.users, lists=rows.lists
    )
    requests = request_rows(store, rows) if in_lists else None
    found = fit_baselines(store, earlier, seed=0).predict(store, unlabelled, requests=requests)
    return {
        name: {task: found[task][baseline] for task in TASKS}
        for baseline, name in REFERENCES.items()
    }


def calibrate(
    store: EncodedStore, finalists: Mapping[str, Finalist], split: Split
) -> dict[str, list[ByTask]]:
    """The judged days' predictions, corrected by what happened on the calibration day."""
    labels = read_rows(store, split.windows[-1:]).labels
    calibrated: dict[str, list[ByTask]] = {}
    for name, finalist in finalists.items():
        fit, calibrated[name] = METHODS[finalist.calibration], []
        for day, by_task in zip(finalist.calibration_day, raw(finalist), strict=True):
            correct = {task: fit(labels[task], day[task]) for task in TASKS}
            calibrated[name].append(
                {
                    task: Predicted(*(correct[task](values) for values in predicted))
                    for task, predicted in by_task.items()
                }
            )
    return calibrated


def raw(finalist: Finalist) -> list[ByTask]:
    """The judged days' predictions as they are, by seed."""
    return [
        {task: Predicted(own=own[task], in_lists=in_lists[task]) for task in TASKS}
        for own, in_lists in zip(finalist.judged, finalist.in_lists, strict=True)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Metrics of every arm: task -> raw or calibrated -> arm -> metric."""

    samples: Mapping[str, Mapping[str, Mapping[str, Mapping[str, Sample]]]]
    rows: int
    users: int
    positives: Mapping[str, int]


def judge(
    store: EncodedStore,
    finalists: Mapping[str, Finalist],
    splits: Splits,
    *,
    num_replicates: int,
    seed: int,
) -> Judgement:
    """Look at the judged days, once, with everything decided."""
    by_state = {
        RAW: {name: raw(finalist) for name, finalist in finalists.items()},
        CALIBRATED: calibrate(store, finalists, splits.calibrate),
    }
    rows = read_rows(store, splits.judge.windows)
    return Judgement(
        samples={
            task: {
                state: _sample(rows, task, by_arm, num_replicates=num_replicates, seed=seed)
                for state, by_arm in by_state.items()
            }
            for task in TASKS
        },
        rows=rows.stop - rows.start,
        users=int(np.unique(rows.users).size),
        positives={task: int(rows.labels[task].sum()) for task in TASKS},
    )


def _sample(
    rows: EvaluationRows,
    task: str,
    predictions_by_arm: Mapping[str, Sequence[ByTask]],
    *,
    num_replicates: int,
    seed: int,
) -> dict[str, dict[str, Sample]]:
    """Arm -> metric, each arm with its own draws of seeds under everybody's draws of users."""
    found = sample_metrics(
        JudgedTask(labels=rows.labels[task], users=rows.users, lists=rows.lists),
        {arm: [one[task] for one in by_seed] for arm, by_seed in predictions_by_arm.items()},
        num_replicates=num_replicates,
        rng=np.random.default_rng(seed),
    )
    return {
        arm: {
            metric: average_over_seeds(
                samples, metric=metric, rng=np.random.default_rng([seed, place])
            )
            for metric, samples in by_metric.items()
        }
        for place, (arm, by_metric) in enumerate(found.items())
    }
