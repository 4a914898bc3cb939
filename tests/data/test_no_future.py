"""Nothing of the future: what happens after t leaves every stored byte before t as it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ranker.data.loader import read_in_order
from ranker.data.prepare import Inputs, PrepareSummary
from ranker.data.store import EncodedStore
from ranker.data.synthetic import START_S, SyntheticLog, write_synthetic_log
from ranker.schema import Schema

DAY_S = 86_400
NUM_DAYS = 5
PrepareLog = Callable[..., tuple[Path, PrepareSummary]]


@pytest.fixture(scope="module")
def short_log(tmp_path_factory: pytest.TempPathFactory) -> SyntheticLog:
    """Every item has two topics of its own, so that new ones appear until the end."""
    folder = tmp_path_factory.mktemp("short")
    log = write_synthetic_log(folder, num_users=23, num_items=430, num_days=NUM_DAYS, seed=6)
    items = pq.read_table(log.items)
    names = items.column("item_id").to_pylist()
    topics = {"topic": pa.array(names), "topics": pa.array([[n, f"{n}-second"] for n in names])}
    for name, values in topics.items():
        items = items.set_column(items.column_names.index(name), name, values)
    pq.write_table(items, log.items)
    return log


@pytest.fixture(scope="module")
def original(short_log: SyntheticLog, synthetic_schema: Schema, prepare_log: PrepareLog) -> Path:
    inputs = Inputs(log=short_log.log, users=short_log.users, items=short_log.items)
    return prepare_log(inputs, synthetic_schema)[0]


def altered(log: pd.DataFrame, t: int, rng: np.random.Generator) -> pd.DataFrame:
    """Rows from ``t`` on are dropped, changed in every column, and added."""
    before, after = log[log.time_s < t], log[log.time_s >= t]
    after = after[rng.random(len(after)) < 0.6].copy()
    for name in ("user_id", "item_id", "device", "watch_time_s"):
        after[name] = after[name].to_numpy()[rng.permutation(len(after))]
    for name in ("click", "like", "dismissed"):
        after[name] = 1 - after[name]
    after["rating"] = rng.choice([np.nan, 1.0, 5.0], size=len(after))
    new = after.sample(frac=0.3, random_state=int(rng.integers(2**31)))
    new = new.assign(
        request_id="new",
        item_id=[f"new{k % 3}" for k in range(len(new))],
        user_id=np.arange(len(new)) % 5 + 1000,
        time_s=t + np.arange(len(new)) // 2,  # some exactly at t
        device="watch",
    )
    changed = pd.concat([before, after, new])
    return changed.sample(frac=1, random_state=int(rng.integers(2**31)))


def check_past_is_untouched(
    log: SyntheticLog,
    original: Path,
    schema: Schema,
    prepare_log: PrepareLog,
    t: int,
    seed: int,
    folder: Path,
) -> None:
    rng = np.random.default_rng(seed)
    table = pq.read_table(log.log)
    changed = altered(table.to_pandas(), t, rng)
    rating = pa.array(changed.rating, from_pandas=True)
    path = folder / "log.parquet"
    pq.write_table(
        pa.Table.from_pandas(changed.drop(columns="rating"), preserve_index=False).append_column(
            "rating", rating
        ),
        path,
    )
    # Chunks that do not end at t: rows before and after it are encoded together.
    inputs = Inputs(log=path, users=log.users, items=log.items)
    prepared, _ = prepare_log(inputs, schema, chunk_rows=int(rng.integers(20, 2000)))
    one, other = EncodedStore(original), EncodedStore(prepared)
    num_before = int((table.column("time_s").to_numpy() < t).sum())
    assert num_before > 0
    assert (one.column("time_ms")[:num_before] < t * 1000).all()
    for name in one.sha256_by_column:
        before = one.column(name)[:num_before]
        assert other.column(name)[:num_before].tobytes() == before.tobytes(), name
    if num_before < one.num_rows:
        assert one.sha256_by_column["label.click"] != other.sha256_by_column["label.click"]


@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    # From the end of the first window on: that one fits the scales.
    t=st.integers(START_S + DAY_S, START_S + NUM_DAYS * DAY_S),
    seed=st.integers(0, 2**32 - 1),
)
def test_altering_the_future_leaves_the_past(
    short_log: SyntheticLog,
    original: Path,
    synthetic_schema: Schema,
    prepare_log: PrepareLog,
    tmp_path: Path,
    t: int,
    seed: int,
) -> None:
    check_past_is_untouched(short_log, original, synthetic_schema, prepare_log, t, seed, tmp_path)


@pytest.mark.slow
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(t=st.integers(START_S + DAY_S, START_S + NUM_DAYS * DAY_S), seed=st.integers(0, 2**32 - 1))
def test_altering_the_future_leaves_the_past_thoroughly(
    short_log: SyntheticLog,
    original: Path,
    synthetic_schema: Schema,
    prepare_log: PrepareLog,
    tmp_path: Path,
    t: int,
    seed: int,
) -> None:
    check_past_is_untouched(short_log, original, synthetic_schema, prepare_log, t, seed, tmp_path)


def test_future_only_item_is_unknown(
    short_log: SyntheticLog, synthetic_schema: Schema, prepare_log: PrepareLog, tmp_path: Path
) -> None:
    """An item first shown on the fourth day is index 0 for a model of the third day's end."""
    log = pq.read_table(short_log.log).to_pandas()
    fourth_day = log.time_s.between(START_S + 3 * DAY_S, START_S + 4 * DAY_S, inclusive="left")
    planted = log[fourth_day].index[:7]
    log.loc[planted, "item_id"] = "planted"
    pq.write_table(
        pa.Table.from_pandas(log.drop(columns="rating"), preserve_index=False).append_column(
            "rating", pa.array(log.rating, from_pandas=True)
        ),
        tmp_path / "log.parquet",
    )
    inputs = Inputs(log=tmp_path / "log.parquet", users=short_log.users, items=short_log.items)
    prepared, _ = prepare_log(inputs, synthetic_schema)
    store = EncodedStore(prepared)
    index = 1 + store.encoders.vocabularies["item"].ids.tolist().index("planted")
    sizes = [window.vocabulary_sizes["item"] for window in store.windows]
    assert sizes[2] <= index < sizes[3]
    window = store.windows[3]
    rows = np.flatnonzero(store.column("item") == index)
    assert len(rows) == 7 and window.start <= rows[0] and rows[-1] < window.stop

    def items(known_at_end_of: int) -> np.ndarray:
        (batch,) = read_in_order(
            store,
            window.start,
            window.stop,
            vocabulary_sizes=store.windows[known_at_end_of].vocabulary_sizes,
            batch_rows=10_000,
        )
        return batch.features["item_id"].numpy()

    assert (items(2)[rows - window.start] == 0).all()
    assert (items(3)[rows - window.start] == index).all()
    later = items(2)
    assert later.max() < sizes[2]
