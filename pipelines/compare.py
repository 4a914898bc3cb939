"""``ranker compare A B``: is A better, worse, or can't we tell? Exit 4 if worse."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.arguments import add_config, add_windows, non_negative, print_config, resolve
from pipelines.console import Console
from pipelines.evaluate import (
    EvaluateConfig,
    calibration_line,
    evaluate_tasks,
    unseen_windows,
)
from pipelines.exit_codes import EXIT_GATE
from pipelines.predicted_rows import predict_impressions
from ranker.config import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from ranker.bundle import ModelBundle
    from ranker.data.store import EncodedStore, Window
    from ranker.evaluation.compare import TaskComparison
    from ranker.evaluation.metrics import FloatArray
    from ranker.evaluation.rows import EvaluationRows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("a", type=Path, metavar="A", help="bundle, or Parquet of predictions")
    parser.add_argument("b", type=Path, metavar="B", help="bundle, or Parquet of predictions")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="prepared data")
    add_windows(parser, note=" to compare on")
    parser.add_argument(
        "--gate", action="append", metavar="TASK", help="exit 4 only if A is worse on one of these"
    )
    parser.add_argument("--seed", type=non_negative, metavar="N")
    add_config(parser)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Compare two rankers."""
    config = resolve(EvaluateConfig, arguments, seed=arguments.seed)
    if arguments.print_config:
        return print_config(config, console)
    from ranker.data.intact import open_intact_store
    from ranker.evaluation.compare import compare, is_worse
    from ranker.evaluation.rows import read_rows

    store = open_intact_store(arguments.data)
    paths = (arguments.a, arguments.b)
    rankers = [open_ranker(path) for path in paths]
    windows = unseen_windows(bundles_among(rankers), store, arguments.first, arguments.before)
    rows = read_rows(store, windows)
    a, b = (
        predictions_of(ranker, store, rows, path)
        for ranker, path in zip(rankers, paths, strict=True)
    )
    tasks = shared_tasks(store, a, b, gated=arguments.gate or [])
    predictions = {task: {"A": a[task], "B": b[task]} for task in tasks}
    # what decides here orders no lists
    evaluations = evaluate_tasks(store, rows, predictions, predictions, config)
    comparisons = compare(evaluations, a="A", b="B")
    worse = is_worse(c for c in comparisons if not arguments.gate or c.task in arguments.gate)
    named = dict(zip("AB", rankers, strict=True))
    text = "\n".join([describe(comparisons, windows, console), *calibration_lines(named)])
    document = {**to_json(comparisons, worse=worse), "calibrated": calibrated_json(named)}
    console.result(text, document)
    return EXIT_GATE if worse else 0


def open_ranker(path: Path) -> ModelBundle | pa.Table:
    """A bundle's folder, or a Parquet file (or folder of such files) of predictions."""
    from ranker.bundle import load_bundle
    from ranker.data.parquet import read_table

    holds_weights = any(path.glob("*.safetensors"))
    if path.is_dir() and (holds_weights or not any(path.glob("*.parquet"))):
        return load_bundle(path)
    return read_table(path)


def calibration_lines(rankers: Mapping[str, ModelBundle | pa.Table]) -> list[str]:
    """A sentence for each of A and B on whether its predictions are calibrated."""
    from ranker.bundle import ModelBundle

    return [
        f"{name}: {calibration_line(ranker.calibrators)}"
        if isinstance(ranker, ModelBundle)
        else f"{name}: predictions as the file gives them"
        for name, ranker in rankers.items()
    ]


def calibrated_json(rankers: Mapping[str, ModelBundle | pa.Table]) -> dict[str, object]:
    """A and B -> task -> kind of calibrator; null for a file, which says nothing of it."""
    from ranker.bundle import ModelBundle

    return {
        name: ranker.calibrators.kind_by_task if isinstance(ranker, ModelBundle) else None
        for name, ranker in rankers.items()
    }


def bundles_among(rankers: Sequence[ModelBundle | pa.Table]) -> list[ModelBundle]:
    """Those whose training windows are known."""
    from ranker.bundle import ModelBundle

    return [ranker for ranker in rankers if isinstance(ranker, ModelBundle)]


def predictions_of(
    ranker: ModelBundle | pa.Table, store: EncodedStore, rows: EvaluationRows, path: Path
) -> Mapping[str, FloatArray]:
    """Task -> predictions [N] of a bundle or a file, in the order of ``rows``.

    A bundle's are calibrated, and in the unit of the log where that is short of negatives.
    """
    from ranker.bundle import ModelBundle
    from ranker.evaluation.rows import match_predictions

    if isinstance(ranker, ModelBundle):
        return predict_impressions(ranker, store, rows)
    return match_predictions(store, rows, ranker, str(path))


def shared_tasks(
    store: EncodedStore,
    a: Mapping[str, FloatArray],
    b: Mapping[str, FloatArray],
    *,
    gated: Sequence[str],
) -> list[str]:
    """The tasks that both predict.

    Raises:
        DataError: there are none.
        ConfigError: a gated task is not among them.
    """
    from ranker.data.parquet import DataError

    tasks = [task.name for task in store.schema.tasks if task.name in a and task.name in b]
    if not tasks:
        raise DataError(f"A and B have no task in common: A predicts {[*a]}, B predicts {[*b]}")
    for task in gated:
        if task not in tasks:
            raise ConfigError(f"--gate {task}: not a task that both predict ({tasks})")
    return tasks


def describe(
    comparisons: Sequence[TaskComparison], windows: Sequence[Window], console: Console
) -> str:
    """A row per task and headline metric."""
    lines = []
    for one in comparisons:
        difference = one.difference
        if difference.value is None:
            shown = f"– ({difference.reason})"
        elif difference.ci_low is None or difference.ci_high is None:
            shown = f"{difference.value:+.4f}"
        else:
            shown = f"{difference.value:+.4f} [{difference.ci_low:+.4f}, {difference.ci_high:+.4f}]"
        values = [
            "–" if estimate.value is None else f"{estimate.value:.4f}"
            for estimate in (one.a, one.b)
        ]
        verdict = one.verdict if one.verdict == "cannot tell" else f"A is {one.verdict}"
        lines.append([one.task, one.metric, *values, shown, verdict])
    table = console.table(["task", "metric", "A", "B", "A − B", "verdict"], lines)
    return f"windows {windows[0].label} .. {windows[-1].label}\n{table}"


def to_json(comparisons: Sequence[TaskComparison], *, worse: bool) -> dict[str, object]:
    """Everything, for --json."""
    return {
        "worse": worse,
        "comparisons": [
            {
                "task": c.task,
                "metric": c.metric,
                "a": c.a.to_json(),
                "b": c.b.to_json(),
                "difference": c.difference.to_json(),
                "verdict": c.verdict,
            }
            for c in comparisons
        ],
    }
