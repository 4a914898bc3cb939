"""``ranker evaluate``: a bundle on windows it has not seen, beside baselines."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from pipelines.arguments import (
    add_config,
    add_windows,
    non_negative,
    print_config,
    require_output_folder,
    resolve,
)
from pipelines.console import Console
from pipelines.metrics_json import (
    calibration_json,
    calibrators_json,
    differences_json,
    experts_json,
    model_json,
    tasks_json,
)
from pipelines.metrics_table import metrics_table
from pipelines.predicted_rows import predict_lists, predict_rows
from ranker.config import Config

if TYPE_CHECKING:
    import numpy as np

    from ranker.bundle import ModelBundle
    from ranker.data.store import EncodedStore, Window
    from ranker.evaluation.calibrators import Calibrators
    from ranker.evaluation.metrics import FloatArray
    from ranker.evaluation.rows import EvaluationRows
    from ranker.evaluation.task_evaluation import JsonValue, TaskEvaluation

OURS = "ranker"


class EvaluateConfig(Config):
    """How intervals are drawn; ``ndcg_at`` cuts the lists of NDCG."""

    seed: int = Field(default=0, ge=0)
    num_replicates: int = Field(default=1000, ge=2)
    confidence: float = Field(default=0.95, gt=0, lt=1)
    ndcg_at: int = Field(default=5, ge=1)
    calibration_bins: int = Field(default=10, ge=2)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--bundle", type=Path, required=True, metavar="DIR")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="prepared data")
    add_windows(parser, note=" to evaluate on")
    parser.add_argument("--run", type=Path, metavar="DIR", help="run folder with progressive/")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="gets metrics.json and more"
    )
    parser.add_argument("--seed", type=non_negative, metavar="N")
    add_config(parser)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Evaluate a bundle."""
    config = resolve(EvaluateConfig, arguments, seed=arguments.seed)
    if arguments.print_config:
        return print_config(config, console)
    from ranker.atomic import write_json
    from ranker.bundle import load_bundle
    from ranker.data.intact import open_intact_store

    output = require_output_folder(arguments)
    bundle, store = load_bundle(arguments.bundle), open_intact_store(arguments.data)
    windows = unseen_windows([bundle], store, arguments.first, arguments.before)
    progressive: dict[str, object] = {}
    if arguments.run is not None:
        progressive["progressive"] = progressive_metrics(store, arguments.run, config)
    metrics = evaluate_bundle(bundle, store, windows, config, output, console) | progressive
    write_json(output / "metrics.json", metrics)
    text = f"{metrics_table(metrics, console)}\n{calibration_line(bundle.calibrators)}"
    console.result(text, metrics)
    return 0


def calibration_line(calibrators: Calibrators) -> str:
    """Which of a bundle's predictions are calibrated, in a sentence."""
    by_kind: dict[str, list[str]] = {}
    for task, kind in calibrators.kind_by_task.items():
        by_kind.setdefault(kind, []).append(task)
    raw = by_kind.pop("identity", [])
    parts = [f"calibrated by {kind}: {', '.join(tasks)}" for kind, tasks in by_kind.items()]
    parts += [f"not calibrated: {', '.join(raw)}"] if raw else []
    text = "predictions " + "; ".join(parts)
    if calibrators.down_sampled:
        shares = [f"{task} {share:g}" for task, share in calibrators.down_sampled.items()]
        text += (
            f"\n  in the unit of the log, which kept a share of the negatives ({', '.join(shares)})"
        )
    return text


def unseen_windows(
    bundles: Sequence[ModelBundle], store: EncodedStore, first: str | None, before: str | None
) -> Sequence[Window]:
    """The windows within the given dates that none of ``bundles`` was trained on.

    Raises:
        DataError: there are none, the asked ones were trained on, or a bundle belongs to other
            data.
    """
    from ranker.bundle import check_same_features
    from ranker.data.parquet import DataError

    for bundle in bundles:
        check_same_features(bundle, store.schema, store.encoders, str(store.folder))
    trained = max((bundle.data_window.last for bundle in bundles), default="")
    if first is not None and first <= trained:
        raise DataError(
            f"the bundle was trained on windows up to {trained}; evaluating from {first} would "
            "flatter it"
        )
    windows = tuple(w for w in store.windows_between(first, before) if w.label > trained)
    if not windows:
        held = f"{store.windows[0].label} .. {store.windows[-1].label}"
        unseen = f" after {trained}, the last one trained on," if trained else ""
        asked = f"from {first or 'the beginning'} to before {before or 'the end'}"
        raise DataError(f"{store.folder}: no windows{unseen} {asked}; it holds {held}")
    return windows


def evaluate_bundle(
    bundle: ModelBundle,
    store: EncodedStore,
    windows: Sequence[Window],
    config: EvaluateConfig,
    output: Path,
    console: Console,
) -> dict[str, object]:
    """Predict, measure beside the baselines, and write ``predictions.parquet``."""
    from ranker.data.parquet import write_table
    from ranker.evaluation.baseline_predictions import baseline_names, fit_baselines
    from ranker.evaluation.list_moment import request_rows
    from ranker.evaluation.rows import prediction_table, read_rows

    rows = read_rows(store, windows)
    num_rows = rows.stop - rows.start
    console.say(f"predicting {num_rows:,} rows (windows: {len(windows)})")
    raw, gates = predict_rows(bundle, store, rows)
    predictions = bundle.calibrators.apply_in_log_unit(raw)
    write_table(output / "predictions.parquet", prediction_table(store, rows, predictions))
    models = {task: {OURS: values} for task, values in predictions.items()}
    of_lists = predict_lists(bundle, store, rows)
    in_lists = {task: {OURS: values} for task, values in of_lists.items()}
    earlier = [w for w in store.windows if w.label <= bundle.data_window.last]
    if earlier:
        console.say("fitting baselines")
        baselines = fit_baselines(store, read_rows(store, earlier), seed=config.seed)
        for task, by_name in baselines.predict(store, rows).items():
            models[task] |= by_name
        requests = request_rows(store, rows)
        for task, by_name in baselines.predict(store, rows, requests=requests).items():
            in_lists[task] |= by_name
    console.say("measuring, with intervals")
    evaluations = evaluate_tasks(store, rows, models, in_lists, config)
    names = baseline_names(models)
    schema = store.schema
    return {
        "split": {"first": windows[0].label, "last": windows[-1].label, "rows": num_rows},
        "seed": config.seed,
        "tasks": tasks_json(schema, evaluations, OURS),
        "baselines": {name: tasks_json(schema, evaluations, name) for name in names},
        "differences": {name: differences_json(evaluations, OURS, name) for name in names},
        "calibration": calibration_json(
            predictions, rows, num_bins=config.calibration_bins, confidence=config.confidence
        ),
        "experts": experts_json(gates),
        "model": model_json(bundle, store, rows.start),
        "train": bundle.data_window.model_dump(),
        "bundle": {"weights_sha256": bundle.weights_sha256},
        "calibrators": calibrators_json(bundle.calibrators),
    }


def evaluate_tasks(
    store: EncodedStore,
    rows: EvaluationRows,
    predictions: Mapping[str, Mapping[str, FloatArray]],
    in_lists: Mapping[str, Mapping[str, FloatArray]],
    config: EvaluateConfig,
) -> dict[str, TaskEvaluation]:
    """All metrics of each task, for every model that predicts it.

    Both are task -> model -> [N]: for each impression, and for lists to be ordered.
    """
    import numpy as np

    return {
        task: evaluate_one(
            store,
            task,
            rows,
            (by_model, in_lists[task]),
            config,
            np.random.default_rng([config.seed, number]),
        )
        for number, (task, by_model) in enumerate(predictions.items())
    }


def evaluate_one(
    store: EncodedStore,
    task: str,
    rows: EvaluationRows,
    predictions: tuple[Mapping[str, FloatArray], Mapping[str, FloatArray]],
    config: EvaluateConfig,
    rng: np.random.Generator,
) -> TaskEvaluation:
    """All metrics of one task by model, from predictions for impressions and for lists."""
    from ranker.evaluation.evaluate import evaluate_task
    from ranker.evaluation.intervals import BootstrapSettings

    by_impression, by_list = predictions
    return evaluate_task(
        kind=store.schema.task(task).kind,
        labels=rows.labels[task],
        predictions_by_model=by_impression,
        list_predictions_by_model=by_list,
        users=rows.users,
        lists=rows.lists,
        rng=rng,
        settings=BootstrapSettings(
            num_replicates=config.num_replicates,
            confidence=config.confidence,
            ndcg_at=config.ndcg_at,
        ),
    )


def progressive_metrics(
    store: EncodedStore, run_folder: Path, config: EvaluateConfig
) -> dict[str, object]:
    """Task -> window -> metrics of the raw predictions made before the window was trained on.

    They are what calibrators are fitted on, so calibrating them would flatter. Each is of its
    impression's own moment: where lists are more than a request, they order none.

    Raises:
        DataError: the run folder is missing, or was trained on other data.
    """
    import numpy as np

    from ranker.data.parquet import DataError, read_table
    from ranker.evaluation.list_moment import request_rows
    from ranker.evaluation.rows import read_rows

    if not run_folder.is_dir():
        raise DataError(f"--run {run_folder}: no such folder")
    values: dict[str, dict[str, object]] = {task.name: {} for task in store.schema.tasks}
    for number, window in enumerate(store.windows):
        path = run_folder / "progressive" / f"{window.label}.parquet"
        if not path.is_file():
            continue
        table, rows = read_table(path, ["row", *values]), read_rows(store, [window])
        if not np.array_equal(table.column("row").to_numpy(), np.arange(rows.start, rows.stop)):
            raise DataError(f"{path}: was predicted on other data than {store.folder}")
        are_requests = request_rows(store, rows) is None
        for task, by_window in values.items():
            predictions = {OURS: table.column(task).to_numpy()}
            rng = np.random.default_rng([config.seed, number])
            found = evaluate_one(store, task, rows, (predictions, predictions), config, rng)
            metrics = found.to_json(OURS)
            by_window[window.label] = {
                "family": store.schema.task(task).family,
                **(metrics if are_requests else without_lists(metrics)),
            }
    return dict(values)


def without_lists(metrics: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """The metrics without those of lists, which were predicted impression by impression."""
    from ranker.evaluation.intervals import Estimate
    from ranker.evaluation.metrics import LIST_METRICS

    reason = "predicted at each impression's own moment, not as one request"
    unknown = Estimate(value=None, ci_low=None, ci_high=None, reason=reason).to_json()
    return {
        name: unknown if name.partition("@")[0] in LIST_METRICS else value
        for name, value in metrics.items()
    }
