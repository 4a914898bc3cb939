"""Training in temporal order: window after window, each evaluated before it is trained on.

A run folder holds ``checkpoints/`` (to resume), ``progressive/<window>.parquet`` (predictions made
for a window by the model that had not seen it), ``metrics.jsonl`` and, at the end, ``bundle/``.
"""

from __future__ import annotations

import json
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pytorch_lightning as pl
import torch
from pydantic import Field
from torch.utils.data import DataLoader

from ranker.atomic import write_text
from ranker.bundle import (
    GOLDEN_ROWS,
    BundleConfig,
    DataWindow,
    ModelBundle,
    build_bundle_model,
    check_same_features,
    save_bundle,
)
from ranker.config import Config, digest
from ranker.data.encode import Encoders
from ranker.data.loader import (
    NumberedBatch,
    ShuffleSettings,
    WindowBatches,
    read_batch,
    read_in_order,
)
from ranker.data.parquet import DataError, write_table
from ranker.data.store import EncodedStore, Window
from ranker.models.build import ModelConfig
from ranker.models.ranking_model import RankingModel
from ranker.score_weights import default_score_weights
from ranker.training.checkpoint import AtomicCheckpointIO, checkpoint_path, newest_intact
from ranker.training.module import Cursor, RankingModule
from ranker.training.optimizers import OptimizerConfig

logger = logging.getLogger(__name__)
EVALUATION_ROWS = 8192


class TrainConfig(Config):
    """Everything a training run depends on besides its data.

    Attributes:
        first_window, before_window: train on windows with ``first <= label < before`` (local
            dates); left out, the data's ends.
        passes_per_window: how often a window is passed over before the next one's turn.
        shuffle_block_rows, shuffle_buffer_rows: see `ranker.data.loader.ShuffleSettings`.
        checkpoint_every_s: seconds between checkpoints; one more at each window's end.
        threads: torch's threads; byte identity is promised for equal numbers.
    """

    seed: int = 0
    first_window: str = ""
    before_window: str = ""
    batch_rows: int = Field(default=512, ge=1)
    passes_per_window: int = Field(default=1, ge=1)
    shuffle_block_rows: int = Field(default=256, ge=1)
    shuffle_buffer_rows: int = Field(default=131_072, ge=1)
    loader_workers: int = Field(default=0, ge=0)
    checkpoint_every_s: float = Field(default=60.0, ge=0)
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    threads: int = Field(default=2, ge=1)
    model: ModelConfig = ModelConfig()
    optimizer: OptimizerConfig = OptimizerConfig()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainProgress:
    """Where a run stands; reported after every step."""

    window: str
    rows_done: int
    rows_total: int
    rows_this_run: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """What a run has made."""

    bundle: Path
    windows: tuple[str, ...]
    rows_trained: int
    steps: int
    seconds: float
    examples_per_s: float


def train(
    store: EncodedStore,
    config: TrainConfig,
    run_folder: Path,
    *,
    start_from: ModelBundle | None = None,
    resume: bool = False,
    on_progress: Callable[[TrainProgress], None] = lambda _: None,
) -> TrainResult:
    """Train a bundle into ``run_folder``.

    Args:
        store: prepared data.
        config: the run; with ``start_from`` its model config and seed must be the bundle's.
        run_folder: receives the run's files.
        start_from: continue this bundle with the windows after its last one.
        resume: go on from the newest intact checkpoint in ``run_folder``.
        on_progress: called after every step.

    Raises:
        DataError: no windows to train on, or a store that does not continue the bundle's.
    """
    torch.set_num_threads(config.threads)
    windows = select_windows(store, config, start_from)
    encoders = store.encoders.head(windows[-1].vocabulary_sizes)
    if start_from is not None:
        check_same_features(start_from, store.schema, encoders, str(store.folder))
    module = _build_module(store, config, encoders, windows[0], start_from)
    run_key = _run_key(store, config, windows, start_from)
    if resume:
        _resume(module, run_folder, run_key)
    run = _Run(store, config, run_folder, windows, run_key, on_progress)
    started = time.perf_counter()
    rows_before = module.cursor.rows
    run.fit(module)
    seconds = time.perf_counter() - started
    bundle = ModelBundle(
        model=module.model.eval(),
        schema=store.schema,
        encoders=encoders,
        config=BundleConfig(seed=config.seed, model=config.model),
        score_weights=start_from.score_weights
        if start_from is not None
        else default_score_weights(store.schema.tasks),
        data_window=DataWindow(
            first=windows[0].label if start_from is None else start_from.data_window.first,
            last=windows[-1].label,
            rows=module.cursor.rows,
            steps=module.cursor.steps,
        ),
        optimizer=run.final_optimizer,
        weights_sha256="",
    )
    last = windows[-1]
    golden_rows = np.arange(max(last.start, last.stop - GOLDEN_ROWS), last.stop, dtype=np.int64)
    golden = read_batch(store, golden_rows, last.vocabulary_sizes)
    save_bundle(run_folder / "bundle", bundle, golden)
    rows = module.cursor.rows - rows_before
    return TrainResult(
        bundle=run_folder / "bundle",
        windows=tuple(window.label for window in windows),
        rows_trained=rows,
        steps=module.cursor.steps,
        seconds=seconds,
        examples_per_s=rows / seconds if seconds > 0 else 0.0,
    )


def select_windows(
    store: EncodedStore, config: TrainConfig, start_from: ModelBundle | None
) -> tuple[Window, ...]:
    """The windows a run trains on, past to future.

    Raises:
        DataError: there are none.
    """
    windows = store.windows_between(config.first_window or None, config.before_window or None)
    if start_from is not None:
        windows = tuple(w for w in windows if w.label > start_from.data_window.last)
    if not windows:
        have = f"{store.windows[0].label} .. {store.windows[-1].label}"
        after = f" after {start_from.data_window.last}" if start_from is not None else ""
        asked = f"{config.first_window or 'the first'} <= window < {config.before_window or 'end'}"
        raise DataError(f"{store.folder}: no windows to train on{after}: {asked}; it has {have}")
    return windows


def _build_module(
    store: EncodedStore,
    config: TrainConfig,
    encoders: Encoders,
    first: Window,
    start_from: ModelBundle | None,
) -> RankingModule:
    bundle_config = BundleConfig(seed=config.seed, model=config.model)
    model = build_bundle_model(bundle_config, store.schema, encoders)
    steps = rows = 0
    if start_from is not None:
        if start_from.config != bundle_config:
            raise DataError(
                "the config's model or seed differs from the bundle's; to continue a bundle they "
                "must be the same"
            )
        _copy_weights(start_from.model, model)
        steps, rows = start_from.data_window.steps, start_from.data_window.rows
    module = RankingModule(
        model,
        loss_weights={task.name: task.loss_weight for task in store.schema.tasks},
        optimizer=config.optimizer,
        seed=config.seed,
        cursor=Cursor(window=first.label, pass_number=0, batch=0, steps=steps, rows=rows),
    )
    if start_from is not None:
        module.restore(start_from.optimizer)
    return module


def _copy_weights(old: RankingModel, new: RankingModel) -> None:
    """Old values into a model whose tables may have more rows; new rows keep their initial ones."""
    state = new.state_dict()
    for name, values in old.state_dict().items():
        if state[name].shape == values.shape:
            state[name] = values
        else:
            state[name][: values.shape[0]] = values
    new.load_state_dict(state)


def _run_key(
    store: EncodedStore,
    config: TrainConfig,
    windows: Sequence[Window],
    start_from: ModelBundle | None,
) -> str:
    """What a checkpoint must share with the run that resumes it."""
    free = {"loader_workers": 0, "checkpoint_every_s": 0.0}
    parts = [
        digest(config.model_copy(update=free)),
        digest(store.schema),
        json.dumps([(w.label, w.num_rows) for w in windows]),
        json.dumps(store.sha256_by_column, sort_keys=True),
        "" if start_from is None else start_from.weights_sha256,
    ]
    return "|".join(parts)


def _resume(module: RankingModule, run_folder: Path, run_key: str) -> None:
    path = newest_intact(run_folder / "checkpoints")
    if path is None:
        logger.warning("%s holds no intact checkpoint: starting from the beginning", run_folder)
        return
    key_file = run_folder / "checkpoints" / "run_key"
    if not key_file.is_file() or key_file.read_text() != run_key:
        raise DataError(
            f"{run_folder}: its checkpoints belong to another config or other data; give the same "
            "ones, or another --output"
        )
    module.load(AtomicCheckpointIO().load_checkpoint(path))
    logger.info("resuming at window %s, batch %d", module.cursor.window, module.cursor.batch)


class _Run:
    """One trainer.fit over what is left of the windows."""

    def __init__(
        self,
        store: EncodedStore,
        config: TrainConfig,
        run_folder: Path,
        windows: Sequence[Window],
        run_key: str,
        on_progress: Callable[[TrainProgress], None],
    ) -> None:
        self.store, self.config, self.run_folder = store, config, run_folder
        self.windows = {window.label: window for window in windows}
        self.on_progress = on_progress
        self.run_key = run_key
        self.final_optimizer: Mapping[str, torch.Tensor] = {}

    def fit(self, module: RankingModule) -> None:
        """Train from the module's cursor to the end."""
        epochs = list(self._epochs_from(module.cursor))
        (self.run_folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        write_text(self.run_folder / "checkpoints" / "run_key", self.run_key)
        trainer = pl.Trainer(
            max_epochs=len(epochs),
            accelerator=self.config.accelerator,
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            reload_dataloaders_every_n_epochs=1,
            use_distributed_sampler=False,
            plugins=[AtomicCheckpointIO()],
            callbacks=[_Bookkeeping(self, epochs)],
        )
        data = _WindowData(self, module, epochs)
        if not epochs:
            self.final_optimizer = module.restored  # interrupted after its last step
            return
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*does not have many workers.*")
            warnings.filterwarnings("ignore", ".*Sampler.*", UserWarning)
            warnings.filterwarnings("ignore", ".*LeafSpec.*")
            trainer.fit(module, datamodule=data)
        if trainer.interrupted:
            raise KeyboardInterrupt
        self.final_optimizer = module.optimizer_tensors()

    def _epochs_from(self, cursor: Cursor) -> Iterator[tuple[Window, int, int]]:
        """(window, pass, first batch) of each remaining epoch."""
        for label, window in self.windows.items():
            for pass_number in range(self.config.passes_per_window):
                if (label, pass_number) < (cursor.window, cursor.pass_number):
                    continue
                at_cursor = (label, pass_number) == (cursor.window, cursor.pass_number)
                first_batch = cursor.batch if at_cursor else 0
                if first_batch < len(self.batches(window, pass_number)):
                    yield window, pass_number, first_batch

    def batches(self, window: Window, pass_number: int) -> WindowBatches:
        """The batches of one pass over ``window``."""
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
        )


class _WindowData(pl.LightningDataModule):
    """One epoch is what is left of one pass over one window."""

    def __init__(
        self, run: _Run, module: RankingModule, epochs: list[tuple[Window, int, int]]
    ) -> None:
        super().__init__()
        self._run, self._module, self._epochs = run, module, epochs

    def train_dataloader(self) -> DataLoader[NumberedBatch]:
        """Batches from the epoch's first one on, in order."""
        assert self.trainer is not None
        window, pass_number, first_batch = self._epochs[self.trainer.current_epoch]
        batches = self._run.batches(window, pass_number)
        return DataLoader(
            batches,
            batch_size=None,
            sampler=range(first_batch, len(batches)),
            collate_fn=_unchanged,
            num_workers=self._run.config.loader_workers,
        )


def _unchanged(batch: NumberedBatch) -> NumberedBatch:
    return batch


class _Bookkeeping(pl.Callback):
    """Progressive validation before a window, checkpoints, progress and metrics.jsonl."""

    def __init__(self, run: _Run, epochs: list[tuple[Window, int, int]]) -> None:
        self._run, self._epochs = run, epochs
        self._last_checkpoint = self._started = time.perf_counter()
        self._rows_total = sum(
            window.num_rows - first_batch * run.config.batch_rows
            for window, _, first_batch in epochs
        )
        self._rows_at_start = -1

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Evaluate the window with the model that hasn't seen it; then set the cursor to it."""
        assert isinstance(pl_module, RankingModule)
        window, pass_number, first_batch = self._epochs[trainer.current_epoch]
        cursor = pl_module.cursor
        if self._rows_at_start < 0:
            self._rows_at_start = cursor.rows
        if pass_number == 0 and first_batch == 0 and cursor.rows > 0:
            self._validate(pl_module.model, window)
        pl_module.cursor = Cursor(
            window=window.label,
            pass_number=pass_number,
            batch=first_batch,
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
        now = time.perf_counter()
        rows = pl_module.cursor.rows - self._rows_at_start
        self._run.on_progress(
            TrainProgress(
                window=pl_module.cursor.window,
                rows_done=rows,
                rows_total=self._rows_total,
                rows_this_run=rows,
                seconds=now - self._started,
            )
        )
        if now - self._last_checkpoint >= self._run.config.checkpoint_every_s:
            self._save(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the mean loss, and save a checkpoint at the window's end."""
        assert isinstance(pl_module, RankingModule)
        cursor = pl_module.cursor
        window = self._run.windows[cursor.window]
        entry = {
            "window": window.label,
            "pass": cursor.pass_number,
            "steps": cursor.steps,
            "rows": cursor.rows,
            "mean_loss": pl_module.take_loss() / window.num_rows,
        }
        with (self._run.run_folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        self._save(trainer, pl_module)

    def _save(self, trainer: pl.Trainer, module: RankingModule) -> None:
        folder = self._run.run_folder / "checkpoints"
        trainer.save_checkpoint(checkpoint_path(folder, module.cursor.steps), weights_only=False)
        self._last_checkpoint = time.perf_counter()

    def _validate(self, model: RankingModel, window: Window) -> None:
        """Write the predictions for ``window``; ids first seen in it are unknown to the model."""
        windows = self._run.store.windows
        earlier = windows[windows.index(window) - 1] if windows.index(window) else window
        known = earlier.vocabulary_sizes
        table = predict_window(model, self._run.store, window, known)
        write_table(self._run.run_folder / "progressive" / f"{window.label}.parquet", table)


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
        batch_rows=EVALUATION_ROWS,
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
