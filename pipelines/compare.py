"""``ranker compare A B``: is A better, worse, or can't we tell? Exit 4 if worse."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.arguments import add_config, print_config, resolve
from pipelines.console import Console
from pipelines.evaluate import EvaluateConfig, evaluate_one, predict_rows
from ranker.config import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ranker.data.store import EncodedStore, Window
    from ranker.evaluation.compare import TaskComparison
    from ranker.evaluation.metrics import FloatArray
    from ranker.evaluation.rows import EvaluationRows

EXIT_WORSE = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("a", type=Path, metavar="A", help="bundle, or Parquet of predictions")
    parser.add_argument("b", type=Path, metavar="B", help="bundle, or Parquet of predictions")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="prepared data")
    parser.add_argument("--from", dest="first", metavar="DATE", help="first window to compare on")
    parser.add_argument("--before", metavar="DATE")
    parser.add_argument(
        "--gate", action="append", metavar="TASK", help="exit 4 only if A is worse on one of these"
    )
    parser.add_argument("--seed", type=int, metavar="N")
    add_config(parser)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Compare two rankers."""
    config = resolve(EvaluateConfig, arguments, seed=arguments.seed)
    if arguments.print_config:
        return print_config(config, console)
    import numpy as np

    from ranker.data.store import EncodedStore
    from ranker.evaluation.compare import compare, is_worse
    from ranker.evaluation.rows import read_rows

    store = EncodedStore(arguments.data)
    windows = comparison_windows(store, arguments)
    rows = read_rows(store, windows)
    a = arm_predictions(arguments.a, store, rows)
    b = arm_predictions(arguments.b, store, rows)
    tasks = [task.name for task in store.schema.tasks if task.name in a and task.name in b]
    for task in arguments.gate or []:
        if task not in tasks:
            raise ConfigError(f"--gate {task}: not a task that both predict ({tasks})")
    evaluations = {
        task: evaluate_one(
            store,
            task,
            rows,
            {"A": a[task], "B": b[task]},
            config,
            np.random.default_rng([config.seed, number]),
        )
        for number, task in enumerate(tasks)
    }
    comparisons = compare(evaluations, a="A", b="B")
    gated = [c for c in comparisons if not arguments.gate or c.task in arguments.gate]
    worse = is_worse(gated)
    console.result(describe(comparisons, windows, console), to_json(comparisons, worse=worse))
    return EXIT_WORSE if worse else 0


def comparison_windows(store: EncodedStore, arguments: argparse.Namespace) -> Sequence[Window]:
    """The windows that no compared bundle was trained on.

    Raises:
        DataError: there are none, or the asked ones were trained on.
    """
    from ranker.bundle import load_bundle
    from ranker.data.parquet import DataError

    first, last_trained = arguments.first, ""
    for path in (arguments.a, arguments.b):
        if path.is_dir():
            last_trained = max(last_trained, load_bundle(path).data_window.last)
    if first is not None and last_trained and first <= last_trained:
        raise DataError(
            f"a bundle was trained on windows up to {last_trained}; comparing from {first} would "
            "flatter it"
        )
    windows = store.windows_between(first, arguments.before)
    windows = tuple(window for window in windows if window.label > last_trained)
    if not windows:
        raise DataError(f"{store.folder}: no windows after {last_trained!r} in the asked range")
    return windows


def arm_predictions(
    path: Path, store: EncodedStore, rows: EvaluationRows
) -> Mapping[str, FloatArray]:
    """Task -> predictions [N] of a bundle or a file, in the order of ``rows``."""
    from ranker.bundle import check_same_features, load_bundle
    from ranker.data.parquet import read_table
    from ranker.evaluation.rows import match_predictions

    if path.is_dir():
        bundle = load_bundle(path)
        check_same_features(bundle, store.schema, store.encoders, str(store.folder))
        return predict_rows(bundle, store, rows)[0]
    return match_predictions(store, rows, read_table(path), str(path))


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
