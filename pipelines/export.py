"""``ranker export``: a bundle's model as ONNX, for serving elsewhere."""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.arguments import require_apart, require_output
from pipelines.console import Console
from ranker.config import ConfigError

if TYPE_CHECKING:
    from ranker.bundle import ModelBundle
    from ranker.data.store import EncodedStore
    from ranker.evaluation.intervals import Estimate
    from ranker.scoring.runtimes.onnx_folder import Export


@dataclass(frozen=True, slots=True, kw_only=True)
class AucCost:
    """A binary task's AUC on labelled rows, exact and in int8, and what int8 has more of it.

    All null with a reason where there are too few labels of a kind.
    """

    rows: int
    positives: int
    exact: float | None
    int8: float | None
    change: Estimate


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="a bundle's folder")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="gets model.onnx, manifest.json"
    )
    parser.add_argument(
        "--int8", action="store_true", help="also a model_int8.onnx: smaller, faster, not exact"
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="prepared data: what int8 costs on its last window"
    )


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Export a bundle's model and check it on the golden rows."""
    if arguments.data is not None and not arguments.int8:
        raise ConfigError("--data measures what int8 costs; give --int8 too")
    from ranker.scoring.runtimes.forward import require_onnx

    require_onnx()
    from ranker.bundle import load_bundle
    from ranker.data.parallel import num_threads
    from ranker.scoring.runtimes.onnx_folder import export_folder

    output = require_output(arguments)
    require_apart(output, arguments.bundle, arguments.data)
    bundle = load_bundle(arguments.bundle)
    store = None if arguments.data is None else _open_data(arguments.data, bundle)
    export = export_folder(
        bundle, arguments.bundle, output, int8=arguments.int8, threads=num_threads()
    )
    costs: dict[str, AucCost] = {}
    if store is not None:
        costs = auc_costs(bundle, store, output)
    text = describe(export, costs, output, console)
    as_json = {task: asdict(cost) for task, cost in costs.items()}
    console.result(text, {"output": str(output), **asdict(export), "int8_auc": as_json})
    return 0


def _open_data(data: Path, bundle: ModelBundle) -> EncodedStore:
    from ranker.bundle import check_same_features
    from ranker.data.intact import open_intact_store

    store = open_intact_store(data)
    check_same_features(bundle, store.schema, store.encoders, str(data))
    return store


def auc_costs(bundle: ModelBundle, store: EncodedStore, output: Path) -> dict[str, AucCost]:
    """Each binary task's AUC by both models on the last window of prepared data."""
    from pipelines.evaluate import EvaluateConfig, evaluate_tasks
    from ranker.data.parallel import num_threads
    from ranker.evaluation.rows import read_rows
    from ranker.scoring.runtimes.forward import onnx_forward
    from ranker.scoring.runtimes.onnx_folder import INT8_FILE, MODEL_FILE, predict_window

    window = store.windows[-1]
    exact, int8 = (
        predict_window(
            onnx_forward(output / name, bundle.model, threads=num_threads()), bundle, store, window
        )
        for name in (MODEL_FILE, INT8_FILE)
    )
    by_task = {
        task.name: {"exact": exact[task.name], "int8": int8[task.name]}
        for task in bundle.schema.tasks
        if task.kind == "binary"
    }
    found = evaluate_tasks(store, read_rows(store, [window]), by_task, by_task, EvaluateConfig())
    return {
        task: AucCost(
            rows=evaluation.rows,
            positives=evaluation.positives or 0,
            exact=evaluation.estimates["exact"]["auc"].value,
            int8=evaluation.estimates["int8"]["auc"].value,
            change=evaluation.difference("int8", "exact")["auc"],
        )
        for task, evaluation in found.items()
    }


def describe(export: Export, costs: dict[str, AucCost], output: Path, console: Console) -> str:
    """How exact the exported model is, and what int8 costs."""
    columns = ["task", "largest difference"] + (["of int8"] if export.int8_difference else [])
    rows = [
        (task, f"{d:.2g}", *([f"{export.int8_difference[task]:.2g}"] if len(columns) > 2 else []))
        for task, d in export.difference.items()
    ]
    lines = [
        f"{output}: the model as ONNX, {export.golden_rows} golden rows replayed",
        console.table(columns, rows),
    ]
    if costs:
        lines.append("  what int8 costs on the last window:")
        table = [
            (task, f"{c.rows:,}", *(_auc(c.exact), _auc(c.int8)), _change(c))
            for task, c in costs.items()
        ]
        lines.append(console.table(("task", "rows", "AUC", "AUC in int8", "change"), table))
    elif export.int8_difference:
        lines.append("  int8 is not exact: give --data DIR to measure what it costs in AUC")
    return "\n".join(lines)


def _auc(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _change(cost: AucCost) -> str:
    change = cost.change
    if change.value is None:
        return f"- ({change.reason})"
    if change.ci_low is None or change.ci_high is None:
        return f"{change.value:+.4f}"
    return f"{change.value:+.4f} [{change.ci_low:+.4f}, {change.ci_high:+.4f}]"
