from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from ranker.atomic import sha256_of
from ranker.bundle import load_bundle
from ranker.data.parquet import DataError
from ranker.data.prepare import Inputs, PrepareSettings, prepare
from ranker.data.store import EncodedStore
from ranker.data.synthetic import START_S, SyntheticLog
from ranker.schema import Schema
from ranker.training.fit import train
from ranker.training.settings import TrainConfig

TrainInto = Callable[..., dict[str, str]]
DAY_11 = "2024-03-14"
DAY_11_S = START_S + 10 * 86_400


def digests(run_folder: Path) -> dict[str, str]:
    names = ("weights.safetensors", "optimizer.safetensors")
    return {name: sha256_of(run_folder / "bundle" / name) for name in names}


def prepare_log(
    log: pa.Table, tables: SyntheticLog, schema: Schema, folder: Path, state: Path | None = None
) -> EncodedStore:
    folder.mkdir()
    pq.write_table(log, folder.with_suffix(".parquet"))
    inputs = Inputs(
        log=folder.with_suffix(".parquet"), users=tables.users, items=tables.items, state=state
    )
    prepare(inputs, schema, PrepareSettings(), folder)
    return EncodedStore(folder)


@pytest.fixture(scope="module")
def log(synthetic_log: SyntheticLog) -> pa.Table:
    """The log as one table, with a device that is not seen before day 12."""
    table = pq.read_table(synthetic_log.log)
    late = pc.greater(table.column("time_s"), DAY_11_S + 86_400)
    watch = pc.and_(late, pc.equal(table.column("device"), "tv"))
    device = pc.if_else(watch, "watch", table.column("device"))
    return table.set_column(table.column_names.index("device"), "device", device)


@pytest.fixture(scope="module")
def store14(
    tmp_path_factory: pytest.TempPathFactory,
    log: pa.Table,
    synthetic_log: SyntheticLog,
    synthetic_schema: Schema,
) -> EncodedStore:
    folder = tmp_path_factory.mktemp("all") / "prepared"
    return prepare_log(log, synthetic_log, synthetic_schema, folder)


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory,
    store14: EncodedStore,
    small_train_config: TrainConfig,
) -> Path:
    """A run over all 14 days."""
    folder = tmp_path_factory.mktemp("whole")
    train(store14, small_train_config, folder)
    return folder


def test_14_days_are_10_days_and_4_continued(
    tmp_path: Path,
    store14: EncodedStore,
    whole: Path,
    small_train_config: TrainConfig,
    train_into: TrainInto,
) -> None:
    ten = small_train_config.model_copy(update={"before_window": DAY_11})
    train_into(tmp_path / "ten", store14, ten)
    bundle = load_bundle(tmp_path / "ten" / "bundle")
    sizes, grown = bundle.encoders.sizes, store14.encoders.sizes
    for vocabulary in ("user", "item", "device"):
        assert grown[vocabulary] > sizes[vocabulary]
    continued = train_into(tmp_path / "four", store14, small_train_config, start_from=bundle)
    assert continued == digests(whole)
    merged = load_bundle(tmp_path / "four" / "bundle").data_window
    assert merged == load_bundle(whole / "bundle").data_window
    assert merged.rows == store14.num_rows


def test_nor_does_it_matter_that_they_were_prepared_apart(
    tmp_path: Path,
    log: pa.Table,
    synthetic_log: SyntheticLog,
    synthetic_schema: Schema,
    whole: Path,
    small_train_config: TrainConfig,
    train_into: TrainInto,
) -> None:
    early = pc.less(log.column("time_s"), DAY_11_S)
    first = prepare_log(log.filter(early), synthetic_log, synthetic_schema, tmp_path / "first")
    then = prepare_log(
        log.filter(pc.invert(early)),
        synthetic_log,
        synthetic_schema,
        tmp_path / "then",
        state=tmp_path / "first" / "state",
    )
    train_into(tmp_path / "ten", first, small_train_config)
    bundle = load_bundle(tmp_path / "ten" / "bundle")
    assert train_into(tmp_path / "four", then, small_train_config, start_from=bundle) == digests(
        whole
    )
    # the progressive predictions are those of the one run, too: new ids are unknown to them
    for window in then.windows:
        apart, at_once = (
            pq.read_table(run / "progressive" / f"{window.label}.parquet")
            for run in (tmp_path / "four", whole)
        )
        assert apart.drop_columns("row").equals(at_once.drop_columns("row"))


def test_later_rows_do_not_change_an_earlier_model(
    tmp_path: Path,
    log: pa.Table,
    synthetic_log: SyntheticLog,
    synthetic_schema: Schema,
    small_train_config: TrainConfig,
    train_into: TrainInto,
) -> None:
    before = small_train_config.model_copy(update={"before_window": "2024-03-06"})
    late = log.column("time_s").to_numpy() >= START_S + 2 * 86_400
    changed = log
    rng = np.random.default_rng(4)
    changes: dict[str, npt.NDArray[np.generic]] = {
        "click": rng.integers(0, 2, log.num_rows).astype(np.int8),
        "like": rng.integers(0, 2, log.num_rows).astype(np.int8),
        "watch_time_s": rng.uniform(0, 99, log.num_rows),
        "user_id": rng.integers(0, 150, log.num_rows),
        "device": rng.choice(np.array(["tv", "fridge"], dtype=object), log.num_rows),
    }
    for name, values in changes.items():
        column = pc.if_else(pa.array(late), pa.array(values), log.column(name))
        changed = changed.set_column(log.column_names.index(name), name, column)
    first = prepare_log(log, synthetic_log, synthetic_schema, tmp_path / "first")
    second = prepare_log(changed, synthetic_log, synthetic_schema, tmp_path / "second")
    assert first.sha256_by_column != second.sha256_by_column
    digests = train_into(tmp_path / "one", first, before)
    assert train_into(tmp_path / "two", second, before) == digests
    # what came just before does matter
    later = small_train_config.model_copy(update={"before_window": "2024-03-07"})
    assert train_into(tmp_path / "three", first, later) != train_into(
        tmp_path / "four", second, later
    )


def test_a_bundle_of_another_seed_or_model_is_not_continued(
    tmp_path: Path,
    store: EncodedStore,
    trained_synthetic: Path,
    small_train_config: TrainConfig,
    train_into: TrainInto,
) -> None:
    bundle = load_bundle(trained_synthetic / "bundle")
    other = small_train_config.model_copy(update={"seed": 6})
    with pytest.raises(DataError, match="model or seed differs"):
        train_into(tmp_path, store, other, start_from=bundle)


def test_data_of_another_log_does_not_continue_a_bundle(
    tmp_path: Path,
    log: pa.Table,
    synthetic_log: SyntheticLog,
    synthetic_schema: Schema,
    trained_synthetic: Path,
    small_train_config: TrainConfig,
    train_into: TrainInto,
) -> None:
    late = log.filter(pc.greater_equal(log.column("time_s"), DAY_11_S))
    other = prepare_log(late, synthetic_log, synthetic_schema, tmp_path / "late")
    bundle = load_bundle(trained_synthetic / "bundle")
    with pytest.raises(DataError, match="don't continue the bundle's"):
        train_into(tmp_path / "run", other, small_train_config, start_from=bundle)


def test_no_windows_left_is_said(
    tmp_path: Path,
    store: EncodedStore,
    trained_synthetic: Path,
    small_train_config: TrainConfig,
    train_into: TrainInto,
) -> None:
    bundle = load_bundle(trained_synthetic / "bundle")
    config = small_train_config.model_copy(update={"before_window": DAY_11})
    with pytest.raises(DataError, match="no windows to train on after 2024-03-13"):
        train_into(tmp_path, store, config, start_from=bundle)
