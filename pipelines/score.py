"""``ranker score``: candidate lists become slates."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from pipelines.arguments import add_config, print_config, require_output_file, resolve
from pipelines.console import Console, ProgressLine
from ranker.config import Config, ConfigError, digest, load_config
from ranker.score_weights import ScoreWeights, check_score_weights

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    from ranker.bundle import ModelBundle
    from ranker.data.features import FeatureSource
    from ranker.scoring.predict import ScoringCounts
    from ranker.scoring.slate import SlateRows


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreSummary:
    """What was scored.

    Attributes:
        unknown_or_null_ids: feature -> candidates whose id the model has no embedding for: new
            since training, missing, or of a user or item without a row in its table.
        rows_without_owner: user or item -> candidates without a row in its table.
    """

    requests: int
    candidates: int
    shown: int
    unknown_or_null_ids: dict[str, int]
    rows_without_owner: dict[str, int]


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

    output = require_output_file(arguments, arguments.candidates)
    started = time.perf_counter()
    bundle, source = load_bundle(arguments.bundle), load_state(arguments.state)
    weights = read_score_weights(bundle, arguments.score_weights)
    summary = score(bundle, source, arguments.candidates, weights, config, output, console)
    seconds = time.perf_counter() - started
    console.result(describe(summary, output, seconds=seconds), asdict(summary))
    return 0


def read_score_weights(bundle: ModelBundle, path: Path | None) -> ScoreWeights:
    """The weights of a file, or the bundle's; checked against the bundle's tasks."""
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
) -> ScoreSummary:
    """Write slates, best first: the candidate's columns, rank, score and predictions.

    A manifest beside the slates names bundle, weights and state.
    """
    from pipelines.requests import check_candidate_lists, request_codes
    from ranker.data.parquet import read_table, write_table
    from ranker.data.tables import read_requests
    from ranker.scoring.predict import ScoringCounts
    from ranker.scoring.slate import top_k

    raw = read_table(candidates_path)
    candidates = read_requests(candidates_path, bundle.schema, content="candidates")
    check_candidate_lists(candidates, bundle.schema, str(candidates_path))
    counts = ScoringCounts()
    predictions = predict_all(bundle, source, candidates, config, counts, console)
    scores = combined_scores(bundle, predictions, weights)
    requests = request_codes(candidates, bundle.schema)
    items = candidates.column("item").to_numpy()
    slates = top_k(requests, items, scores, k=config.slate_size)
    table = slate_table(raw, slates, scores, predictions)
    write_table(output, table)
    summary = ScoreSummary(
        requests=int(requests.max()) + 1,
        candidates=candidates.num_rows,
        shown=table.num_rows,
        unknown_or_null_ids={n: c for n, c in sorted(counts.unknown_by_feature.items()) if c},
        rows_without_owner={n: c for n, c in counts.missing_owners.items() if c},
    )
    write_manifest(output, bundle, weights, source, summary)
    return summary


def combined_scores(
    bundle: ModelBundle, predictions: Mapping[str, npt.NDArray[np.float64]], weights: ScoreWeights
) -> npt.NDArray[np.float64]:
    """One score a candidate.

    Raises:
        ConfigError: weights so large that scores overflow, or predictions that are not finite.
    """
    from ranker.scoring.combine import combine

    try:
        return combine(predictions, score_weights=weights, tasks=bundle.schema.tasks)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def predict_all(
    bundle: ModelBundle,
    source: FeatureSource,
    candidates: pa.Table,
    config: ScoreConfig,
    counts: ScoringCounts,
    console: Console,
) -> dict[str, npt.NDArray[np.float64]]:
    """Task -> predictions for all candidates, a chunk at a time, telling how long it will take."""
    import numpy as np

    from ranker.scoring.predict import predict_candidates

    line = ProgressLine(console, "score")
    parts: dict[str, list[npt.NDArray[np.float64]]] = {}
    for chunk in predict_candidates(
        bundle, source, candidates, chunk_rows=config.chunk_rows, counts=counts
    ):
        for task, predictions in chunk.predictions.items():
            parts.setdefault(task, []).append(predictions)
        line.update(done=chunk.stop, total=candidates.num_rows)
    return {task: np.concatenate(several) for task, several in parts.items()}


def slate_table(
    raw: pa.Table,
    slates: SlateRows,
    scores: npt.NDArray[np.float64],
    predictions: Mapping[str, npt.NDArray[np.float64]],
) -> pa.Table:
    """The shown rows of ``raw`` with rank, score and predictions in place of such columns."""
    import pyarrow as pa

    shown = slates.row_index
    table = raw.take(pa.array(shown))
    added = {"rank": pa.array(slates.rank), "score": pa.array(scores[shown])}
    added |= {f"prediction.{task}": pa.array(p[shown]) for task, p in predictions.items()}
    for name, values in added.items():
        if name in table.column_names:
            table = table.drop_columns(name)
        table = table.append_column(name, values)
    return table


def write_manifest(
    slates: Path,
    bundle: ModelBundle,
    weights: ScoreWeights,
    source: FeatureSource,
    summary: ScoreSummary,
) -> None:
    """Say beside the slates what they were made of."""
    from ranker.atomic import sha256_of, write_json

    write_json(
        slates.with_name(slates.name + ".manifest.json"),
        {
            "kind": "slates",
            "sha256": sha256_of(slates),
            "bundle": bundle.weights_sha256,
            "score_weights": {"digest": digest(weights), **weights.model_dump(mode="json")},
            "state_as_of_ms": source.history.as_of_ms,
            "summary": asdict(summary),
        },
    )


def describe(summary: ScoreSummary, output: Path, *, seconds: float) -> str:
    """A line on the slates, and one each on ids that the model can't tell apart and lost rows."""
    lines = [
        f"{output}: {summary.shown:,} items in {summary.requests:,} slates, out of "
        f"{summary.candidates:,} candidates, in {seconds:.1f} s "
        f"({summary.candidates / max(seconds, 1e-9):,.0f}/s)"
    ]
    if summary.unknown_or_null_ids:
        counts = [f"{name} {count:,}" for name, count in summary.unknown_or_null_ids.items()]
        lines.append("  unknown or null ids: " + ", ".join(counts))
    lines += [
        f"  {count:,} candidates have no row in the {owner} table"
        for owner, count in summary.rows_without_owner.items()
    ]
    return "\n".join(lines)
