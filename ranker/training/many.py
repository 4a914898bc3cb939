"""Many small models trained at once, each as `ranker.training.fit.train` would train it alone.

Seeds and variants of one model are stacked (`ranker.models.stacked_model`) and take their steps
together. Each keeps its own initial weights, order of rows, random draws and rates, so the outcome
is that of separate runs but for rounding.

Shapes: ``S`` models of a stack, ``B`` rows of each in a batch, ``N`` rows of a window.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ranker.bundle import BundleConfig, build_bundle_model
from ranker.config import digest
from ranker.data.batch import Batch
from ranker.data.loader import ShuffleSettings, plan_buffers, read_batch, seed_of
from ranker.data.parquet import DataError
from ranker.data.store import EncodedStore, Window
from ranker.models.ranking_model import RankingModel
from ranker.training.fit import select_windows
from ranker.training.settings import TrainConfig, uses_gpu
from ranker.training.stack_trainer import StackTrainer

MODELS_AT_ONCE = 16


def train_many(
    store: EncodedStore,
    configs: Sequence[TrainConfig],
    *,
    loss_weights: Sequence[Mapping[str, float]] = (),
    models_at_once: int = MODELS_AT_ONCE,
) -> list[RankingModel]:
    """Train a model for each config; those of one shape go through the data together.

    Configs that differ in nothing but the seed and, in ``optimizer``, the two rates, weight decay
    and average decay are trained together, others one group after the other. Nothing is written:
    no checkpoints, bundles or predictions of windows to come.

    The outcome is that of `ranker.training.fit.train` but for rounding. Training magnifies rounding
    (Adam's first steps have the size of the rate however small a gradient is): after hundreds of
    float32 steps two such models differ as two runs do whose initial weights differ in the last
    digit. Only without hidden normalization does hidden dropout draw in another order.

    Args:
        store: prepared data; the rows of a window must fit into memory.
        configs: a run each, in one process, float32 and not compiled.
        loss_weights: for each config, task -> weight; left out, the schema's.
        models_at_once: how many are stacked; memory grows with it.

    Returns:
        The models in the order of ``configs``, in evaluation mode, with averaged weights.

    Raises:
        ValueError: another number of loss weights than of configs, a task without one, or a
            config that asks for several processes, bfloat16 or compilation.
        DataError: no windows to train on, or one too large for the shuffle buffer.
    """
    weights = _weights_for(configs, loss_weights, store)
    groups: dict[str, list[int]] = {}
    for number, config in enumerate(configs):
        _check_plain(config, number)
        groups.setdefault(_shape_of(config), []).append(number)
    trained: dict[int, RankingModel] = {}
    for numbers in groups.values():
        for first in range(0, len(numbers), models_at_once):
            together = numbers[first : first + models_at_once]
            models = _train_together(
                store, [configs[n] for n in together], [weights[n] for n in together]
            )
            trained |= zip(together, models, strict=True)
    return [trained[number] for number in range(len(configs))]


def _weights_for(
    configs: Sequence[TrainConfig],
    loss_weights: Sequence[Mapping[str, float]],
    store: EncodedStore,
) -> Sequence[Mapping[str, float]]:
    if not loss_weights:
        return [{task.name: task.loss_weight for task in store.schema.tasks}] * len(configs)
    if len(loss_weights) != len(configs):
        raise ValueError(
            f"train_many: {len(loss_weights)} loss weights for {len(configs)} configs; give a "
            "mapping for each, or none for the schema's"
        )
    return loss_weights


def _check_plain(config: TrainConfig, number: int) -> None:
    if config.processes > 1 or config.precision != "fp32" or config.compile_model:
        raise ValueError(
            f"train_many: config {number} has processes {config.processes}, precision "
            f"{config.precision!r} and compile_model {config.compile_model}; stacked models train "
            "in one process, in 'fp32', and are not compiled"
        )


def _shape_of(config: TrainConfig) -> str:
    """Equal for configs whose models can be trained together."""
    embedding = config.optimizer.embedding.model_copy(update={"rate": 1.0})
    free = {"dense_rate": 1.0, "weight_decay": 0.0, "average_decay": 0.0, "embedding": embedding}
    optimizer = config.optimizer.model_copy(update=free)
    return digest(config.model_copy(update={"seed": 0, "optimizer": optimizer}))


def _train_together(
    store: EncodedStore, configs: Sequence[TrainConfig], loss_weights: Sequence[Mapping[str, float]]
) -> list[RankingModel]:
    shared = configs[0]
    torch.set_num_threads(shared.threads)
    device = torch.device("cuda" if uses_gpu(shared) else "cpu")
    windows = select_windows(store, shared, None)
    encoders = store.encoders.head(windows[-1].vocabulary_sizes)
    models = [
        build_bundle_model(
            BundleConfig(seed=config.seed, model=config.model), store.schema, encoders
        ).to(device)
        for config in configs
    ]
    trainer = StackTrainer(
        models,
        optimizers=[config.optimizer for config in configs],
        loss_weights=loss_weights,
        micro_batch_rows=shared.micro_batch_rows,
    )
    for window in windows:
        rows = slice(window.start, window.stop)
        batch = read_batch(store, rows, window.vocabulary_sizes)
        columns = _columns_read(models[0], batch).to(device)
        for pass_number in range(shared.passes_per_window):
            place = (window.label, pass_number)
            for number, chosen in enumerate(_orders(window, pass_number, configs)):
                seeds = [seed_of("step", config.seed, *place, number) for config in configs]
                trainer.step(_gather(columns, chosen.to(device)), seeds=seeds)
    return [model.to("cpu") for model in trainer.trained()]


def _columns_read(model: RankingModel, batch: Batch) -> Batch:
    """The features that ``model`` reads, each in one piece: the rest need not be gathered."""
    inputs = model.embedder.inputs
    categorical = (*inputs.categorical, *inputs.sequences, *inputs.history)
    names = (*categorical, *inputs.numeric, *inputs.nullable)
    features = {name: batch.features[name].contiguous() for name in names}
    return Batch(features=features, labels=batch.labels, position=batch.position)


def _orders(window: Window, pass_number: int, configs: Sequence[TrainConfig]) -> Iterator[Tensor]:
    """Batch by batch the rows [B, S] of the window that each model is trained on."""
    plans = [
        plan_buffers(
            window.num_rows,
            ShuffleSettings(
                seed=config.seed,
                block_rows=config.shuffle_block_rows,
                buffer_rows=config.shuffle_buffer_rows,
            ),
            window.label,
            pass_number,
        )
        for config in configs
    ]
    for buffers in zip(*plans, strict=True):
        if len({len(rows) for rows in buffers}) > 1:
            block_rows = configs[0].shuffle_block_rows
            needed = -(-window.num_rows // block_rows) * block_rows
            raise DataError(
                f"window {window.label}: its {window.num_rows:,} rows fill several shuffle "
                "buffers, and not alike for every seed; to train seeds together, set "
                f"shuffle_buffer_rows to at least {needed}"
            )
        yield from torch.split(torch.from_numpy(np.stack(buffers, axis=1)), configs[0].batch_rows)


def _gather(columns: Batch, rows: Tensor) -> Batch:
    """Rows [B, S] of columns [N, ...] as columns [B, S, ...]."""

    def gather(by_name: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            name: column.index_select(0, rows.flatten()).view(*rows.shape, *column.shape[1:])
            for name, column in by_name.items()
        }

    return Batch(
        features=gather(columns.features),
        labels=gather(columns.labels),
        position=gather(columns.position),
    )
