"""From the other files of a run to what a report says of data, cost, slates and provenance."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ranker.schema import Schema

if TYPE_CHECKING:
    from ranker.report import content as c

NUM_EXAMPLES = 3


def read_json(path: Path) -> dict[str, Any]:
    """An object from a file; empty where there is none.

    Raises:
        DataError: damaged, or no object.
    """
    from ranker.data.parquet import DataError

    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: damaged: {error}") from None
    if not isinstance(found, dict):
        raise DataError(f"{path}: expected an object, got {type(found).__name__}")
    return found


def data_summary(schema: Schema, prepared: Path, metrics: Mapping[str, Any]) -> c.DataSummary:
    """What was read, kept and set aside."""
    from ranker.data.prepare import read_summary
    from ranker.report import content

    summary = read_summary(prepared)
    train, split = metrics.get("train", {}), metrics.get("split", {})

    def split_of(label: str) -> Any:
        if train and label <= train["last"]:
            return "train"
        return "test" if split and split["first"] <= label <= split["last"] else ""

    labels = []
    for task in schema.tasks:
        found = summary.labels[task.name]
        labels.append(
            content.LabelSummary(
                task=task.name,
                family=task.family,
                kind=task.kind,
                observed_rows=found.observed,
                positives=round(found.total) if task.kind == "binary" else None,
                mean=found.total / found.observed if found.observed else None,
            )
        )
    return content.DataSummary(
        rows_read=summary.rows_read,
        rows_kept=summary.rows_kept,
        exact_duplicates=summary.exact_duplicates,
        users=summary.users,
        items=summary.items,
        quarantined=[
            content.Quarantine(reason=reason, rows=rows)
            for reason, rows in summary.bad_rows_by_reason.items()
        ],
        windows=[
            content.WindowRows(label=label, rows=rows, split=split_of(label))
            for label, rows in summary.rows_by_window.items()
        ],
        labels=labels,
    )


def cost(run_folder: Path, metrics: Mapping[str, Any]) -> c.Cost | None:
    """What the model and its run took; None where nothing is known."""
    from ranker.report import content

    train, stages = read_json(run_folder / "train.json"), read_json(run_folder / "stages.json")
    if not train and not metrics:
        return None
    model = metrics.get("model", {})
    return content.Cost(
        embedding_parameters=_number(model.get("embedding_parameters")),
        dense_parameters=_number(model.get("dense_parameters")),
        multiplications_per_example=_number(model.get("multiplications_per_example")),
        train_rows=_number(train.get("rows", train.get("rows_trained"))),
        train_examples_per_s=_number(train.get("examples_per_s")),
        peak_memory_mib=_number(stages.get("peak_memory_mib")),
        stages=[
            content.Stage(name=name, wall_s=seconds)
            for name, seconds in stages.get("wall_s", {}).items()
        ],
    )


def _number(value: Any) -> Any:
    """What a file of the run says, if it is a number; else it is as good as not said."""
    return value if isinstance(value, int | float) else None


def slates(run_folder: Path, schema: Schema) -> list[c.SlateExample]:
    """The first few slates of ``slates.parquet``."""
    from pipelines.requests import request_key
    from ranker.data.parquet import stream
    from ranker.report import content

    path = run_folder / "slates.parquet"
    if not path.exists():
        return []
    rows = [row for located in islice(stream(path), 1) for row in located.rows[:200].to_pylist()]
    by_request: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_request.setdefault(request_key(schema, row), []).append(row)
    complete = list(by_request.items())[: max(1, len(by_request) - 1)][:NUM_EXAMPLES]
    return [
        content.SlateExample(
            request=key,
            user=str(shown[0][schema.log.user]),
            items=[_slate_item(row, schema) for row in shown],
        )
        for key, shown in complete
    ]


def _slate_item(row: Mapping[str, Any], schema: Schema) -> c.SlateItem:
    from ranker.report import content

    ranks = {n.removesuffix("_rank"): v for n, v in row.items() if n.endswith("_rank")}
    return content.SlateItem(
        rank=row["rank"],
        item=str(row[schema.log.item]),
        score=row["score"],
        prediction_by_task={task.name: row[f"prediction.{task.name}"] for task in schema.tasks},
        sources=", ".join(name for name, rank in ranks.items() if rank is not None),
    )


def provenance(run_folder: Path, metrics: Mapping[str, Any]) -> c.Provenance:
    """What the page was made from."""
    from ranker.report import content

    facts: list[content.Fact] = []
    if metrics:
        sha256 = metrics["bundle"]["weights_sha256"]
        facts.append(content.Fact(name="seed of the intervals", value=str(metrics["seed"])))
        facts.append(content.Fact(name="sha256 of the weights", value=sha256))
    config = run_folder / "config.yaml"
    return content.Provenance(
        facts=facts, config_yaml=config.read_text(encoding="utf-8") if config.is_file() else ""
    )
