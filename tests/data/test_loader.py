from __future__ import annotations

import hashlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ranker.data.loader import (
    ShuffleSettings,
    WindowBatches,
    read_batch,
    read_in_order,
    seed_of,
)
from ranker.data.store import EncodedStore, Window


@pytest.fixture(scope="module")
def store(small_prepared: Path) -> EncodedStore:
    return EncodedStore(small_prepared)


@pytest.fixture(scope="module")
def numbered(store: EncodedStore) -> EncodedStore:
    """Its label ``watch_time_s`` is the row's number, so that batches show their rows."""
    other = EncodedStore(store.folder)
    labels = np.array(other._matrices["label"])
    labels[:, other.blocks["label"].columns.index("label.watch_time_s")] = range(other.num_rows)
    other._matrices = {**other._matrices, "label": labels}
    return other


def window_of(store: EncodedStore, start: int, stop: int, label: str = "w") -> Window:
    return Window(
        label=label, start=start, stop=stop, vocabulary_sizes=store.windows[-1].vocabulary_sizes
    )


def order_of(
    store: EncodedStore,
    window: Window,
    *,
    seed: int = 1,
    pass_number: int = 0,
    batch_rows: int = 13,
    block_rows: int = 7,
    buffer_rows: int = 50,
) -> list[list[int]]:
    batches = WindowBatches(
        store,
        window,
        pass_number=pass_number,
        batch_rows=batch_rows,
        shuffle=ShuffleSettings(seed=seed, block_rows=block_rows, buffer_rows=buffer_rows),
    )
    numbered = [batches[k] for k in range(len(batches))]
    assert [b.number for b in numbered] == list(range(len(batches)))
    return [b.batch.labels["watch_time_s"].int().tolist() for b in numbered]


@settings(max_examples=40, deadline=None)
@given(
    start=st.integers(0, 40),
    num_rows=st.integers(0, 200),
    batch_rows=st.integers(1, 90),
    block_rows=st.integers(1, 60),
    buffer_rows=st.integers(1, 300),
    seed=st.integers(0, 2**40),
)
def test_each_row_once_a_pass(
    numbered: EncodedStore,
    start: int,
    num_rows: int,
    batch_rows: int,
    block_rows: int,
    buffer_rows: int,
    seed: int,
) -> None:
    batches = order_of(
        numbered,
        window_of(numbered, start, start + num_rows),
        seed=seed,
        batch_rows=batch_rows,
        block_rows=block_rows,
        buffer_rows=buffer_rows,
    )
    assert sorted(row for batch in batches for row in batch) == [*range(start, start + num_rows)]
    assert all(1 <= len(batch) <= batch_rows for batch in batches)


def test_order_is_a_function_of_seed_window_and_pass(numbered: EncodedStore) -> None:
    window = window_of(numbered, 30, 200)
    order = order_of(numbered, window)
    assert order_of(numbered, window) == order
    others = [
        order_of(numbered, window, seed=2),
        order_of(numbered, window, pass_number=1),
        order_of(numbered, window_of(numbered, 30, 200, label="v")),
    ]
    assert all(other != order for other in others)
    assert others[0] != others[1]
    # The same window elsewhere in a longer store: the same order.
    moved = order_of(numbered, window_of(numbered, 50, 220))
    assert moved == [[row + 20 for row in batch] for batch in order]


def test_batches_may_be_read_in_any_order(numbered: EncodedStore) -> None:
    shuffle = ShuffleSettings(seed=3, block_rows=7, buffer_rows=50)
    batches = WindowBatches(
        numbered, window_of(numbered, 0, 170), pass_number=0, batch_rows=13, shuffle=shuffle
    )
    rows = [batches[k].batch.labels["watch_time_s"].tolist() for k in range(len(batches))]
    again = WindowBatches(
        numbered, window_of(numbered, 0, 170), pass_number=0, batch_rows=13, shuffle=shuffle
    )
    for k in reversed(range(len(again))):
        assert again[k].batch.labels["watch_time_s"].tolist() == rows[k]


def test_shuffle_reads_whole_blocks_of_a_bounded_buffer(numbered: EncodedStore) -> None:
    """Buffers of five blocks of seven rows: 35 rows, in three batches of 13, 13 and 9."""
    batches = order_of(numbered, window_of(numbered, 0, 210), buffer_rows=37)
    assert [len(batch) for batch in batches] == [13, 13, 9] * 6
    for buffer in range(6):
        rows = sorted(row for batch in batches[3 * buffer : 3 * buffer + 3] for row in batch)
        blocks = sorted({row // 7 for row in rows})
        assert rows == [7 * block + k for block in blocks for k in range(7)]
    assert [row for batch in batches for row in batch] != list(range(210))


def test_a_buffer_of_a_window_shuffles_fully(numbered: EncodedStore) -> None:
    (batch,) = order_of(numbered, window_of(numbered, 0, 200), batch_rows=999, buffer_rows=999)
    assert sorted(batch) == list(range(200))
    # Neighbours part: in a random order about 2 of 199 pairs are (n, n + 1).
    assert sum(b == a + 1 for a, b in pairwise(batch)) < 12


def test_one_row_and_none(numbered: EncodedStore) -> None:
    assert order_of(numbered, window_of(numbered, 17, 18)) == [[17]]
    assert order_of(numbered, window_of(numbered, 17, 17)) == []


def test_evaluation_reads_in_order(numbered: EncodedStore) -> None:
    sizes = numbered.windows[-1].vocabulary_sizes
    batches = list(read_in_order(numbered, 5, 50, vocabulary_sizes=sizes, batch_rows=20))
    assert [batch.num_rows for batch in batches] == [20, 20, 5]
    rows = torch.cat([batch.labels["watch_time_s"] for batch in batches])
    assert rows.tolist() == list(range(5, 50))
    assert list(read_in_order(numbered, 5, 5, vocabulary_sizes=sizes, batch_rows=20)) == []


def test_batches_hold_the_columns(store: EncodedStore) -> None:
    sizes = dict(store.windows[-1].vocabulary_sizes)
    (batch,) = read_in_order(store, 3, 14, vocabulary_sizes=sizes, batch_rows=99)
    assert set(batch.features) == {f.name for f in store.schema.all_features}
    assert set(batch.labels) == {t.name for t in store.schema.tasks}
    assert batch.features["item_id"].dtype == torch.int32
    assert batch.features["quality_proxy"].dtype == torch.float32
    for name, values in batch.features.items():
        stored = store.column(f"feature.{name}")[3:14]
        if values.dim() == 2:
            stored = stored[:, stored.shape[1] - values.shape[1] :]
        np.testing.assert_array_equal(values.numpy(), stored)
    np.testing.assert_array_equal(batch.position["position"], store.column("position")[3:14])


def test_sequences_are_as_long_as_the_longest_of_the_batch(store: EncodedStore) -> None:
    sizes = store.windows[-1].vocabulary_sizes
    whole = np.asarray(store.column("feature.history_item"))
    lengths = (whole != 0).sum(axis=1)
    assert lengths.min() == 0 and lengths.max() > 5
    for rows in (np.flatnonzero(lengths <= 2)[::-1], np.flatnonzero(lengths == 0)):
        batch = read_batch(store, rows, sizes)
        longest = max(1, int(lengths[rows].max()))
        for name in ("history_item", "history_feedback", "history_topic"):
            assert batch.features[name].shape == (len(rows), longest)
            expected = store.column(f"feature.{name}")[rows, -longest:]
            np.testing.assert_array_equal(batch.features[name], expected)
        assert (
            batch.features["topics"].shape[1]
            == (store.column("feature.topics")[rows] != 0).sum(axis=1).max()
        )


def test_ids_beyond_the_vocabulary_are_unknown(store: EncodedStore) -> None:
    small = {"item": 5, "user": 3, "device": 2, "topic": 4}
    sizes = {**store.windows[-1].vocabulary_sizes, **small}
    (batch,) = read_in_order(store, 0, 99, vocabulary_sizes=sizes, batch_rows=999)

    def cut(name: str, size: int) -> np.ndarray:
        values = np.asarray(store.column(name)[:99])
        assert values.max() >= size  # something is cut
        return np.where(values < size, values, 0)

    np.testing.assert_array_equal(batch.features["item_id"], cut("feature.item_id", 5))
    for name, size in {"history_item": 5, "topics": 4}.items():
        length = batch.features[name].shape[1]
        np.testing.assert_array_equal(
            batch.features[name], cut(f"feature.{name}", size)[:, -length:]
        )
    np.testing.assert_array_equal(batch.position["device"], cut("device", 2))
    length = batch.features["history_feedback"].shape[1]
    feedback = np.asarray(store.column("feature.history_feedback")[:99, -length:])
    np.testing.assert_array_equal(batch.features["history_feedback"], feedback)


def test_seeds_of_different_parts_differ() -> None:
    seeds = {seed_of("shuffle", s, w, p) for s in range(5) for w in ("a", "b") for p in range(3)}
    assert len(seeds) == 30 and all(0 <= seed < 2**63 for seed in seeds)
    assert seed_of(1, 23) != seed_of(12, 3)
    # sha256sum of "a/1", its first 8 bytes little-endian, halved
    digest = hashlib.sha256(b"a/1").hexdigest()[:16]
    assert seed_of("a", 1) == int("".join(digest[k : k + 2] for k in range(14, -1, -2)), 16) // 2
