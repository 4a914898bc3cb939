"""``ranker score``: candidate lists become slates."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from pipelines.arguments import add_config, print_config, require_output, resolve
from pipelines.console import Console, ProgressLine
from ranker.config import Config, digest, load_config
from ranker.score_weights import ScoreWeights, check_score_weights

if TYPE_CHECKING:
    from ranker.bundle import ModelBundle
    from ranker.data.features import FeatureSource


class ScoreConfig(Config):
    """How slates are made: ``slate_size`` items a request; ``chunk_rows`` scored at a time."""

    slate_size: int = Field(default=10, ge=1)
    chunk_rows: int = Field(default=100_000, ge=1)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--bundle", type=Path, required=True, metavar="DIR")
    parser.add_argument("--state", type=Path, required=True, metavar="DIR")
    parser.add_argument("--candidates", type=Path, required=True, metavar="PATH", help="Parquet")
    parser.add_argument(
        "--score-weights", type=Path, metavar="FILE", help="instead of the bundle's"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="Parquet")
    add_config(parser)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Score candidate lists."""
    config = resolve(ScoreConfig, arguments)
    if arguments.print_config:
        return print_config(config, console)
    from ranker.bundle import load_bundle
    from ranker.data.state import load_state

    output = require_output(arguments)
    bundle, source = load_bundle(arguments.bundle), load_state(arguments.state)
    weights = read_score_weights(bundle, arguments.score_weights)
    summary = score(bundle, source, arguments.candidates, weights, config, output, console)
    console.result(describe(summary, output), summary)
    return 0


def read_score_weights(bundle: ModelBundle, path: Path | None) -> ScoreWeights:
    """The weights of a file, or the bundle's; checked against the bundle's tasks."""
    from ranker.config import ConfigError

    weights = bundle.score_weights if path is None else load_config(ScoreWeights, path)
    try:
        check_score_weights(weights, tasks=bundle.schema.tasks)
    except ValueError as error:
        raise ConfigError(f"{path or 'the bundle'}: {error}") from None
    return weights


def score(
    bundle: ModelBundle,
    source: FeatureSource,
    candidates_path: Path,
    weights: ScoreWeights,
    config: ScoreConfig,
    output: Path,
    console: Console,
) -> dict[str, object]:
    """Write slates, best first: the candidate's columns, rank, score and predictions.

    A manifest beside the slates names bundle, weights and state.
    """
    import numpy as np
    import pyarrow as pa

    from pipelines.requests import request_codes
    from ranker.atomic import sha256_of, write_json
    from ranker.data.parquet import read_table, write_table
    from ranker.data.tables import read_requests
    from ranker.scoring.combine import combine
    from ranker.scoring.predict import ScoringCounts, predict_candidates
    from ranker.scoring.slate import top_k

    raw = read_table(candidates_path)
    candidates = read_requests(candidates_path, bundle.schema, content="candidates")
    counts, line = ScoringCounts(), ProgressLine(console, "score")
    parts: dict[str, list[np.ndarray[tuple[int], np.dtype[np.float64]]]] = {}
    for chunk in predict_candidates(
        bundle, source, candidates, chunk_rows=config.chunk_rows, counts=counts
    ):
        for task, values in chunk.predictions.items():
            parts.setdefault(task, []).append(values)
        line.update(done=chunk.stop, total=candidates.num_rows)
    predictions = {task: np.concatenate(values) for task, values in parts.items()}
    scores = combine(predictions, score_weights=weights, tasks=bundle.schema.tasks)
    requests = request_codes(candidates, bundle.schema)
    items = candidates.column("item").to_numpy()
    slates = top_k(requests, items, scores, k=config.slate_size)
    rows = pa.array(slates.row_index)
    table = raw.take(rows)
    added = {"rank": slates.rank, "score": scores[slates.row_index]}
    added |= {f"prediction.{task}": p[slates.row_index] for task, p in predictions.items()}
    for name, values in added.items():
        if name in table.column_names:
            table = table.drop_columns(name)
        table = table.append_column(name, pa.array(values))
    write_table(output, table)
    summary: dict[str, object] = {
        "requests": int(requests.max()) + 1,
        "candidates": candidates.num_rows,
        "shown": table.num_rows,
        "unknown_ids": {n: c for n, c in sorted(counts.unknown_by_feature.items()) if c},
        "rows_without_owner": {n: c for n, c in counts.missing_owners.items() if c},
    }
    write_json(
        output.with_name(output.name + ".manifest.json"),
        {
            "kind": "slates",
            "sha256": sha256_of(output),
            "bundle": bundle.weights_sha256,
            "score_weights": {"digest": digest(weights), **weights.model_dump(mode="json")},
            "state_as_of_ms": source.history.as_of_ms,
            "summary": summary,
        },
    )
    return summary


def describe(summary: dict[str, object], output: Path) -> str:
    """A line on the slates and one on unknown ids."""
    text = (
        f"{output}: {summary['shown']:,} items in {summary['requests']:,} slates, out of "
        f"{summary['candidates']:,} candidates"
    )
    unknown = summary["unknown_ids"]
    if isinstance(unknown, dict) and unknown:
        text += "\n  unknown ids: " + ", ".join(f"{n} {c:,}" for n, c in unknown.items())
    return text
