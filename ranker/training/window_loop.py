"""Lightning's loop over the windows that are left: one epoch is one pass over one window.

Before a window is trained on, the model predicts it; after it, and every few seconds, a checkpoint
is saved.
"""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import Logger
from torch import Tensor
from torch.utils.data import DataLoader

from ranker.config import ConfigError
from ranker.data.loader import NumberedBatch, ShuffleSettings, WindowBatches
from ranker.data.parquet import write_table
from ranker.data.store import EncodedStore, Window
from ranker.training.calibration import PROGRESSIVE
from ranker.training.checkpoint import AtomicCheckpointIO, checkpoint_path
from ranker.training.module import Cursor, RankingModule
from ranker.training.progressive import predict_window
from ranker.training.quiet import quiet_lightning
from ranker.training.settings import TrainConfig, TrainProgress, uses_gpu

CHECKPOINTS = "checkpoints"
METRICS = "metrics.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowLoop:
    """What is trained on, where the run's files go, and who is told.

    Attributes:
        known_before: the vocabularies' sizes before the first window; None if nothing has been
            trained before it, so that there is no model to predict it with.
        callbacks, loggers: Lightning's; they see one epoch for each pass over a window.
    """

    store: EncodedStore
    windows: Sequence[Window]
    known_before: Mapping[str, int] | None
    config: TrainConfig
    run_folder: Path
    on_progress: Callable[[TrainProgress], None]
    callbacks: Sequence[pl.Callback] = ()
    loggers: Sequence[Logger] = ()

    def run(self, module: RankingModule) -> Mapping[str, Tensor]:
        """Train from the module's cursor to the end; returns the optimizers' state.

        Raises:
            KeyboardInterrupt: the user interrupted it.
        """
        # worker processes can't hold data on a GPU for us
        resident = uses_gpu(self.config) and self.config.loader_workers == 0
        device = f"cuda:{module.ranks.rank}" if resident else "cpu"
        epochs = self._epochs_from(module.cursor, device)
        if not epochs:
            return module.restored  # it had been interrupted after its last step
        with quiet_lightning():
            trainer = pl.Trainer(
                max_epochs=len(epochs),
                accelerator=self.config.accelerator,
                devices=[module.ranks.rank] if uses_gpu(self.config) else 1,
                logger=list(self.loggers) or False,
                log_every_n_steps=self.config.log_every_steps,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                num_sanity_val_steps=0,
                reload_dataloaders_every_n_epochs=1,
                use_distributed_sampler=False,
                plugins=[AtomicCheckpointIO()],
                callbacks=[*self.callbacks, _Bookkeeping(self, epochs)],
            )
            _fit(trainer, module, _WindowData(self, epochs))
        return module.optimizer_tensors()

    def _epochs_from(self, cursor: Cursor, device: str) -> list[_Epoch]:
        """The passes that are left, from the cursor on."""
        epochs = []
        known = self.known_before
        for window in self.windows:
            for pass_number in range(self.config.passes_per_window):
                place, here = (window.label, pass_number), (cursor.window, cursor.pass_number)
                first_batch = cursor.batch if place == here else 0
                batches = self._batches(window, pass_number, device)
                if place >= here and first_batch < len(batches):
                    epochs.append(
                        _Epoch(
                            window=window,
                            pass_number=pass_number,
                            first_batch=first_batch,
                            batches=batches,
                            known_before=known,
                        )
                    )
            known = window.vocabulary_sizes
        return epochs

    def _batches(self, window: Window, pass_number: int, device: str) -> WindowBatches:
        config = self.config
        return WindowBatches(
            self.store,
            window,
            pass_number=pass_number,
            batch_rows=config.batch_rows,
            shuffle=ShuffleSettings(
                seed=config.seed,
                block_rows=config.shuffle_block_rows,
                buffer_rows=config.shuffle_buffer_rows,
            ),
            device=device,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Epoch:
    """What is left of one pass over one window: its batches from ``first_batch`` on."""

    window: Window
    pass_number: int
    first_batch: int
    batches: WindowBatches
    known_before: Mapping[str, int] | None


def _fit(trainer: pl.Trainer, module: RankingModule, data: pl.LightningDataModule) -> None:
    """``trainer.fit``, but an interrupt stays a KeyboardInterrupt.

    Lightning exits with 1 instead, and leaves the process deaf to the next Ctrl-C.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(module, datamodule=data)
    except SystemExit:
        if not trainer.interrupted:
            raise
        raise KeyboardInterrupt from None
    finally:
        if in_main_thread:
            signal.signal(signal.SIGINT, handler)


class _WindowData(pl.LightningDataModule):
    """The loader of each epoch."""

    def __init__(self, loop: WindowLoop, epochs: Sequence[_Epoch]) -> None:
        super().__init__()
        self._loop, self._epochs = loop, epochs

    def train_dataloader(self) -> DataLoader[NumberedBatch]:
        """Batches from the epoch's first one on, in order."""
        assert self.trainer is not None
        epoch = self._epochs[self.trainer.current_epoch]
        return DataLoader(
            epoch.batches,
            batch_size=None,
            sampler=range(epoch.first_batch, len(epoch.batches)),
            collate_fn=_unchanged,
            num_workers=self._loop.config.loader_workers,
        )


def _unchanged(batch: Any) -> Any:
    return batch


class _Bookkeeping(pl.Callback):
    """Progressive validation before a window, checkpoints, progress and metrics.jsonl.

    Only rank 0 writes and tells.
    """

    def __init__(self, loop: WindowLoop, epochs: Sequence[_Epoch]) -> None:
        self._loop, self._epochs = loop, epochs
        self._last_checkpoint = self._started = time.perf_counter()
        self._rows_total = sum(
            max(0, epoch.window.num_rows - epoch.first_batch * loop.config.batch_rows)
            for epoch in epochs
        )
        self._rows_at_start = -1

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Predict the window with the model that hasn't seen it; then set the cursor to it."""
        assert isinstance(pl_module, RankingModule)
        epoch = self._epochs[trainer.current_epoch]
        cursor = pl_module.cursor
        if self._rows_at_start < 0:
            self._rows_at_start = cursor.rows
        is_new = epoch.pass_number == 0 and epoch.first_batch == 0
        wanted = self._loop.config.progressive_validation and pl_module.ranks.rank == 0
        if wanted and is_new and epoch.known_before is not None:
            store, window = self._loop.store, epoch.window
            with pl_module.averaged():
                table = predict_window(pl_module.model, store, window, epoch.known_before)
            folder = self._loop.run_folder / PROGRESSIVE
            write_table(folder / f"{window.label}.parquet", table)
        pl_module.cursor = Cursor(
            window=epoch.window.label,
            pass_number=epoch.pass_number,
            batch=epoch.first_batch,
            steps=cursor.steps,
            rows=cursor.rows,
        )

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Report, and save a checkpoint when it is time."""
        del outputs, batch, batch_idx
        assert isinstance(pl_module, RankingModule)
        if pl_module.ranks.rank:
            return
        now = time.perf_counter()
        if now - self._last_checkpoint >= self._loop.config.checkpoint_every_s:
            self._save(trainer, pl_module)
        cursor = pl_module.cursor
        rows = cursor.rows - self._rows_at_start
        if trainer.loggers and cursor.steps % self._loop.config.log_every_steps == 0:
            rate = rows / max(now - self._started, 1e-9)
            metrics = {"loss": float(pl_module.last_loss), "examples_per_s": rate}
            for logger in trainer.loggers:
                logger.log_metrics(metrics, step=cursor.steps)
        self._loop.on_progress(
            TrainProgress(
                window=cursor.window,
                rows_done=rows,
                rows_total=self._rows_total,
                seconds=now - self._started,
            )
        )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the mean loss, and save a checkpoint at the pass's end."""
        assert isinstance(pl_module, RankingModule)
        if pl_module.ranks.rank:
            return
        cursor = pl_module.cursor
        epoch = self._epochs[trainer.current_epoch]
        mean_loss = pl_module.take_loss() / epoch.window.num_rows
        _require_finite(mean_loss, cursor.window)
        entry = {
            "window": cursor.window,
            "pass": cursor.pass_number,
            "steps": cursor.steps,
            "rows": cursor.rows,
            "mean_loss": mean_loss,
        }
        with (self._loop.run_folder / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        self._save(trainer, pl_module)

    def _save(self, trainer: pl.Trainer, module: RankingModule) -> None:
        _require_finite(float(module.last_loss), module.cursor.window)
        folder = self._loop.run_folder / CHECKPOINTS
        trainer.save_checkpoint(checkpoint_path(folder, module.cursor.steps), weights_only=False)
        self._last_checkpoint = time.perf_counter()


def _require_finite(loss: float, window: str) -> None:
    """Stop before weights that are no numbers are saved.

    Raises:
        ConfigError: the loss is infinite or no number.
    """
    if not math.isfinite(loss):
        raise ConfigError(
            f"training diverged in window {window}: the loss is {loss}; lower the rates "
            "(optimizer.dense_rate, optimizer.embedding.rate) and train anew"
        )
