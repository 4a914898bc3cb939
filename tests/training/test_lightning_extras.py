"""Lightning's own callbacks and loggers work with our loop."""

from pathlib import Path

import pandas as pd
import pytest
import pytorch_lightning as pl
from pytorch_lightning.loggers import CSVLogger

from ranker.data.store import EncodedStore
from ranker.training.fit import train
from ranker.training.settings import TrainConfig


class Counting(pl.Callback):
    def __init__(self) -> None:
        self.epochs = self.batches = 0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.epochs += 1

    def on_train_batch_end(self, *args: object) -> None:
        self.batches += 1


def test_callbacks_and_loggers(
    store: EncodedStore, three_days: TrainConfig, tmp_path: Path
) -> None:
    counting = Counting()
    config = three_days.model_copy(update={"log_every_steps": 7})
    logger = CSVLogger(tmp_path / "logs")
    result = train(store, config, tmp_path / "run", callbacks=[counting], loggers=[logger])
    assert counting.epochs == len(result.windows) == 3
    assert counting.batches == result.steps
    logger.save()
    logged = pd.read_csv(Path(logger.log_dir) / "metrics.csv")
    assert logged["step"].tolist() == list(range(7, result.steps + 1, 7))
    assert logged["loss"].between(0.5, 10).all()
    assert (logged["examples_per_s"] > 0).all()


def test_a_callback_may_stop_with_an_error_and_the_run_resumes(
    store: EncodedStore, three_days: TrainConfig, tmp_path: Path
) -> None:
    class Stop(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            if trainer.current_epoch == 1:
                raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        train(store, three_days, tmp_path / "run", callbacks=[Stop()])
    resumed = train(store, three_days, tmp_path / "run", resume=True)
    whole = train(store, three_days, tmp_path / "whole")
    assert resumed.steps == whole.steps
    weights = "weights.safetensors"
    assert (resumed.bundle / weights).read_bytes() == (whole.bundle / weights).read_bytes()
