from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

from ranker.bundle import load_bundle
from ranker.config import ConfigError, load_config
from ranker.data.loader import read_in_order
from ranker.data.parquet import DataError
from ranker.data.prepare import Inputs, PrepareSettings, prepare
from ranker.data.store import EncodedStore
from ranker.data.synthetic import START_S, SyntheticLog
from ranker.models.build import NoPositionTowerConfig, SharedBottomConfig
from ranker.models.embedder import Embedder
from ranker.schema import HistorySpec, Schema
from ranker.scoring.verification import verify
from ranker.training.fit import train
from ranker.training.optimizers import AdagradConfig, LazyAdamConfig
from ranker.training.settings import TrainConfig

TrainInto = Callable[..., dict[str, str]]
CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "train"
Prepare = Callable[[pa.Table, Schema], EncodedStore]


@pytest.fixture
def log(synthetic_log: SyntheticLog) -> pa.Table:
    return pq.read_table(synthetic_log.log).sort_by("time_s")


@pytest.fixture
def prepared(tmp_path: Path, synthetic_log: SyntheticLog) -> Prepare:
    def run(log: pa.Table, schema: Schema) -> EncodedStore:
        (tmp_path / "prepared").mkdir()
        pq.write_table(log, tmp_path / "log.parquet")
        inputs = Inputs(
            log=tmp_path / "log.parquet", users=synthetic_log.users, items=synthetic_log.items
        )
        prepare(inputs, schema, PrepareSettings(), tmp_path / "prepared")
        return EncodedStore(tmp_path / "prepared")

    return run


def assert_usable(run_folder: Path, store: EncodedStore) -> None:
    """All weights and predictions are finite, and the bundle verifies."""
    bundle = load_bundle(run_folder / "bundle")
    assert all(values.isfinite().all() for values in bundle.model.state_dict().values())
    assert all(values.isfinite().all() for values in bundle.optimizer.values())
    batches = read_in_order(
        store, 0, store.num_rows, vocabulary_sizes=bundle.encoders.sizes, batch_rows=999
    )
    with torch.no_grad():
        for batch in batches:
            assert all(values.isfinite().all() for values in bundle.model.predict(batch).values())
    assert verify(run_folder / "bundle").problems == ()


def test_one_row(
    tmp_path: Path,
    log: pa.Table,
    synthetic_schema: Schema,
    small_train_config: TrainConfig,
    prepared: Prepare,
    train_into: TrainInto,
) -> None:
    store = prepared(log.slice(5, 1), synthetic_schema)
    train_into(tmp_path / "run", store, small_train_config)
    assert load_bundle(tmp_path / "run" / "bundle").data_window.rows == 1
    assert_usable(tmp_path / "run", store)


def test_a_window_of_one_row_and_a_batch_larger_than_the_data(
    tmp_path: Path,
    log: pa.Table,
    synthetic_schema: Schema,
    small_train_config: TrainConfig,
    prepared: Prepare,
    train_into: TrainInto,
) -> None:
    day = (log.column("time_s").to_numpy() - START_S) // 86_400
    rows = np.concatenate([np.flatnonzero(day == 0)[:31], np.flatnonzero(day == 1)[:1]])
    store = prepared(log.take(rows), synthetic_schema)
    assert [window.num_rows for window in store.windows] == [31, 1]
    config = small_train_config.model_copy(update={"batch_rows": 1000})
    train_into(tmp_path / "run", store, config)
    assert load_bundle(tmp_path / "run" / "bundle").data_window.steps == 2
    assert_usable(tmp_path / "run", store)


@pytest.mark.parametrize("day", [0, 1])
def test_a_window_in_which_no_label_was_observed(
    day: int,
    tmp_path: Path,
    log: pa.Table,
    synthetic_schema: Schema,
    small_train_config: TrainConfig,
    prepared: Prepare,
    train_into: TrainInto,
) -> None:
    """Also of the first one, on which the label scales are fitted."""
    log = log.filter(pc.less(log.column("time_s"), START_S + 2 * 86_400))
    unobserved = (log.column("time_s").to_numpy() - START_S) // 86_400 == day
    for name in ("click", "like", "rating", "dismissed"):
        values = pc.if_else(pa.array(unobserved), None, log.column(name))
        log = log.set_column(log.column_names.index(name), name, values)
    store = prepared(log, synthetic_schema)
    window = store.windows[day]
    assert np.isnan(store.column("label.click")[window.start : window.stop]).all()
    train_into(tmp_path / "run", store, small_train_config)
    assert_usable(tmp_path / "run", store)


def test_one_task(
    tmp_path: Path,
    log: pa.Table,
    synthetic_schema: Schema,
    small_train_config: TrainConfig,
    prepared: Prepare,
    train_into: TrainInto,
) -> None:
    history = HistorySpec(keys=("topic",), rates=("click",))
    schema = synthetic_schema.model_copy(
        update={"tasks": synthetic_schema.tasks[:1], "history": history}
    )
    schema = Schema.model_validate(schema.model_dump())
    store = prepared(log.slice(0, 300), schema)
    train_into(tmp_path / "run", store, small_train_config)
    assert load_bundle(tmp_path / "run" / "bundle").model.tasks == ("click",)
    assert_usable(tmp_path / "run", store)


def test_tasks_without_a_score_weight_are_told_before_anything_is_trained(
    tmp_path: Path,
    log: pa.Table,
    synthetic_schema: Schema,
    small_train_config: TrainConfig,
    prepared: Prepare,
) -> None:
    tasks = tuple(task.model_copy(update={"score_weight": 0.0}) for task in synthetic_schema.tasks)
    store = prepared(log.slice(0, 300), synthetic_schema.model_copy(update={"tasks": tasks}))
    with pytest.raises(ConfigError, match="no task has a score_weight above 0"):
        train(store, small_train_config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_shared_bottom_trains_too(
    tmp_path: Path, store: EncodedStore, three_days: TrainConfig, train_into: TrainInto
) -> None:
    model = three_days.model.model_copy(update={"bottom": SharedBottomConfig(widths=(9, 5))})
    train_into(tmp_path, store, three_days.model_copy(update={"model": model}))
    assert_usable(tmp_path, store)


def test_unseen_users_items_and_categories_score(
    store: EncodedStore, trained_synthetic: Path
) -> None:
    """Trained on 10 days: what later ones bring is unknown, and counts as row 0 of a table."""
    bundle = load_bundle(trained_synthetic / "bundle")
    embedder = bundle.model.embedder
    assert isinstance(embedder, Embedder)
    last = store.windows[13]
    (batch,) = read_in_order(
        store, last.start, last.stop, vocabulary_sizes=bundle.encoders.sizes, batch_rows=9999
    )
    assert (batch.features["user_id"] == 0).any()
    assert (batch.features["item_id"] == 0).any()
    nothing = {
        name: values if values.is_floating_point() else torch.zeros_like(values)
        for name, values in batch.features.items()
    }
    for features in (batch.features, nothing):
        with torch.no_grad():
            predictions = bundle.model.predict(replace(batch, features=features))
        assert all(values.isfinite().all() for values in predictions.values())
        assert (predictions["watch_time_s"] >= 0).all()


def test_no_position_changes_a_prediction(store: EncodedStore, trained_synthetic: Path) -> None:
    model = load_bundle(trained_synthetic / "bundle").model
    assert model.position_tower is not None
    assert model.position_tower.positions.abs().sum() > 0
    (batch,) = read_in_order(store, 0, 70, vocabulary_sizes={}, batch_rows=70)
    with torch.no_grad():
        expected = model.predict(batch)
        for position in range(7):
            moved = torch.full_like(batch.position["position"], position)
            other = replace(batch, position={**batch.position, "position": moved})
            for task, values in model.predict(other).items():
                assert torch.equal(values, expected[task])


@pytest.mark.slow
def test_the_position_tower_learns_that_examination_falls(
    tmp_path: Path, store: EncodedStore, small_train_config: TrainConfig, train_into: TrainInto
) -> None:
    optimizer = small_train_config.optimizer.model_copy(update={"dense_rate": 0.01})
    config = small_train_config.model_copy(update={"optimizer": optimizer, "passes_per_window": 3})
    train_into(tmp_path, store, config)
    tower = load_bundle(tmp_path / "bundle").model.position_tower
    assert tower is not None
    phone = int(store.encoders.vocabularies["device"].encode(pa.array(["phone"]))[0])
    shown = torch.arange(1, 7)
    with torch.no_grad():
        logits = tower.eval()(shown, torch.full_like(shown, phone))[:, tower.tasks.index("click")]
    assert logits[0] > logits[-1] + 0.5
    with torch.no_grad():
        missing = tower.missing(torch.tensor([phone]))[0, tower.tasks.index("click")]
    assert logits[-1] < missing < logits[0]  # about the average over positions


@pytest.mark.parametrize("day", ["2024-03-05", "'2024-03-05'", "2024-03-05T07"])
def test_days_need_no_quotes_in_yaml(day: str, tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_text(f"before_window: {day}\n")
    config = load_config(TrainConfig, tmp_path / "train.yaml", [f"first_window={day}"])
    assert config.before_window == config.first_window == day.strip("'")


def test_shipped_configs_load() -> None:
    paths = sorted(CONFIGS.glob("*.yaml"))
    if not paths:
        pytest.skip("no training configs are shipped yet")
    for path in paths:
        assert isinstance(load_config(TrainConfig, path), TrainConfig)


def test_micro_batches_change_only_the_rounding(
    tmp_path: Path, store: EncodedStore, three_days: TrainConfig, train_into: TrainInto
) -> None:
    """Without batch norm and dropout; 19 does not divide 64, nor do surveys spread evenly."""
    model = three_days.model.model_copy(
        update={
            "normalization": "none",
            "input_normalization": "none",
            "dropout": 0.0,
            "id_dropout": 0.0,
            "bottom": SharedBottomConfig(widths=(9, 7)),
            "position_tower": NoPositionTowerConfig(),
        }
    )
    weights = []
    for size in (0, 19, 1_000):
        config = three_days.model_copy(update={"model": model, "micro_batch_rows": size})
        train_into(tmp_path / str(size), store, config)
        assert_usable(tmp_path / str(size), store)
        weights.append(load_bundle(tmp_path / str(size) / "bundle").model.state_dict())
    assert all(torch.equal(weights[0][name], weights[2][name]) for name in weights[0])
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    for name, values in weights[0].items():
        torch.testing.assert_close(weights[1][name], values, rtol=1e-3, atol=1e-4, msg=name)


def test_rare_ids_stay_unknown(
    tmp_path: Path, store: EncodedStore, three_days: TrainConfig, train_into: TrainInto
) -> None:
    model = three_days.model.model_copy(update={"admit_after": 40})
    train_into(tmp_path / "run", store, three_days.model_copy(update={"model": model}))
    bundle = load_bundle(tmp_path / "run" / "bundle")
    table = bundle.model.embedder.table
    assert table is not None
    assert table.occurrences is not None
    stop = store.windows_between(None, "2024-03-07")[-1].stop
    items = np.asarray(store.column("feature.item_id")[:stop])
    counts = np.bincount(items, minlength=table.sizes["item"])
    query = np.asarray(store.column("feature.query_item")[:stop])
    counts += np.bincount(query, minlength=table.sizes["item"])[: len(counts)]
    first = table.offsets["item"]
    found = table.occurrences[first : first + table.sizes["item"]]
    assert found.tolist() == counts.tolist()
    rare = np.flatnonzero((counts > 0) & (counts < 40))
    assert len(rare)
    (batch,) = read_in_order(store, 0, 70, vocabulary_sizes={}, batch_rows=70)
    as_rare, as_unknown = (
        replace(batch, features={**batch.features, "item_id": torch.full((70,), index)})
        for index in (int(rare[0]), 0)
    )
    with torch.no_grad():
        for task, values in bundle.model.predict(as_rare).items():
            assert torch.equal(values, bundle.model.predict(as_unknown)[task])
    assert_usable(tmp_path / "run", store)


def test_a_bundle_is_not_continued_with_another_rule(
    tmp_path: Path, store: EncodedStore, three_days: TrainConfig, train_into: TrainInto
) -> None:
    train_into(tmp_path / "run", store, three_days)
    bundle = load_bundle(tmp_path / "run" / "bundle")
    optimizer = three_days.optimizer.model_copy(update={"embedding": LazyAdamConfig()})
    config = three_days.model_copy(update={"optimizer": optimizer, "before_window": ""})
    with pytest.raises(DataError, match="another rule than 'lazy_adam'"):
        train_into(tmp_path / "next", store, config, start_from=bundle)


@pytest.mark.parametrize("rule", [AdagradConfig(), LazyAdamConfig()], ids=lambda rule: rule.kind)
def test_other_rules_continue_to_the_same_bytes(
    rule: AdagradConfig | LazyAdamConfig,
    tmp_path: Path,
    store: EncodedStore,
    three_days: TrainConfig,
    train_into: TrainInto,
) -> None:
    optimizer = three_days.optimizer.model_copy(update={"embedding": rule})
    config = three_days.model_copy(update={"optimizer": optimizer})
    whole = train_into(tmp_path / "whole", store, config)
    train_into(tmp_path / "two", store, config.model_copy(update={"before_window": "2024-03-06"}))
    bundle = load_bundle(tmp_path / "two" / "bundle")
    assert train_into(tmp_path / "one", store, config, start_from=bundle) == whole


def test_training_that_diverges_stops_and_leaves_no_bundle(
    tmp_path: Path, store: EncodedStore, three_days: TrainConfig, train_into: TrainInto
) -> None:
    optimizer = three_days.optimizer.model_copy(update={"dense_rate": 1e30})
    with pytest.raises(ConfigError, match=r"diverged in window .*; lower the rates"):
        train_into(tmp_path / "run", store, three_days.model_copy(update={"optimizer": optimizer}))
    assert not list(tmp_path.rglob("bundle"))
