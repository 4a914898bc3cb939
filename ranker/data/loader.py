"""Batches of a window: shuffled for training, in order for evaluation.

The order is a pure function of (seed, window, pass), and a position in it is one integer: the
number of the next batch. So a run can go on where it stopped, with any number of workers, and each
row is trained on once a pass.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ranker.data.batch import Batch
from ranker.data.store import EncodedStore, Window
from ranker.data.store_layout import CATEGORICAL, LABEL, NUMERIC
from ranker.schema import FeatureSpec, Schema

IntArray = npt.NDArray[np.int64]


def seed_of(*parts: int | str) -> int:
    """A 63-bit seed from any parts: the same on every platform, unrelated for other parts."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ShuffleSettings:
    """Blocks of neighbouring rows are permuted; then the rows of a buffer of blocks.

    Reading stays nearly sequential and memory bounded; ``buffer_rows`` of at least a window make
    it a full shuffle.
    """

    seed: int
    block_rows: int
    buffer_rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberedBatch:
    """A training batch and its number in the window's order."""

    number: int
    batch: Batch


class WindowBatches(Dataset[NumberedBatch]):
    """The batches of one pass over one window, by number.

    Indices that a vocabulary did not hold at the window's end become 0, the unknown id.
    """

    def __init__(
        self,
        store: EncodedStore,
        window: Window,
        *,
        pass_number: int,
        batch_rows: int,
        shuffle: ShuffleSettings,
        device: str = "cpu",
    ) -> None:
        """Buffers are held on ``device``: a batch is a slice there, and nothing is copied."""
        self._device = device
        self._store, self._window, self._batch_rows = store, window, batch_rows
        self._pass, self._shuffle = pass_number, shuffle
        self._buffers = plan_buffers(window.num_rows, shuffle, window.label, pass_number)
        counts = [-(-len(rows) // batch_rows) for rows in self._buffers]
        self._first_batch = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self._loaded: tuple[int, Batch] | None = None

    def __len__(self) -> int:
        """Batches in the pass."""
        return int(self._first_batch[-1])

    def __getitem__(self, number: int) -> NumberedBatch:
        """Batch ``number``; neighbours share a loaded buffer."""
        buffer = int(np.searchsorted(self._first_batch, number, side="right")) - 1
        if self._loaded is None or self._loaded[0] != buffer:
            rows = self._window.start + self._buffers[buffer]
            loaded = read_batch(self._store, rows, self._window.vocabulary_sizes)
            self._loaded = (buffer, loaded if self._device == "cpu" else loaded.to(self._device))
        start = (number - int(self._first_batch[buffer])) * self._batch_rows
        batch = slice_batch(self._loaded[1], start, start + self._batch_rows)
        return NumberedBatch(number=number, batch=batch)


def read_in_order(
    store: EncodedStore,
    start: int,
    stop: int,
    *,
    vocabulary_sizes: Mapping[str, int],
    batch_rows: int,
) -> Iterator[Batch]:
    """Rows ``start:stop`` in time order; ids beyond ``vocabulary_sizes`` are unknown."""
    for first in range(start, stop, batch_rows):
        yield read_batch(store, slice(first, min(first + batch_rows, stop)), vocabulary_sizes)


def read_batch(
    store: EncodedStore, rows: IntArray | slice, vocabulary_sizes: Mapping[str, int]
) -> Batch:
    """Gather ``rows`` [B] of a store; sequences are as long as the longest of them.

    Whole blocks are gathered and cut to the known ids; the batch's columns are views of them.
    """
    columns: dict[str, npt.NDArray[np.generic]] = {}
    for name, block in store.blocks.items():
        if name in (CATEGORICAL, NUMERIC, LABEL):
            matrix = store.rows(name, rows)
            if name == CATEGORICAL:
                _forget_unknown(matrix, block.columns, store.schema, vocabulary_sizes)
            columns |= zip(block.columns, matrix.T, strict=True)
    for name, ragged in store.ragged.items():
        padded = store.sequences(name, rows)
        _forget_unknown(padded, ragged.columns, store.schema, vocabulary_sizes)
        columns |= zip(ragged.columns, np.moveaxis(padded, 2, 0), strict=True)
    return make_batch(columns, store.schema, vocabulary_sizes={})


def _forget_unknown(
    index: npt.NDArray[Any],
    columns: Sequence[str],
    schema: Schema,
    vocabulary_sizes: Mapping[str, int],
) -> None:
    """Set indices [..., C] beyond their vocabulary's size to 0, in place; there are rarely any."""
    vocabularies = {f"feature.{f.name}": schema.vocabulary_of(f) for f in schema.all_features}
    vocabularies["device"] = "device"
    no_limit = np.iinfo(np.int32).max
    sizes = [vocabulary_sizes.get(vocabularies.get(name, ""), no_limit) for name in columns]
    unknown = index >= np.array(sizes, dtype=np.int32)
    if unknown.any():
        index[unknown] = 0


def make_batch(
    columns: Mapping[str, npt.NDArray[np.generic]],
    schema: Schema,
    vocabulary_sizes: Mapping[str, int],
) -> Batch:
    """A batch from encoded columns; absent labels are left out, a size not given is no limit."""
    features = feature_tensors(columns, schema.all_features, schema, vocabulary_sizes)
    labels = {
        task.name: torch.from_numpy(columns[f"label.{task.name}"].astype(np.float32, copy=False))
        for task in schema.tasks
        if f"label.{task.name}" in columns
    }
    position = {
        "position": torch.from_numpy(columns["position"].astype(np.int32, copy=False)),
        "device": known_indices(columns["device"], vocabulary_sizes.get("device")),
    }
    return Batch(features=features, labels=labels, position=position)


def feature_tensors(
    columns: Mapping[str, npt.NDArray[np.generic]],
    wanted: Iterable[FeatureSpec],
    schema: Schema,
    vocabulary_sizes: Mapping[str, int],
) -> dict[str, Tensor]:
    """The ``wanted`` features as a `Batch` holds them; a size not given is no limit."""
    features: dict[str, Tensor] = {}
    for feature in wanted:
        values = columns[f"feature.{feature.name}"]
        if feature.kind == "numeric":
            features[feature.name] = torch.from_numpy(values.astype(np.float32, copy=False))
        else:
            size = vocabulary_sizes.get(schema.vocabulary_of(feature))
            features[feature.name] = known_indices(values, size)
    return features


def slice_batch(batch: Batch, start: int, stop: int) -> Batch:
    """Rows ``start:stop`` as views."""
    return Batch(
        features={name: values[start:stop] for name, values in batch.features.items()},
        labels={name: values[start:stop] for name, values in batch.labels.items()},
        position={name: values[start:stop] for name, values in batch.position.items()},
    )


def known_indices(index: npt.NDArray[np.generic], size: int | None) -> Tensor:
    """Indices as int32; those that a vocabulary of ``size`` rows does not hold become 0."""
    known = torch.from_numpy(np.asarray(index, dtype=np.int32))
    return known if size is None else known.masked_fill(known >= size, 0)


def plan_buffers(
    num_rows: int, shuffle: ShuffleSettings, label: str, pass_number: int
) -> list[IntArray]:
    """Rows of each buffer in training order, relative to the window's first row."""
    seed = seed_of("shuffle", shuffle.seed, label, pass_number)
    rng = np.random.default_rng(seed)
    num_blocks = -(-num_rows // shuffle.block_rows)
    blocks = rng.permutation(num_blocks)
    per_buffer = max(1, shuffle.buffer_rows // shuffle.block_rows)
    buffers = []
    for first in range(0, num_blocks, per_buffer):
        starts = blocks[first : first + per_buffer] * shuffle.block_rows
        rows = (starts[:, None] + np.arange(shuffle.block_rows)[None, :]).reshape(-1)
        rows = rows[rows < num_rows]
        buffers.append(rng.permutation(rows).astype(np.int64))
    return buffers
