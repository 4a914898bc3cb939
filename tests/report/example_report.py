"""A report like a real one: nine tasks, five experts, thirteen windows. The numbers are made up."""

from dataclasses import replace

import numpy as np

from ranker.report.content import (
    CalibrationBin,
    Comparison,
    Cost,
    DataSummary,
    Estimate,
    ExperimentSummary,
    ExpertUtilization,
    Fact,
    LabelSummary,
    LiftRow,
    ModelMetrics,
    Provenance,
    Quarantine,
    ReportContent,
    SlateExample,
    SlateItem,
    Stage,
    TaskCalibration,
    TaskExperts,
    TaskMetrics,
    TaskProgress,
    WindowRows,
    WindowValue,
)

# task, family, kind, rate or mean, headline value of our model
TASKS = [
    ("click", "engagement", "binary", 0.372, 0.759),
    ("long_view", "engagement", "binary", 0.261, 0.757),
    ("watch_time_s", "engagement", "regression", 11.83, 0.688),
    ("like", "satisfaction", "binary", 0.0142, 0.893),
    ("profile_enter", "satisfaction", "binary", 0.0061, 0.761),
    ("comment", "satisfaction", "binary", 0.0023, 0.774),
    ("follow", "satisfaction", "binary", 0.0021, 0.716),
    ("forward", "satisfaction", "binary", 0.0017, 0.702),
    ("hate", "satisfaction", "binary", 0.0003, None),
]
OURS, LOGISTIC, RATES = "MMoE, 5 experts", "Logistic regression", "Smoothed rates"
WINDOWS = [f"2022-{4 + day // 31:02d}-{day % 31 + day // 31:02d}" for day in range(25, 39)]
# Would run a script, load a picture or end the script element, were it not escaped.
HOSTILE = "</script><script>alert(1)</script><img src=http://evil.example/x onerror='a()'>\"&amp;"
FEW = "5 positives, fewer than 20"


def around(value: float, half_width: float) -> Estimate:
    return Estimate(value=value, ci_low=value - half_width, ci_high=value + half_width)


def example_report() -> ReportContent:
    rng = np.random.default_rng(5)
    return ReportContent(
        title="KuaiRand sample: MMoE against its baselines",
        subtitle="Short-video log, 2022-04-25 to 2022-05-08; tested on the last four days",
        created_by="Created by ranker 0.1.0 on 2025-03-02 at 14:07 UTC",
        headlines=(
            "Beats logistic regression on click (+.012 [.009, .015]), and on like.",
            "Cannot be told from logistic regression on forward; hate has too few positives.",
            "Calibrated within 3 % on every engagement task.",
        ),
        data=_data(rng),
        metrics=tuple(_task_metrics(*task) for task in TASKS),
        progress=tuple(_progress(rng, name, value) for name, *_, value in TASKS if value),
        calibration=tuple(_calibration(rng, n, kind, mean) for n, _, kind, mean, _ in TASKS[:8]),
        experts=ExpertUtilization(tasks=tuple(_experts(rng, name) for name, *_ in TASKS)),
        experiment=_experiment(),
        cost=Cost(
            embedding_parameters=1_482_304,
            dense_parameters=212_873,
            multiplications_per_example=208_640,
            train_rows=51_207,
            train_examples_per_s=18_340.7,
            peak_memory_mib=1_412.3,
            stages=tuple(
                Stage(name=name, wall_s=wall_s)
                for name, wall_s in [
                    ("prepare", 11.2),
                    ("train", 38.9),
                    ("evaluate", 14.6),
                    ("candidates", 5.1),
                    ("score", 3.4),
                    ("simulate", 41.7),
                ]
            ),
        ),
        slates=(_slate("u1042 · 2022-05-05", 3), _slate("u77 · 2022-05-06", 4)),
        provenance=Provenance(
            facts=(
                Fact(name="seed", value="17"),
                Fact(name="bundle", value="sha256 " + "9f3c41d07be2a685" * 4),
                Fact(name="log", value="sha256 " + "07be2a6859f3c41d" * 4),
                Fact(name="runtime", value="Python 3.12, torch 2.13.0, 2 threads"),
            ),
            config_yaml="model:\n  kind: mmoe\n  num_experts: 5\n  expert_dropout: 0.1\nseed: 17\n",
        ),
    )


def hostile_report(text: str) -> ReportContent:
    """The example with ``text`` wherever a caller's text can stand."""
    example = example_report()
    estimate = around(0.7, 0.01)
    item = SlateItem(rank=1, item=text, score=1.0, prediction_by_task={text: 0.3}, sources=text)
    return replace(
        example,
        title=text,
        subtitle=text,
        created_by=text,
        headlines=(text,),
        data=replace(
            example.data,
            quarantined=[Quarantine(reason=text, rows=3)],
            windows=[WindowRows(label=text, rows=5)],
        ),
        metrics=[
            TaskMetrics(
                task=text,
                family="engagement",
                rows=11,
                positives=7,
                headline_metric=text,
                models=[
                    ModelMetrics(model=text, metrics={text: estimate}),
                    ModelMetrics(
                        model=text + "b", metrics={text: Estimate(value=None, reason=text + "r")}
                    ),
                ],
                comparisons=[
                    Comparison(baseline=text + "b", difference=estimate, verdict="better")
                ],
            )
        ],
        progress=[
            TaskProgress(
                task=text, metric=text, windows=[WindowValue(window=text, estimate=estimate)]
            )
        ],
        calibration=[replace(example.calibration[0], task=text, unit=text)],
        experts=ExpertUtilization(tasks=[TaskExperts(task=text, weights=(0.9, 0.1), alarm=text)]),
        experiment=replace(
            example.experiment,
            control=text,
            treatment=text,
            conclusion=text,
            banner=text,
            notes=[text],
            lifts=[replace(example.experiment.lifts[0], metric=text)],
        ),
        slates=[SlateExample(request=text, user=text, items=[item])],
        provenance=Provenance(config_yaml=text),
    )


def _data(rng: np.random.Generator) -> DataSummary:
    splits = ["train"] * 8 + ["validation"] * 2 + ["test"] * 4
    rows = rng.integers(3_400, 4_900, size=len(WINDOWS))
    return DataSummary(
        rows_read=57_061,
        rows_kept=55_719,
        exact_duplicates=1_329,
        users=5_903,
        items=6_871,
        quarantined=(
            Quarantine(reason="play_time_ms is negative", rows=9),
            Quarantine(reason="time_ms is before 2000-01-01", rows=4),
        ),
        windows=tuple(
            WindowRows(label=label, rows=int(num), split=split)
            for label, num, split in zip(WINDOWS, rows, splits, strict=True)
        ),
        labels=tuple(
            LabelSummary(
                task=name,
                family=family,
                kind=kind,
                observed_rows=55_719,
                positives=round(55_719 * mean) if kind == "binary" else None,
                mean=mean,
            )
            for name, family, kind, mean, _ in TASKS
        ),
    )


def _task_metrics(name, family, kind, mean, value) -> TaskMetrics:
    metric = "auc" if kind == "binary" else "xauc"
    width = 0.0025 if mean > 0.1 else 0.0008 / mean**0.5
    models = []
    for model, behind in ((OURS, 0.0), (LOGISTIC, 0.012), (RATES, 0.031)):
        headline = (
            Estimate(value=None, reason=FEW) if value is None else around(value - behind, width)
        )
        other = (
            {
                "gauc": around(0.628 - behind, 0.004),
                "log_loss": around(0.552 + behind, 0.005),
                "normalized_entropy": around(0.861 + behind, 0.006),
                "calibration_ratio": around(1.018 + behind, 0.011),
                "ece": around(0.0092, 0.002),
                "ndcg@10": around(0.713 - behind, 0.007),
            }
            if kind == "binary"
            else {"mae": around(9.41 + behind, 0.12), "rmse": around(21.9 + behind, 0.61)}
        )
        models.append(ModelMetrics(model=model, metrics={metric: headline, **other}))
    comparisons = []
    for baseline, ahead in ((LOGISTIC, 0.012), (RATES, 0.031)):
        half = width * 0.7
        difference = Estimate(value=None, reason=FEW) if value is None else around(ahead, half)
        verdict = "better" if value is not None and ahead > half else "cannot_tell"
        comparisons.append(Comparison(baseline=baseline, difference=difference, verdict=verdict))
    return TaskMetrics(
        task=name,
        family=family,
        rows=15_873,
        positives=round(15_873 * mean) if kind == "binary" else None,
        headline_metric=metric,
        models=models,
        comparisons=comparisons,
    )


def _progress(rng: np.random.Generator, name: str, value: float) -> TaskProgress:
    windows = []
    for day, label in enumerate(WINDOWS[:13]):
        learned = value - 0.11 * np.exp(-day / 2.5) + rng.normal(0, 0.004)
        missing = name == "forward" and day in (0, 5)
        windows.append(
            WindowValue(
                window=label,
                estimate=Estimate(value=None, reason=FEW)
                if missing
                else around(float(learned), 0.012),
            )
        )
    metric = "xauc" if name == "watch_time_s" else "auc"
    return TaskProgress(task=name, metric=metric, windows=windows)


def _calibration(rng: np.random.Generator, name, kind, mean) -> TaskCalibration:
    top = min(0.9, 2.2 * mean) if kind == "binary" else 2.2 * mean
    predictions = np.geomspace(mean / 6, top, 10)
    bins = []
    for i, prediction in enumerate(predictions):
        label = float(prediction * (1 + rng.normal(0, 0.06)))
        half = 0.12 * label + 0.02 * mean
        if name == "forward" and i == 0:
            label, half = 0.0, mean / 4
        bins.append(
            CalibrationBin(
                mean_prediction=float(prediction),
                mean_label=label,
                rows=1_587,
                ci_low=max(0.0, label - half),
                ci_high=label + half,
            )
        )
    unit = "" if kind == "binary" else "s"
    ratio = around(1.012, 0.021)
    return TaskCalibration(
        task=name, bins=bins, unit=unit, ratio=ratio, calibrator="calibrated (platt)"
    )


def _experts(rng: np.random.Generator, name: str) -> TaskExperts:
    if name == "hate":
        alarm = "polarized: expert 4 takes 94 %"
        return TaskExperts(task=name, weights=(0.02, 0.01, 0.02, 0.94, 0.01), alarm=alarm)
    return TaskExperts(task=name, weights=[float(w) for w in rng.dirichlet([2.0] * 5)])


def _experiment() -> ExperimentSummary:
    rows = [
        ("click", "engagement", 0.381, 0.0121, 0.0062, "better", "primary"),
        ("long_view", "engagement", 0.268, 0.0093, 0.0071, "better", ""),
        ("watch_time_s", "engagement", 11.92, 0.0184, 0.0120, "better", ""),
        ("like", "satisfaction", 0.0147, 0.0410, 0.0330, "better", "guardrail"),
        ("comment", "satisfaction", 0.0024, -0.0150, 0.0560, "cannot_tell", ""),
        ("follow", "satisfaction", 0.0012, -0.0560, 0.0470, "worse", ""),
        ("hate", "satisfaction", 0.0003, 0.0210, 0.0900, "cannot_tell", "guardrail"),
    ]
    return ExperimentSummary(
        control="Smoothed rates",
        treatment="MMoE, 5 experts",
        control_users=2_947,
        treatment_users=2_956,
        lifts=tuple(
            LiftRow(
                metric=metric,
                family=family,
                control_mean=mean,
                treatment_mean=mean * (1 + lift),
                lift=around(lift, half),
                verdict=verdict,
                role=role,
            )
            for metric, family, mean, lift, half, verdict, role in rows
        ),
        verdict="better",
        conclusion="Treatment is better on click, the primary metric; no guardrail worsened.",
        banner="Semi-synthetic: outcomes come from a response model fitted to the log, with an "
        "assumed examination curve. It ranks ideas for a live test; it does not replace one.",
        notes=(
            "Examination falls as 1 / (1 + position)^0.6: assumed, the log has no positions.",
            "The response model is gradient boosting, cross-fitted by user.",
            "Intervals include the response model’s error (refitted in every resample).",
        ),
    )


def _slate(request: str, num_items: int) -> SlateExample:
    items = [
        SlateItem(
            rank=i + 1,
            item=f"video {7_310 - 417 * i}",
            score=1.913 - 0.21 * i,
            sources="popularity, covisitation" if i % 2 else "covisitation",
            prediction_by_task={
                "click": 0.61 - 0.05 * i,
                "long_view": 0.44 - 0.04 * i,
                "watch_time_s": 21.7 - 1.9 * i,
                "like": 0.031 - 0.004 * i,
                "hate": 0.0002,
            },
        )
        for i in range(num_items)
    ]
    user = request.split(" ", maxsplit=1)[0]
    return SlateExample(request=request, user=user, items=items)
