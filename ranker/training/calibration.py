"""A run's calibrators, from the predictions it made of each window before training on it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ranker.bundle import ModelBundle
from ranker.data.parquet import DataError, read_table
from ranker.data.store import EncodedStore, Window
from ranker.evaluation.calibration_counts import CountsByTask, CountsByWindow, count_window
from ranker.evaluation.calibration_fit import CalibrationConfig, fit_calibrators, last_windows
from ranker.evaluation.calibrators import Calibrators

PROGRESSIVE = "progressive"
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Calibrators, and the counts that the next run goes on with."""

    calibrators: Calibrators
    counts: CountsByWindow


def fit_on_progressive(
    store: EncodedStore,
    windows: Sequence[Window],
    run_folder: Path,
    config: CalibrationConfig,
    start_from: ModelBundle | None,
) -> Calibration:
    """Fit on the newest windows, those of the continued bundle included.

    Each was predicted by the model that had been trained up to its beginning, with the position
    missing. The first window of all was predicted by none.
    """
    predicted = windows if start_from is not None else windows[1:]
    counts: dict[str, CountsByTask] = {}
    if start_from is not None:
        counts |= start_from.calibration_counts
    for window in predicted[-config.max_windows :]:
        path = run_folder / PROGRESSIVE / f"{window.label}.parquet"
        found = _count(store, window, path)
        if found is not None:
            counts[window.label] = found
    kept = last_windows(counts, config)
    return Calibration(calibrators=fit_calibrators(kept, store.schema.tasks, config), counts=kept)


def _count(store: EncodedStore, window: Window, path: Path) -> CountsByTask | None:
    """One window's counts; None, with a warning, if somebody removed its predictions.

    Raises:
        DataError: the predictions are damaged, of other rows, or not finite.
    """
    if not path.is_file():
        logger.warning("%s is missing: calibrating without this window", path)
        return None
    tasks = store.schema.tasks
    table = read_table(path, ["row", *(task.name for task in tasks)])
    if not np.array_equal(table.column("row").to_numpy(), np.arange(window.start, window.stop)):
        raise DataError(f"{path}: was predicted on other data than {store.folder}; train anew")
    predictions = {task.name: table.column(task.name).to_numpy() for task in tasks}
    for name, values in predictions.items():
        if not np.isfinite(values).all():
            raise DataError(
                f"{path}: predictions of {name!r} are not finite: training diverged; lower the "
                "rates (optimizer.dense_rate, optimizer.embedding.rate) and train anew"
            )
    span = slice(window.start, window.stop)
    labels = {
        task.name: np.asarray(store.column(f"label.{task.name}")[span], dtype=np.float64)
        for task in tasks
    }
    return count_window(labels, predictions, tasks)
