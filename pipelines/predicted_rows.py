"""A bundle's predictions for rows of a store: for each impression, and for lists to be ordered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ranker.bundle import ModelBundle
    from ranker.data.batch import Batch
    from ranker.data.store import EncodedStore
    from ranker.evaluation.metrics import FloatArray, IntArray
    from ranker.evaluation.rows import EvaluationRows


def predict_impressions(
    bundle: ModelBundle, store: EncodedStore, rows: EvaluationRows
) -> dict[str, FloatArray]:
    """Calibrated predictions [N] by task in the unit of the log, each at its own moment."""
    return bundle.calibrators.apply_in_log_unit(predict_rows(bundle, store, rows)[0])


def predict_lists(
    bundle: ModelBundle, store: EncodedStore, rows: EvaluationRows
) -> dict[str, FloatArray]:
    """The same, each by the request of its list's first impression: what lists are ordered by."""
    from ranker.evaluation.list_moment import request_rows

    raw, _ = predict_rows(bundle, store, rows, requests=request_rows(store, rows))
    return bundle.calibrators.apply_in_log_unit(raw)


def predict_rows(
    bundle: ModelBundle,
    store: EncodedStore,
    rows: EvaluationRows,
    *,
    requests: IntArray | None = None,
) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
    """Raw predictions [N] by task, and gate weights [N, E] by task (empty without gates).

    With ``requests`` [N] the request's features are those of these rows of the store.
    """
    import numpy as np
    import torch

    predictions: dict[str, list[np.ndarray[tuple[int], np.dtype[np.float64]]]] = {}
    gates: dict[str, list[np.ndarray[tuple[int, int], np.dtype[np.float64]]]] = {}
    with torch.no_grad():
        for batch in _batches(bundle, store, rows, requests):
            for task, values in bundle.model.predict(batch).items():
                predictions.setdefault(task, []).append(values.double().numpy())
            for task, weights in bundle.model.gate_weights(batch).items():
                gates.setdefault(task, []).append(weights.double().numpy())
    return (
        {task: np.concatenate(parts) for task, parts in predictions.items()},
        {task: np.concatenate(parts) for task, parts in gates.items()},
    )


def _batches(
    bundle: ModelBundle, store: EncodedStore, rows: EvaluationRows, requests: IntArray | None
) -> Iterator[Batch]:
    from ranker.data.feature_side import names_on
    from ranker.data.loader import read_batch, read_in_order
    from ranker.models.ranking_model import PREDICTION_ROWS

    sizes = bundle.encoders.sizes
    batches = read_in_order(
        store, rows.start, rows.stop, vocabulary_sizes=sizes, batch_rows=PREDICTION_ROWS
    )
    if requests is None:
        yield from batches
        return
    of_request = names_on("request", store.schema)
    for number, batch in enumerate(batches):
        start = number * PREDICTION_ROWS
        asked = read_batch(store, requests[start : start + batch.num_rows], sizes)
        yield with_request_of(asked, batch, of_request)


def with_request_of(asked: Batch, batch: Batch, of_request: tuple[str, ...]) -> Batch:
    """``batch`` as its rows would be as candidates of the requests of ``asked``, row by row."""
    from ranker.data.batch import Batch

    features = dict(batch.features) | {name: asked.features[name] for name in of_request}
    return Batch(features=features, labels=batch.labels, position=asked.position)
