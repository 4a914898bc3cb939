"""Stacked models against the same models trained one by one.

Where a trained model is compared, arithmetic is float64: training magnifies the last digit of
float32, whoever's arithmetic it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ranker.bundle import BundleConfig, build_bundle_model, load_bundle
from ranker.config import parse_config
from ranker.data.batch import Batch
from ranker.data.loader import read_batch
from ranker.data.parquet import DataError
from ranker.data.store import EncodedStore
from ranker.models.ranking_model import RankingModel
from ranker.models.stacked_model import StackedModel
from ranker.training.fit import train
from ranker.training.many import train_many
from ranker.training.optimizers import OptimizerConfig
from ranker.training.settings import TrainConfig
from ranker.training.stack_trainer import StackTrainer

# Adam moves it, but batch normalisation two layers on takes every shift away again: its gradient
# is 0 and its path is rounding
SHIFTS_NOTHING = "embedder.normalize.bias"
MMOE = {"kind": "mmoe", "shared_widths": [9], "num_experts": 3, "expert_widths": [8, 6]}
SHARED_BOTTOM = {"kind": "shared_bottom", "widths": [9, 8]}


@pytest.fixture
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def changed(config: TrainConfig, seed: int, **changes: object) -> TrainConfig:
    """The config with another seed, other values, and one shuffle buffer for the largest day."""
    values = {**config.model_dump(mode="json"), "shuffle_buffer_rows": 640}
    for name, change in changes.items():
        section = values[name]
        values[name] = {**section, **change} if isinstance(change, dict) else change
    return parse_config(TrainConfig, {**values, "seed": seed}, source="test")


def alone(store: EncodedStore, config: TrainConfig, folder: Path) -> RankingModel:
    train(store, config, folder)
    return load_bundle(folder / "bundle").model


def check_same(found: RankingModel, expected: RankingModel) -> None:
    ours, theirs = found.state_dict(), expected.state_dict()
    assert list(ours) == list(theirs)
    for name in ours:
        if name != SHIFTS_NOTHING:
            torch.testing.assert_close(ours[name], theirs[name], rtol=1e-5, atol=1e-6, msg=name)


def some_rows(store: EncodedStore, num_rows: int) -> Batch:
    return read_batch(store, np.arange(num_rows), store.windows[0].vocabulary_sizes)


def fresh_models(store: EncodedStore, config: TrainConfig, num: int) -> list[RankingModel]:
    encoders = store.encoders
    bundles = [BundleConfig(seed=seed, model=config.model) for seed in range(num)]
    return [build_bundle_model(bundle, store.schema, encoders) for bundle in bundles]


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"bottom": MMOE, "dropout": 0.1, "admit_after": 2}, "passes_per_window": 2},
        {
            "model": {"bottom": SHARED_BOTTOM, "normalization": "layer", "dropout": 0.1},
            "micro_batch_rows": 24,
        },
    ],
    ids=["mmoe", "shared_bottom"],
)
def test_seeds_end_as_they_do_alone(
    changes: Mapping[str, object],
    store: EncodedStore,
    small_train_config: TrainConfig,
    tmp_path: Path,
) -> None:
    """With every kind of dropout, null labels, all heads, positions, ids that come on day two."""
    two_days = {"before_window": "2024-03-06", "batch_rows": 110}
    configs = [changed(small_train_config, seed, **two_days, **changes) for seed in (5, 6, 7)]
    models = train_many(store, configs)
    for number, (model, config) in enumerate(zip(models, configs, strict=True)):
        assert not model.training
        check_same(model, alone(store, config, tmp_path / str(number)))


@pytest.mark.usefixtures("double")
def test_variants_keep_their_own_rates(
    store: EncodedStore, small_train_config: TrainConfig, tmp_path: Path
) -> None:
    """The third has another shape and trains by itself; the order is that of the configs."""
    day = {"before_window": "2024-03-05"}
    embedding = {"kind": "adagrad", "rate": 0.1}
    configs = [
        changed(small_train_config, 5, **day, optimizer={"embedding": embedding}),
        changed(
            small_train_config,
            5,
            **day,
            optimizer={
                "dense_rate": 0.004,
                "weight_decay": 0.02,
                "average_decay": 0.0,
                "embedding": {**embedding, "rate": 0.03},
            },
        ),
        changed(small_train_config, 8, **day, model={"embedding_width": 5}),
    ]
    models = train_many(store, configs)
    for number, (model, config) in enumerate(zip(models, configs, strict=True)):
        check_same(model, alone(store, config, tmp_path / str(number)))


@pytest.mark.usefixtures("double")
def test_one_model_and_a_last_batch_of_one_row(
    store: EncodedStore, small_train_config: TrainConfig, tmp_path: Path
) -> None:
    rows = store.windows[0].num_rows - 1
    config = changed(small_train_config, 3, before_window="2024-03-05", batch_rows=rows)
    (model,) = train_many(store, [config])
    check_same(model, alone(store, config, tmp_path))


@pytest.mark.usefixtures("double")
def test_small_stacks_equal_a_large_one(
    store: EncodedStore, small_train_config: TrainConfig
) -> None:
    day = {"before_window": "2024-03-05"}
    configs = [changed(small_train_config, seed, **day) for seed in range(5)]
    together = train_many(store, configs)
    apart = train_many(store, configs, models_at_once=2)
    for one, other in zip(together, apart, strict=True):
        check_same(one, other)


@pytest.mark.usefixtures("double")
def test_models_of_a_stack_do_not_touch_each_other(
    store: EncodedStore, small_train_config: TrainConfig
) -> None:
    """Each has rows, labels, loss weights and draws of its own, and learns what it learns alone."""
    models = fresh_models(store, small_train_config, 3)
    tasks = models[0].tasks
    weights = [dict.fromkeys(tasks, 0.5 + number) for number in range(3)]
    rows = some_rows(store, 7 * 3)
    parts = [select(rows, torch.arange(number, 21, 3)) for number in range(3)]
    click = parts[1].labels["click"]
    parts[1] = Batch(
        features=parts[1].features,
        labels={**parts[1].labels, "click": torch.full_like(click, torch.nan)},
        position=parts[1].position,
    )
    optimizers = [OptimizerConfig(dense_rate=0.01 * (1 + number)) for number in range(3)]
    stack = StackTrainer(models, optimizers=optimizers, loss_weights=weights)
    losses = [stack.step(side_by_side(parts), seeds=[11, 12, 13]) for _ in range(4)]
    for number in range(3):
        single = StackTrainer(
            [models[number]], optimizers=[optimizers[number]], loss_weights=[weights[number]]
        )
        lonely = [single.step(side_by_side([parts[number]]), seeds=[11 + number]) for _ in losses]
        torch.testing.assert_close(torch.stack(lonely)[:, 0], torch.stack(losses)[:, number])
        check_same(stack.trained()[number], single.trained()[0])
        before = models[number].towers.final.weight[0]
        after = single.trained()[0].towers.final.weight[0]
        assert tasks[0] == "click"
        assert torch.equal(before, after) == (number == 1), "only number 1 sees no click's label"


def select(batch: Batch, rows: Tensor) -> Batch:
    return Batch(
        features={name: column[rows] for name, column in batch.features.items()},
        labels={name: column[rows] for name, column in batch.labels.items()},
        position={name: column[rows] for name, column in batch.position.items()},
    )


def side_by_side(parts: list[Batch]) -> Batch:
    def together(group: str) -> dict[str, Tensor]:
        columns = [getattr(part, group) for part in parts]
        return {name: torch.stack([c[name] for c in columns], dim=1) for name in columns[0]}

    return Batch(
        features=together("features"), labels=together("labels"), position=together("position")
    )


def test_a_stack_predicts_as_its_models_do(
    store: EncodedStore, small_train_config: TrainConfig
) -> None:
    models = [model.eval() for model in fresh_models(store, small_train_config, 3)]
    batch = some_rows(store, 11)
    stack = StackedModel(models)
    predictions = stack.predict(batch)
    assert list(predictions) == list(models[0].tasks)
    for task, found in predictions.items():
        expected = torch.stack([model.predict(batch)[task] for model in models])  # [S, B]
        torch.testing.assert_close(found, expected)
        assert found.shape == (3, 11)
    for model, restored in zip(models, stack.unstack(), strict=True):
        assert not restored.training
        for name, values in model.state_dict().items():
            assert torch.equal(values, restored.state_dict()[name]), name


def test_predictions_while_training_are_those_of_the_trained_models(
    store: EncodedStore, small_train_config: TrainConfig
) -> None:
    models = fresh_models(store, small_train_config, 2)
    weights = dict.fromkeys(models[0].tasks, 1.0)
    trainer = StackTrainer(models, optimizers=[OptimizerConfig()] * 2, loss_weights=[weights] * 2)
    parts = [some_rows(store, 13), some_rows(store, 13)]
    for step in range(3):
        trainer.step(side_by_side(parts), seeds=[step, 9 + step])
    found = trainer.predict(parts[0])
    for number, model in enumerate(trainer.trained()):
        for task, values in model.predict(parts[0]).items():
            torch.testing.assert_close(found[task][number], values)
    again = trainer.step(side_by_side(parts), seeds=[3, 4])
    assert again.isfinite().all()


def test_what_cannot_be_stacked_is_refused(
    store: EncodedStore, small_train_config: TrainConfig
) -> None:
    wide = changed(small_train_config, 5, model={"embedding_width": 6})
    models = [*fresh_models(store, small_train_config, 1), *fresh_models(store, wide, 1)]
    with pytest.raises(ValueError, match=r"model 1 differs from model 0 in the shape of \['embed"):
        StackedModel(models)
    with pytest.raises(ValueError, match="at least one model"):
        StackedModel([])
    models[0].bottom.gates = torch.nn.Bilinear(2, 3, 5)  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="Bilinear has weights of its own and no stacked form"):
        StackedModel(models[:1])


def test_wrong_arguments_are_named(store: EncodedStore, small_train_config: TrainConfig) -> None:
    config = changed(small_train_config, 5, before_window="2024-03-05")
    with pytest.raises(ValueError, match="2 loss weights for 1 configs"):
        train_many(store, [config], loss_weights=[{}, {}])
    with pytest.raises(ValueError, match="no loss weight for task 'click'; got \\['like'\\]"):
        train_many(store, [config], loss_weights=[{"like": 1.0}])
    with pytest.raises(ValueError, match="config 1 has processes 2"):
        train_many(store, [config, config.model_copy(update={"processes": 2})])
    models = fresh_models(store, config, 2)
    weights = dict.fromkeys(models[0].tasks, 1.0)
    optimizers = [OptimizerConfig(), OptimizerConfig(embedding_decay=0.1)]
    with pytest.raises(ValueError, match="but not in embedding_decay"):
        StackTrainer(models, optimizers=optimizers, loss_weights=[weights] * 2)
    with pytest.raises(ValueError, match="2 models, 1 optimizers and 2 loss weights"):
        StackTrainer(models, optimizers=optimizers[:1], loss_weights=[weights] * 2)


def test_seeds_need_a_shuffle_buffer_for_the_whole_window(
    store: EncodedStore, small_train_config: TrainConfig
) -> None:
    """With 16 rows a block the last block is shorter, and each seed has it in another buffer."""
    assert store.windows[0].num_rows == 31 * 16 + 14
    day = {"before_window": "2024-03-05"}
    configs = [changed(small_train_config, s, **day, shuffle_buffer_rows=48) for s in range(4)]
    with pytest.raises(DataError, match="shuffle_buffer_rows to at least 512"):
        train_many(store, configs)
    train_many(store, [changed(c, c.seed, shuffle_buffer_rows=512) for c in configs])
