"""Predictions for a window by a model that has not seen it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from ranker.data.loader import read_in_order
from ranker.data.store import EncodedStore, Window
from ranker.models.ranking_model import PREDICTION_ROWS, RankingModel


def predict_window(
    model: RankingModel,
    store: EncodedStore,
    window: Window,
    vocabulary_sizes: Mapping[str, int],
) -> pa.Table:
    """Predictions for a window: ``row`` (in the store) and a column per task."""
    was_training = model.training
    model.eval()
    parts: dict[str, list[np.ndarray[Any, np.dtype[np.float64]]]] = {t: [] for t in model.tasks}
    batches = read_in_order(
        store,
        window.start,
        window.stop,
        vocabulary_sizes=vocabulary_sizes,
        batch_rows=PREDICTION_ROWS,
    )
    device = next(model.parameters()).device
    with torch.no_grad():
        for batch in batches:
            for task, values in model.predict(batch.to(device)).items():
                parts[task].append(values.double().cpu().numpy())
    model.train(was_training)
    columns: dict[str, Any] = {"row": np.arange(window.start, window.stop, dtype=np.int64)}
    columns |= {task: np.concatenate(values) for task, values in parts.items()}
    return pa.table(columns)
