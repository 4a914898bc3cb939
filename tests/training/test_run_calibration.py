"""What a run calibrates itself with: predictions made before a window was trained on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ranker.bundle import load_bundle
from ranker.data.parquet import DataError
from ranker.data.prepare import Inputs, PrepareSettings, prepare
from ranker.data.store import EncodedStore
from ranker.data.synthetic import SyntheticLog
from ranker.evaluation.calibration_fit import CalibrationConfig
from ranker.evaluation.calibrators import Platt, Ratio
from ranker.manifest import folder_digests
from ranker.schema import Schema
from ranker.training.fit import TrainProgress, train
from ranker.training.settings import TrainConfig

TrainInto = Callable[..., dict[str, str]]
DAY_10, DAY_11 = "2024-03-13", "2024-03-14"


def test_calibrators_are_fitted_on_the_last_windows_progressive_predictions(
    trained_synthetic: Path, store: EncodedStore
) -> None:
    bundle = load_bundle(trained_synthetic / "bundle")
    click = bundle.calibrators.tasks["click"].calibrator
    assert isinstance(click, Platt)
    (window,) = store.windows_between(DAY_10, DAY_11)
    labels = store.column("label.click")[window.start : window.stop]
    assert click.evidence.windows == (DAY_10,)
    assert click.evidence.rows == window.num_rows
    assert click.evidence.positives == labels.sum()
    predicted = pq.read_table(trained_synthetic / "progressive" / f"{DAY_10}.parquet")
    raw = {task: predicted.column(task).to_numpy() for task in bundle.model.tasks}
    calibrated = bundle.calibrators.apply(raw)["click"]
    # the score equation of maximum likelihood: means agree, but for Platt's smoothing
    assert calibrated.mean() == pytest.approx(labels.mean(), abs=5e-3)
    assert isinstance(bundle.calibrators.tasks["watch_time_s"].calibrator, Ratio)
    assert list(bundle.calibration_counts) == [w.label for w in store.windows[3:10]]


def test_training_on_calibrates_as_training_at_once(
    tmp_path: Path, store: EncodedStore, small_train_config: TrainConfig, train_into: TrainInto
) -> None:
    """Also where a window of the first run is taken in."""
    config = small_train_config.model_copy(
        update={
            "before_window": "2024-03-09",
            "calibration": CalibrationConfig(min_labels=50, max_windows=4),
        }
    )
    train_into(tmp_path / "whole", store, config)
    train_into(tmp_path / "three", store, config.model_copy(update={"before_window": "2024-03-07"}))
    start_from = load_bundle(tmp_path / "three" / "bundle")
    train_into(tmp_path / "on", store, config, start_from=start_from)
    whole, on = (folder_digests(tmp_path / name / "bundle") for name in ("whole", "on"))
    assert whole == on
    bundle = load_bundle(tmp_path / "on" / "bundle")
    windows = bundle.calibrators.tasks["like"].calibrator.evidence.windows  # type: ignore[union-attr]
    assert windows[0] < "2024-03-07", "two days of likes were not enough"


class StopError(Exception):
    pass


@pytest.mark.parametrize("stop_after", [2, 9, 17])
def test_a_resumed_run_gives_the_same_bundle(
    stop_after: int, tmp_path: Path, store: EncodedStore, three_days: TrainConfig
) -> None:
    often = three_days.model_copy(update={"checkpoint_every_s": 0.0})
    train(store, often, tmp_path / "whole")
    steps = 0

    def stop(_: TrainProgress) -> None:
        nonlocal steps
        steps += 1
        if steps == stop_after:
            raise StopError

    with pytest.raises(StopError):
        train(store, often, tmp_path / "cut", on_progress=stop)
    train(store, often, tmp_path / "cut", resume=True)
    whole, cut = (folder_digests(tmp_path / name / "bundle") for name in ("whole", "cut"))
    assert whole == cut


def test_a_run_of_one_window_has_nothing_to_calibrate_with(
    tmp_path: Path, store: EncodedStore, small_train_config: TrainConfig, train_into: TrainInto
) -> None:
    one = small_train_config.model_copy(update={"before_window": "2024-03-05"})
    train_into(tmp_path, store, one)
    bundle = load_bundle(tmp_path / "bundle")
    reasons = {c.calibrator.reason for c in bundle.calibrators.tasks.values()}  # type: ignore[union-attr]
    assert reasons == {"no window was predicted before it was trained on"}


def test_removed_or_foreign_progressive_predictions_are_told(
    tmp_path: Path,
    store: EncodedStore,
    three_days: TrainConfig,
    caplog: pytest.LogCaptureFixture,
) -> None:
    train(store, three_days, tmp_path)
    path = tmp_path / "progressive" / "2024-03-06.parquet"
    table = pq.read_table(path)
    path.unlink()
    train(store, three_days, tmp_path, resume=True)
    assert "calibrating without this window" in caplog.text
    assert list(load_bundle(tmp_path / "bundle").calibration_counts) == ["2024-03-05"]
    row = pa.array(table.column("row").to_numpy() + 1)
    pq.write_table(table.set_column(0, "row", row), path)
    with pytest.raises(DataError, match="was predicted on other data"):
        train(store, three_days, tmp_path, resume=True)
    lost = pa.array(np.where(np.arange(table.num_rows) == 9, np.nan, 0.5))
    at = table.column_names.index("click")
    pq.write_table(table.set_column(at, "click", lost), path)
    with pytest.raises(DataError, match="predictions of 'click' are not finite"):
        train(store, three_days, tmp_path, resume=True)


def test_a_log_short_of_negatives_is_predicted_in_the_unit_of_the_whole(
    tmp_path: Path,
    synthetic_log: SyntheticLog,
    synthetic_schema: Schema,
    small_train_config: TrainConfig,
) -> None:
    log = pq.read_table(synthetic_log.log)
    clicks = log.column("click").to_numpy()
    kept = (clicks == 1) | (np.random.default_rng(8).random(len(clicks)) < 0.25)
    pq.write_table(log.filter(pa.array(kept)), tmp_path / "log.parquet")
    tasks = tuple(
        task.model_copy(update={"negatives_kept": 0.25}) if task.name == "click" else task
        for task in synthetic_schema.tasks
    )
    schema = synthetic_schema.model_copy(update={"tasks": tasks})
    inputs = Inputs(
        log=tmp_path / "log.parquet", users=synthetic_log.users, items=synthetic_log.items
    )
    (tmp_path / "prepared").mkdir()
    prepare(inputs, schema, PrepareSettings(), tmp_path / "prepared")
    store = EncodedStore(tmp_path / "prepared")
    train(store, small_train_config, tmp_path / "run")
    bundle = load_bundle(tmp_path / "run" / "bundle")
    assert bundle.schema.task("click").negatives_kept == 0.25
    last = store.windows[-1]
    table = pq.read_table(tmp_path / "run" / "progressive" / f"{last.label}.parquet")
    raw = {"click": table.column("click").to_numpy()}
    labels = store.column("label.click")[last.start : last.stop]
    in_log_unit = bundle.calibrators.apply_in_log_unit(raw)["click"]
    assert in_log_unit.mean() == pytest.approx(labels.mean(), abs=0.01)
    # each kept negative stands for four: weighted so, the corrected predictions are right
    weights = np.where(labels == 1, 1.0, 4.0)
    corrected = bundle.calibrators.apply(raw)["click"]
    assert np.average(corrected, weights=weights) == pytest.approx(
        np.average(labels, weights=weights), abs=0.02
    )
    assert np.average(in_log_unit, weights=weights) > np.average(labels, weights=weights) + 0.1
