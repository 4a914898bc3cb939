"""Candidates become predictions: the features of a state, the model of a bundle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from ranker.bundle import ModelBundle, check_same_features
from ranker.config import digest
from ranker.data.features import ColumnArray, FeatureSource, encode_rows, standardise_columns
from ranker.data.loader import make_batch
from ranker.data.moment_text import moment_text
from ranker.data.parquet import DataError
from ranker.models.ranking_model import PREDICTION_ROWS
from ranker.scoring.runtimes.forward import Forward, eager_forward


@dataclass(slots=True)
class ScoringCounts:
    """What was unusual about the scored rows.

    ``unknown_by_feature`` counts ids that are not in the vocabulary, nulls among them.
    """

    rows: int = 0
    unknown_by_feature: Counter[str] = field(default_factory=Counter)
    missing_owners: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredChunk:
    """Rows ``start:stop`` of the candidates with their encoded columns and predictions [N]."""

    start: int
    stop: int
    columns: dict[str, ColumnArray]
    predictions: dict[str, npt.NDArray[np.float64]]


def predict_candidates(
    bundle: ModelBundle,
    source: FeatureSource,
    candidates: pa.Table,
    *,
    chunk_rows: int,
    counts: ScoringCounts,
) -> Iterator[ScoredChunk]:
    """Predict every task for canonical candidate rows, chunk by chunk.

    Raises:
        DataError: a state newer than a request, or one that does not belong to the bundle.
    """
    check_state(bundle, source, candidates)
    for start in range(0, candidates.num_rows, chunk_rows):
        rows = candidates.slice(start, chunk_rows)
        encoded = encode_rows(rows, source, learn=False)
        counts.rows += rows.num_rows
        counts.unknown_by_feature.update(encoded.unknown_by_feature)
        counts.missing_owners.update(encoded.missing_owners)
        columns = standardise_columns(encoded.columns, bundle.encoders)
        yield ScoredChunk(
            start=start,
            stop=start + rows.num_rows,
            columns=columns,
            predictions=predict_columns(bundle, columns),
        )


def predict_columns(
    bundle: ModelBundle, columns: dict[str, ColumnArray], *, forward: Forward | None = None
) -> dict[str, npt.NDArray[np.float64]]:
    """Task -> predictions [N] for encoded, standardised columns, the model's own by default."""
    forward = forward or eager_forward(bundle.model)
    num_rows = len(columns["time_ms"])
    parts: dict[str, list[npt.NDArray[np.float64]]] = {t.name: [] for t in bundle.schema.tasks}
    with torch.no_grad():
        for start in range(0, num_rows, PREDICTION_ROWS):
            piece = {
                name: values[start : start + PREDICTION_ROWS] for name, values in columns.items()
            }
            batch = make_batch(piece, bundle.schema, bundle.encoders.sizes)
            for task, values in forward(batch).items():
                parts[task].append(values.double().numpy())
    empty = np.zeros(0)
    return {task: np.concatenate(values) if values else empty for task, values in parts.items()}


def check_state(bundle: ModelBundle, source: FeatureSource, requests: pa.Table) -> None:
    """Raise `DataError` unless the state fits the bundle and is not newer than any request."""
    check_belongs(bundle, source)
    check_not_newer(source, requests)


def check_belongs(bundle: ModelBundle, source: FeatureSource) -> None:
    """Raise `DataError` unless the state's ids mean to the bundle what they say."""
    is_older = bundle.encoders.extends(source.encoders) and not source.encoders.extends(
        bundle.encoders
    )
    if is_older and digest(bundle.schema) == digest(source.schema):
        raise DataError(
            f"the state (as of {moment_text(source.history.as_of_ms)}) is older than the bundle, "
            f"which was trained on windows up to {bundle.data_window.last} and knows ids that the "
            "state lacks; use a state from the end of that window or later"
        )
    check_same_features(bundle, source.schema, source.encoders, "the state")


def check_not_newer(source: FeatureSource, requests: pa.Table) -> None:
    """Raise `DataError` if the state knows more than was known at some request's time."""
    if requests.num_rows == 0:
        return
    times = np.asarray(requests.column("time_ms").to_numpy(), dtype=np.int64)
    newer = int((times < source.history.as_of_ms).sum())
    if newer:
        raise DataError(
            f"the state (as of {moment_text(source.history.as_of_ms)}) is newer than {newer:,} of "
            f"{len(times):,} rows, the first at {moment_text(int(times.min()))}: it knows their "
            "future; use a snapshot from before them (prepare --set \"snapshots=['DATE']\")"
        )
