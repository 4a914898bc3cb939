"""Training in temporal order: window after window, each predicted before it is trained on.

A run folder holds ``checkpoints/`` (to resume), ``progressive/<window>.parquet`` (predictions made
for a window by the model that had not seen it), ``metrics.jsonl`` and, at the end, ``bundle/``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from pytorch_lightning import Callback
from pytorch_lightning.loggers import Logger
from torch import Tensor

from ranker.bundle import (
    GOLDEN_ROWS,
    BundleConfig,
    DataWindow,
    ModelBundle,
    build_bundle_model,
    check_same_features,
    save_bundle,
)
from ranker.data.batch import Batch
from ranker.data.encode import Encoders
from ranker.data.loader import read_batch
from ranker.data.parquet import DataError
from ranker.data.store import EncodedStore, Window
from ranker.models.build import input_layout
from ranker.models.ranking_model import RankingModel
from ranker.score_weights import ScoreWeights, default_score_weights
from ranker.training.calibration import fit_on_progressive
from ranker.training.freed_memory import keep_freed_memory
from ranker.training.gradients import StepSettings
from ranker.training.module import Cursor, RankingModule
from ranker.training.optimizers import (
    copy_table_rows,
    grow_optimizer_tensors,
    publish_average,
)
from ranker.training.ranks import Ranks, started_ranks
from ranker.training.resumption import (
    forget_what_follows,
    load_checkpoint,
    newest_checkpoint,
    run_key_of,
)
from ranker.training.settings import TrainConfig, TrainProgress, require_gpus, uses_gpu
from ranker.training.window_loop import WindowLoop

__all__ = ["TrainConfig", "TrainProgress", "TrainResult", "check_run", "select_windows", "train"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """What a run has made.

    Attributes:
        rows: of the whole run.
        rows_trained: by this process, as are the seconds and the speed; a resumed run has been
            through some rows before.
    """

    bundle: Path
    windows: tuple[str, ...]
    rows: int
    rows_trained: int
    steps: int
    seconds: float
    examples_per_s: float


def check_run(
    store: EncodedStore, config: TrainConfig, start_from: ModelBundle | None
) -> tuple[Window, ...]:
    """The windows to train on; refuses what `train` would refuse, before anything is written.

    Raises:
        DataError: no windows to train on, or a store that does not continue the bundle's.
        ConfigError: no task counts in the score, features that don't exist, or too few GPUs.
    """
    return _Run(store=store, config=config, start_from=start_from).windows


def train(
    store: EncodedStore,
    config: TrainConfig,
    run_folder: Path,
    *,
    start_from: ModelBundle | None = None,
    resume: bool = False,
    on_progress: Callable[[TrainProgress], None] = lambda _: None,
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[Logger] = (),
) -> TrainResult:
    """Train a bundle into ``run_folder``.

    Args:
        store: prepared data.
        config: the run; with ``start_from`` its model config and seed must be the bundle's.
        run_folder: receives the run's files.
        start_from: continue this bundle with the windows after its last one.
        resume: go on from the newest intact checkpoint in ``run_folder``.
        on_progress: called after every step.
        callbacks: Lightning's; one epoch is one pass over one window.
        loggers: Lightning's; told the loss and the speed every ``config.log_every_steps``.

    Raises:
        DataError, ConfigError: see `check_run`.
    """
    torch.set_num_threads(config.threads)
    keep_freed_memory()
    run = _Run(store=store, config=config, start_from=start_from)
    follower = _Follower(prepared=store.folder, config=config, start_from=start_from)
    backend = "nccl" if uses_gpu(config) else "gloo"
    rendezvous = run_folder / ".ranks"
    run_folder.mkdir(parents=True, exist_ok=True)
    with started_ranks(config.processes, follower, backend=backend, rendezvous=rendezvous) as ranks:
        module = run.module(ranks)
        run_key = run_key_of(store, config, run.windows, start_from)
        checkpoint = newest_checkpoint(run_folder, run_key, resume=resume)
        load_checkpoint(module, ranks.shared(None if checkpoint is None else str(checkpoint)))
        forget_what_follows(run_folder, checkpoint, run_key, last_step=module.cursor.steps)
        loop = WindowLoop(
            store=store,
            windows=run.windows,
            known_before=run.known_before,
            config=config,
            run_folder=run_folder,
            on_progress=on_progress,
            callbacks=callbacks,
            loggers=loggers,
        )
        started = time.perf_counter()
        rows_before = module.cursor.rows
        optimizer = publish_average(module.model, loop.run(module))
    seconds = time.perf_counter() - started
    _save(run, run_folder, module, optimizer)
    rows = module.cursor.rows - rows_before
    return TrainResult(
        bundle=run_folder / "bundle",
        windows=tuple(window.label for window in run.windows),
        rows=module.cursor.rows,
        rows_trained=rows,
        steps=module.cursor.steps,
        seconds=seconds,
        examples_per_s=rows / seconds if seconds > 0 else 0.0,
    )


def _save(
    run: _Run, run_folder: Path, module: RankingModule, optimizer: Mapping[str, Tensor]
) -> None:
    """Calibrate, and write the bundle."""
    store, config, start_from = run.store, run.config, run.start_from
    predicted = run.windows if config.progressive_validation else []
    calibration = fit_on_progressive(store, predicted, run_folder, config.calibration, start_from)
    save_bundle(
        run_folder / "bundle",
        ModelBundle(
            model=module.model.eval(),
            schema=store.schema,
            encoders=run.encoders,
            config=run.bundle_config,
            score_weights=run.score_weights,
            calibrators=calibration.calibrators,
            calibration_counts=calibration.counts,
            data_window=_data_window(run.windows, module.cursor, start_from),
            optimizer=optimizer,
            weights_sha256="",
        ),
        _golden_rows(store, run.windows[-1]),
    )


def _data_window(
    windows: Sequence[Window], cursor: Cursor, start_from: ModelBundle | None
) -> DataWindow:
    return DataWindow(
        first=windows[0].label if start_from is None else start_from.data_window.first,
        last=windows[-1].label,
        rows=cursor.rows,
        steps=cursor.steps,
    )


def _golden_rows(store: EncodedStore, last: Window) -> Batch:
    rows = np.arange(max(last.start, last.stop - GOLDEN_ROWS), last.stop, dtype=np.int64)
    return read_batch(store, rows, last.vocabulary_sizes)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """What every rank knows of a run."""

    store: EncodedStore
    config: TrainConfig
    start_from: ModelBundle | None
    windows: tuple[Window, ...] = field(init=False)
    encoders: Encoders = field(init=False)
    score_weights: ScoreWeights = field(init=False)

    def __post_init__(self) -> None:
        require_gpus(self.config)
        input_layout(self.store.schema, exclude=self.config.model.exclude_features)
        windows = select_windows(self.store, self.config, self.start_from)
        encoders = self.store.encoders.head(windows[-1].vocabulary_sizes)
        if self.start_from is not None:
            if self.start_from.config != self.bundle_config:
                raise DataError(
                    "the config's model or seed differs from the bundle's; to continue a bundle "
                    "they must be the same"
                )
            where = str(self.store.folder)
            check_same_features(self.start_from, self.store.schema, encoders, where)
        if self.start_from is None:  # told now, not when hours of training are to be saved
            score_weights = default_score_weights(self.store.schema.tasks)
        else:
            score_weights = self.start_from.score_weights
        object.__setattr__(self, "score_weights", score_weights)
        object.__setattr__(self, "windows", windows)
        object.__setattr__(self, "encoders", encoders)

    @property
    def known_before(self) -> Mapping[str, int] | None:
        """Sizes of the vocabularies before the first window; None if nothing was trained before."""
        return None if self.start_from is None else self.start_from.encoders.sizes

    @property
    def bundle_config(self) -> BundleConfig:
        """What the bundle keeps of the config."""
        return BundleConfig(seed=self.config.seed, model=self.config.model)

    def module(self, ranks: Ranks) -> RankingModule:
        """The module at the run's beginning."""
        config, start_from = self.config, self.start_from
        model = build_bundle_model(self.bundle_config, self.store.schema, self.encoders)
        steps = rows = 0
        optimizer: Mapping[str, Tensor] = {}
        if start_from is not None:
            _copy_weights(start_from.model, model)
            optimizer = grow_optimizer_tensors(
                start_from.optimizer, start_from.model, model, config.optimizer
            )
            steps, rows = start_from.data_window.steps, start_from.data_window.rows
        first = self.windows[0].label
        module = RankingModule(
            model,
            loss_weights={task.name: task.loss_weight for task in self.store.schema.tasks},
            optimizer=config.optimizer,
            seed=config.seed,
            cursor=Cursor(window=first, pass_number=0, batch=0, steps=steps, rows=rows),
            step=StepSettings(
                micro_batch_rows=config.micro_batch_rows,
                precision=config.precision,
                compile_model=config.compile_model,
            ),
            ranks=ranks,
        )
        module.restore(optimizer)
        return module


@dataclass(frozen=True, slots=True, kw_only=True)
class _Follower:
    """What the ranks after 0 do: the same steps, but they write nothing and tell nobody."""

    prepared: Path
    config: TrainConfig
    start_from: ModelBundle | None

    def __call__(self, ranks: Ranks) -> None:
        torch.set_num_threads(self.config.threads)
        store = EncodedStore(self.prepared)
        run = _Run(store=store, config=self.config, start_from=self.start_from)
        module = run.module(ranks)
        load_checkpoint(module, ranks.shared(None))
        loop = WindowLoop(
            store=store,
            windows=run.windows,
            known_before=run.known_before,
            config=self.config,
            run_folder=self.prepared,
            on_progress=lambda _: None,
        )
        loop.run(module)


def _copy_weights(old: RankingModel, new: RankingModel) -> None:
    """Old values into a model whose vocabularies may have grown; new ids keep their rows."""
    state = new.state_dict()
    for name, values in old.state_dict().items():
        if state[name].shape == values.shape:
            state[name] = values
        elif name.startswith("embedder.table."):
            copy_table_rows(old, values, new, state[name])
        else:
            state[name][: values.shape[0]] = values
    new.load_state_dict(state)
