"""``ranker evaluate``: a bundle on windows it has not seen, beside baselines."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from pipelines.arguments import add_config, print_config, require_output, resolve
from pipelines.console import Console
from pipelines.metrics_table import metrics_table
from ranker.config import Config

if TYPE_CHECKING:
    import numpy as np

    from ranker.bundle import ModelBundle
    from ranker.data.store import EncodedStore, Window
    from ranker.evaluation.metrics import FloatArray
    from ranker.evaluation.rows import EvaluationRows
    from ranker.evaluation.task_evaluation import TaskEvaluation

OURS = "ranker"
EVALUATION_ROWS = 8192


class EvaluateConfig(Config):
    """How intervals are drawn; ``ndcg_at`` cuts the lists of NDCG."""

    seed: int = 0
    num_replicates: int = Field(default=1000, ge=2)
    confidence: float = Field(default=0.95, gt=0, lt=1)
    ndcg_at: int = Field(default=5, ge=1)
    calibration_bins: int = Field(default=10, ge=2)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--bundle", type=Path, required=True, metavar="DIR")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="prepared data")
    parser.add_argument("--from", dest="first", metavar="DATE", help="first window to evaluate")
    parser.add_argument("--before", metavar="DATE", help="windows before this date only")
    parser.add_argument("--run", type=Path, metavar="DIR", help="run folder with progressive/")
    parser.add_argument("--output", type=Path, metavar="DIR", help="gets metrics.json and more")
    parser.add_argument("--seed", type=int, metavar="N")
    add_config(parser)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Evaluate a bundle."""
    config = resolve(EvaluateConfig, arguments, seed=arguments.seed)
    if arguments.print_config:
        return print_config(config, console)
    from ranker.atomic import write_json
    from ranker.bundle import load_bundle
    from ranker.data.store import EncodedStore

    output = require_output(arguments)
    bundle, store = load_bundle(arguments.bundle), EncodedStore(arguments.data)
    windows = unseen_windows(bundle, store, arguments.first, arguments.before)
    metrics = evaluate_bundle(bundle, store, windows, config, output, console)
    if arguments.run is not None:
        metrics["progressive"] = progressive_metrics(store, arguments.run, config)
    write_json(output / "metrics.json", metrics)
    console.result(metrics_table(metrics, console), metrics)
    return 0


def unseen_windows(
    bundle: ModelBundle, store: EncodedStore, first: str | None, before: str | None
) -> Sequence[Window]:
    """The windows to evaluate on: after the bundle's last one, within the given dates.

    Raises:
        DataError: there are none, or the asked ones were trained on.
    """
    from ranker.bundle import check_same_features
    from ranker.data.parquet import DataError

    check_same_features(bundle, store.schema, store.encoders, str(store.folder))
    if first is not None and first <= bundle.data_window.last:
        raise DataError(
            f"the bundle was trained on windows up to {bundle.data_window.last}; "
            f"evaluating from {first} would flatter it"
        )
    windows = store.windows_between(first, before)
    windows = tuple(w for w in windows if w.label > bundle.data_window.last)
    if not windows:
        raise DataError(
            f"{store.folder}: no windows after the bundle's last one ({bundle.data_window.last}) "
            "in the asked range"
        )
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
    import numpy as np

    from ranker.data.parquet import write_table
    from ranker.evaluation.baseline_predictions import baseline_names, predict_baselines
    from ranker.evaluation.rows import prediction_table, read_rows

    rows = read_rows(store, windows)
    console.say(f"predicting {rows.stop - rows.start:,} rows of {len(windows)} windows")
    predictions, gates = predict_rows(bundle, store, rows)
    output.mkdir(parents=True, exist_ok=True)
    write_table(output / "predictions.parquet", prediction_table(store, rows, predictions))
    earlier = [w for w in store.windows if w.label <= bundle.data_window.last]
    baselines: Mapping[str, Mapping[str, FloatArray]] = {task: {} for task in predictions}
    if earlier:
        console.say("fitting baselines")
        train = read_rows(store, earlier)
        baselines = predict_baselines(store, train, rows, seed=config.seed)
    console.say("measuring, with intervals")
    evaluations = {
        task: evaluate_one(
            store,
            task,
            rows,
            {OURS: predictions[task], **baselines[task]},
            config,
            np.random.default_rng([config.seed, number]),
        )
        for number, task in enumerate(predictions)
    }
    return {
        "split": {
            "first": windows[0].label,
            "last": windows[-1].label,
            "rows": rows.stop - rows.start,
        },
        "seed": config.seed,
        "tasks": {task: task_json(store, task, e, OURS) for task, e in evaluations.items()},
        "baselines": {
            name: {
                task: task_json(store, task, e, name)
                for task, e in evaluations.items()
                if name in e.estimates
            }
            for name in baseline_names(baselines)
        },
        "differences": {
            name: {
                task: difference_json(e, OURS, name)
                for task, e in evaluations.items()
                if name in e.estimates
            }
            for name in baseline_names(baselines)
        },
        "calibration": calibration_json(predictions, rows, config),
        "experts": experts_json(gates),
        "model": model_json(bundle, store, rows),
        "train": bundle.data_window.model_dump(),
        "bundle": {"weights_sha256": bundle.weights_sha256},
    }


def predict_rows(
    bundle: ModelBundle, store: EncodedStore, rows: EvaluationRows
) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
    """Predictions [N] by task, and gate weights [N, E] by task (empty without gates)."""
    import numpy as np
    import torch

    from ranker.data.loader import read_in_order

    predictions: dict[str, list[np.ndarray[tuple[int], np.dtype[np.float64]]]] = {}
    gates: dict[str, list[np.ndarray[tuple[int, int], np.dtype[np.float64]]]] = {}
    batches = read_in_order(
        store,
        rows.start,
        rows.stop,
        vocabulary_sizes=bundle.encoders.sizes,
        batch_rows=EVALUATION_ROWS,
    )
    with torch.no_grad():
        for batch in batches:
            for task, values in bundle.model.predict(batch).items():
                predictions.setdefault(task, []).append(values.double().numpy())
            for task, weights in bundle.model.gate_weights(batch).items():
                gates.setdefault(task, []).append(weights.double().numpy())
    return (
        {task: np.concatenate(parts) for task, parts in predictions.items()},
        {task: np.concatenate(parts) for task, parts in gates.items()},
    )


def evaluate_one(
    store: EncodedStore,
    task: str,
    rows: EvaluationRows,
    predictions_by_model: Mapping[str, FloatArray],
    config: EvaluateConfig,
    rng: np.random.Generator,
) -> TaskEvaluation:
    """All metrics of one task."""
    from ranker.evaluation.evaluate import evaluate_task
    from ranker.evaluation.intervals import BootstrapSettings

    return evaluate_task(
        kind=store.schema.task(task).kind,
        labels=rows.labels[task],
        predictions_by_model=predictions_by_model,
        users=rows.users,
        lists=rows.lists,
        rng=rng,
        settings=BootstrapSettings(
            num_replicates=config.num_replicates,
            confidence=config.confidence,
            ndcg_at=config.ndcg_at,
        ),
    )


def task_json(
    store: EncodedStore, task: str, evaluation: TaskEvaluation, model: str
) -> dict[str, object]:
    """A task's entry in metrics.json."""
    family = store.schema.task(task).family
    return {"family": family, **evaluation.to_json(model)}


def difference_json(evaluation: TaskEvaluation, a: str, b: str) -> dict[str, object]:
    """Paired differences a − b with verdicts, by metric."""
    return {
        metric: {**estimate.to_json(), "verdict": evaluation.verdict(a, b, metric)}
        for metric, estimate in evaluation.difference(a, b).items()
    }


def calibration_json(
    predictions: Mapping[str, FloatArray], rows: EvaluationRows, config: EvaluateConfig
) -> dict[str, object]:
    """Calibration bins by task."""
    from ranker.evaluation.calibration import calibration_curve

    return {
        task: [
            asdict(bin_)
            for bin_ in calibration_curve(
                rows.labels[task],
                values,
                config.calibration_bins,
                users=rows.users,
                confidence=config.confidence,
            )
        ]
        for task, values in predictions.items()
        if (rows.labels[task] == rows.labels[task]).sum() >= config.calibration_bins
    }


def experts_json(gates: Mapping[str, FloatArray]) -> dict[str, object]:
    """Expert utilisation by task, with the polarized-gate alarm."""
    import torch

    from ranker.diagnosis.gates import expert_utilisation, polarized_tasks

    if not gates:
        return {}
    utilisation = expert_utilisation({t: torch.from_numpy(w) for t, w in gates.items()})
    polarized = polarized_tasks(utilisation)
    return {
        task: {
            "mean_weights": list(found.mean_weights),
            "entropy_nats": found.entropy_nats,
            "row_entropy_nats": found.row_entropy_nats,
            "polarized": task in polarized,
        }
        for task, found in utilisation.items()
    }


def model_json(bundle: ModelBundle, store: EncodedStore, rows: EvaluationRows) -> dict[str, object]:
    """Parameters and multiplications."""
    import numpy as np

    from ranker.data.loader import read_batch
    from ranker.diagnosis.cost import count_parameters, multiplications_per_example

    some = np.arange(rows.start, min(rows.start + 64, rows.stop), dtype=np.int64)
    parameters = count_parameters(bundle.model)
    return {
        "kind": bundle.config.model.bottom.kind,
        "parameters": parameters.embedding + parameters.dense,
        "embedding_parameters": parameters.embedding,
        "dense_parameters": parameters.dense,
        "multiplications_per_example": multiplications_per_example(
            bundle.model, read_batch(store, some, bundle.encoders.sizes)
        ),
    }


def progressive_metrics(
    store: EncodedStore, run_folder: Path, config: EvaluateConfig
) -> dict[str, object]:
    """Task -> window -> metrics of the predictions made before the window was trained on."""
    import numpy as np

    from ranker.data.parquet import read_table
    from ranker.evaluation.rows import read_rows

    values: dict[str, dict[str, object]] = {task.name: {} for task in store.schema.tasks}
    for number, window in enumerate(store.windows):
        path = run_folder / "progressive" / f"{window.label}.parquet"
        if not path.is_file():
            continue
        table, rows = read_table(path), read_rows(store, [window])
        for task, by_window in values.items():
            predictions = {OURS: table.column(task).to_numpy()}
            rng = np.random.default_rng([config.seed, number])
            found = evaluate_one(store, task, rows, predictions, config, rng)
            by_window[window.label] = task_json(store, task, found, OURS)
    return dict(values)
