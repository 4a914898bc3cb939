"""The pure middle of a scoring job: the rows of a shard become slates.

`N` candidates, `M` rows of all slates together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ranker.bundle import ModelBundle
from ranker.config import ConfigError, digest
from ranker.data.features import FeatureSource
from ranker.data.parquet import DataError
from ranker.score_weights import ScoreWeights
from ranker.scoring.combine import combine
from ranker.scoring.job.request_runs import run_codes
from ranker.scoring.job.score_sketch import ScoreSketch
from ranker.scoring.job.shard_counts import ShardCounts
from ranker.scoring.predict import ScoringCounts
from ranker.scoring.runtimes.predictor import Predictor
from ranker.scoring.score_config import ScoreConfig
from ranker.scoring.slates.exposure import PolicyDigests
from ranker.scoring.slates.slate import SlateRows
from ranker.scoring.slates.slate_maker import SlateMaker
from ranker.scoring.stage_clock import stage

Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScoredShard:
    """The slates of a shard [M], by request in the candidates' order, then rank; and counts."""

    table: pa.Table
    counts: ShardCounts


class ShardScorer:
    """Scores one shard after the other; a shard's result depends on nothing but its rows."""

    def __init__(
        self,
        *,
        bundle: ModelBundle,
        source: FeatureSource,
        predictor: Predictor,
        score_weights: ScoreWeights,
        config: ScoreConfig,
        travelling: Sequence[str],
    ) -> None:
        """``travelling`` are the raw columns that the slates get."""
        self.bundle = bundle
        self._predictor, self._score_weights = predictor, score_weights
        self._travelling = tuple(travelling)
        self._maker = SlateMaker(
            config=config.slate,
            source=source,
            combination=score_weights.combination,
            policy=PolicyDigests(bundle=bundle.weights_sha256, score_weights=digest(score_weights)),
            seed=config.seed,
        )

    def score(self, raw: pa.Table, canonical: pa.Table) -> ScoredShard:
        """Make slates.

        Args:
            raw: candidates in the log's own columns, with any others, [N].
            canonical: the same rows as `ranker.data.tables` reads them, each request's rows side
                by side, [N].

        Raises:
            DataError: the state is newer than a request, or of other ids.
            ConfigError: score weights that predictions can't be combined with, or slates that
                can't be made of these candidates.
        """
        seen = ScoringCounts()
        predictions = self._predictor.predict(canonical, seen)
        with stage("score"):
            requests = run_codes(canonical, self.bundle.schema)
            predictions = calibrated_predictions(self.bundle, predictions)
            scores = combined_scores(
                self.bundle, predictions, self._score_weights, requests=requests
            )
            sketch = ScoreSketch.of(scores)
        with stage("top-k"):
            try:
                made = self._maker.make(raw, canonical, request=requests, scores=scores)
            except ValueError as error:
                raise error if isinstance(error, DataError) else ConfigError(str(error)) from None
            table = slate_table(raw.select(self._travelling), made.rows, scores, predictions)
            table = with_columns(table, made.columns)
        counts = ShardCounts(
            requests=int(requests[-1]) + 1,
            candidates=canonical.num_rows,
            slates=made.counts,
            unknown_or_null_ids=dict(seen.unknown_by_feature),
            rows_without_owner=dict(seen.missing_owners),
            scores=sketch,
        )
        return ScoredShard(table=table, counts=counts)


def calibrated_predictions(
    bundle: ModelBundle, predictions: Mapping[str, Float64Array]
) -> dict[str, Float64Array]:
    """What people see of a model's raw predictions.

    Raises:
        ConfigError: predictions that are not finite, or no probabilities.
    """
    try:
        return bundle.calibrators.apply(predictions)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def combined_scores(
    bundle: ModelBundle,
    predictions: Mapping[str, Float64Array],
    weights: ScoreWeights,
    *,
    requests: IntArray,
) -> Float64Array:
    """One score a candidate, of calibrated predictions and the codes of requests, [N] each.

    Raises:
        ConfigError: weights so large that scores overflow, or predictions that are not finite.
    """
    try:
        return combine(
            predictions, score_weights=weights, tasks=bundle.schema.tasks, requests=requests
        )
    except ValueError as error:
        raise ConfigError(str(error)) from None


def slate_table(
    raw: pa.Table, slates: SlateRows, scores: Float64Array, predictions: Mapping[str, Float64Array]
) -> pa.Table:
    """The shown rows of ``raw`` with rank, score and predictions in place of such columns."""
    shown = slates.row_index
    table = raw.take(pa.array(shown))
    added = {"rank": pa.array(slates.rank), "score": pa.array(scores[shown])}
    added |= {f"prediction.{task}": pa.array(p[shown]) for task, p in predictions.items()}
    return with_columns(table, added)


def with_columns(table: pa.Table, columns: Mapping[str, pa.Array]) -> pa.Table:
    """The table with ``columns`` appended, in place of any of the same name."""
    for name, values in columns.items():
        if name in table.column_names:
            table = table.drop_columns(name)
        table = table.append_column(name, values)
    return table
