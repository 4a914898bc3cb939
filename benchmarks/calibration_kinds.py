"""What the kinds of calibration bring on KuaiRand: the table of docs/calibration.md.

    python benchmarks/calibration_kinds.py --quick
    RANKER_DATA=DIR python benchmarks/calibration_kinds.py

For each seed and kind, `ranker train` on the days before 2022-05-03 and `ranker evaluate` on 05-03
and 05-04; the test days are not looked at. "none" leaves the regressions as they are too, the other
kinds bring them the default ratio. Intervals are those of `evaluate`, over users. By chance: the
error if every prediction of the first seed, calibrated by Platt, were exactly right.

The full run judges the whole log and the bundled sample, --quick one seed of the sample.
"""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from quality import RAW_FOLDER
from quality_data import prepare, raw_inputs, run_to_file, sample_inputs
from record import REPOSITORY, Figure, parse_arguments, progress, publish

from ranker.evaluation.binary import NUM_ECE_BINS
from ranker.evaluation.calibration import equal_mass_bins
from ranker.evaluation.metrics import sum_by

KINDS = ("none", "platt", "isotonic")
SEEDS = (0, 1, 2)
TRAIN_BEFORE, JUDGE_BEFORE = "2022-05-03", "2022-05-05"
BINARY, REGRESSION = ("click", "long_view"), "watch_time_s"
BY_CHANCE_FROM = "platt"
NUM_DRAWS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """A log to judge on; ``prefix`` begins the names of its figures, ``config`` trains on it."""

    prefix: str
    inputs: Sequence[str]
    config: str
    kinds: Sequence[str]
    seeds: Sequence[int]


def figures_of(log: Log, work: Path) -> dict[str, Figure]:
    """Train and evaluate each seed and kind."""
    data = prepare(log.inputs, work).folder
    figures: dict[str, Figure] = {}
    for seed in log.seeds:
        for kind in log.kinds:
            progress(f"{log.prefix or 'whole log, '}{kind}, seed {seed}")
            run = work / f"{kind}_{seed}"
            shutil.rmtree(run, ignore_errors=True)
            train_and_evaluate(log, data, run, kind=kind, seed=seed)
            figures |= _figures_of_run(log.prefix, run, kind=kind, seed=seed)
            if kind == BY_CHANCE_FROM and seed == log.seeds[0]:
                figures |= _figures_by_chance(log.prefix, run)
    return figures


def train_and_evaluate(log: Log, data: Path, run: Path, *, kind: str, seed: int) -> None:
    """Leave RUN/metrics.json and RUN/predictions.parquet."""
    ranker = (sys.executable, "-m", "pipelines.cli")
    regression = "none" if kind == "none" else "ratio"
    train = [
        *(*ranker, "train", "--data", str(data)),
        *("--config", str(REPOSITORY / "configs" / "train" / log.config)),
        *("--set", f"before_window={TRAIN_BEFORE}", "--set", f"calibration.kind={kind}"),
        *("--set", f"calibration.regression={regression}"),
        *("--seed", str(seed), "--output", str(run)),
    ]
    evaluate = [
        *(*ranker, "evaluate", "--bundle", str(run / "bundle"), "--data", str(data)),
        *("--from", TRAIN_BEFORE, "--before", JUDGE_BEFORE, "--output", str(run)),
    ]
    run_to_file(train, run.with_suffix(".train.txt"))
    run_to_file(evaluate, run.with_suffix(".evaluate.txt"))


def error_by_chance(
    predictions: npt.NDArray[np.float64], *, num_draws: int, rng: np.random.Generator
) -> Figure:
    """Calibration error of right predictions [N]: the mean over drawn labels, 95 % of the draws."""
    bins = equal_mass_bins(predictions, NUM_ECE_BINS)
    errors = np.empty(num_draws)
    for draw in range(num_draws):
        labels = rng.random(predictions.size) < predictions
        errors[draw] = np.abs(sum_by(bins, predictions - labels, NUM_ECE_BINS)).sum()
    errors /= predictions.size
    low, high = np.quantile(errors, (0.025, 0.975))
    return Figure(value=float(errors.mean()), ci_low=float(low), ci_high=float(high))


def _figures_of_run(prefix: str, run: Path, *, kind: str, seed: int) -> dict[str, Figure]:
    metrics = json.loads((run / "metrics.json").read_text())
    tasks = metrics["tasks"]
    wanted = [(metric, task) for metric in ("ece", "auc") for task in BINARY]
    wanted += [(metric, REGRESSION) for metric in ("calibration_ratio", "rmse", "mae")]
    figures = {f"{prefix}judged_rows": Figure(value=metrics["split"]["rows"])}
    for metric, task in wanted:
        one = tasks[task][metric]
        figures[f"{prefix}{metric}_{task}_{kind}_seed_{seed}"] = Figure(
            value=one["value"], ci_low=one["ci_low"], ci_high=one["ci_high"]
        )
    return figures


def _figures_by_chance(prefix: str, run: Path) -> dict[str, Figure]:
    table = pq.read_table(run / "predictions.parquet", columns=list(BINARY))
    return {
        f"{prefix}ece_{task}_by_chance": error_by_chance(
            table.column(task).to_numpy(), num_draws=NUM_DRAWS, rng=np.random.default_rng(0)
        )
        for task in BINARY
    }


def main() -> None:
    """Judge the kinds and publish."""
    arguments = parse_arguments("calibration_kinds", description=__doc__)
    kinds, seeds = (("none", BY_CHANCE_FROM), SEEDS[:1]) if arguments.quick else (KINDS, SEEDS)
    sample = Log(
        prefix="sample_", inputs=sample_inputs(), config="sample.yaml", kinds=kinds, seeds=seeds
    )
    logs = [sample]
    if not arguments.quick:
        if "RANKER_DATA" not in os.environ:
            progress("skipped: RANKER_DATA names no folder with the full data (see data/README.md)")
            return
        raw = raw_inputs(Path(os.environ["RANKER_DATA"]) / RAW_FOLDER)
        whole = Log(prefix="", inputs=raw, config="kuairand.yaml", kinds=kinds, seeds=seeds)
        logs = [whole, sample]
    figures: dict[str, Figure] = {}
    with tempfile.TemporaryDirectory(prefix="ranker-calibration-") as work:
        for log in logs:
            figures |= figures_of(log, Path(work) / (log.prefix or "whole"))
    publish(
        "calibration_kinds",
        figures,
        arguments=arguments,
        seeds=seeds,
        settings={
            "trained_before": TRAIN_BEFORE,
            "judged_before": JUDGE_BEFORE,
            "draws": NUM_DRAWS,
            "threads": 1,
        },
    )


if __name__ == "__main__":
    main()
