from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ranker.models.initial_rows import INITIAL_BOUND, fill_initial_rows


def initial_rows(
    ids: Sequence[int] | Sequence[str] | np.ndarray, *, seed: int, vocabulary: str, width: int
) -> torch.Tensor:
    rows = torch.full((len(ids), width), torch.nan)
    fill_initial_rows(rows, ids, seed=seed, vocabulary=vocabulary)
    return rows


IDENTIFIERS = st.one_of(
    st.lists(st.integers(-(2**63), 2**63 - 1), unique=True, min_size=1, max_size=9),
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"])), unique=True, min_size=1, max_size=9
    ),
)


@given(ids=IDENTIFIERS, data=st.data())
def test_a_row_depends_on_its_id_alone(ids: list[int] | list[str], data: st.DataObject) -> None:
    rows = initial_rows(ids, seed=3, vocabulary="item", width=5)
    order = data.draw(st.permutations(range(len(ids))))
    shuffled = initial_rows([ids[i] for i in order], seed=3, vocabulary="item", width=5)  # type: ignore[arg-type]
    assert torch.equal(shuffled, rows[list(order)])
    alone = initial_rows(ids[:1], seed=3, vocabulary="item", width=5)
    assert torch.equal(alone, rows[:1])
    assert len({tuple(row) for row in rows.tolist()}) == len(ids)


def test_rows_are_uniform_and_uncorrelated() -> None:
    rows = initial_rows(range(20_000), seed=0, vocabulary="user", width=6).numpy()  # type: ignore[arg-type]
    assert np.abs(rows).max() <= INITIAL_BOUND
    uniform = stats.uniform(-INITIAL_BOUND, 2 * INITIAL_BOUND)
    for column in rows.T:
        assert stats.kstest(column, uniform.cdf).pvalue > 1e-4
    correlation = np.corrcoef(rows.T) - np.eye(6)
    assert np.abs(correlation).max() < 5 / np.sqrt(20_000)
    neighbours = np.corrcoef(rows[:-1, 0], rows[1:, 0])[0, 1]
    assert abs(neighbours) < 5 / np.sqrt(20_000)


def test_seed_vocabulary_and_type_change_the_rows() -> None:
    base = initial_rows([1, 2], seed=0, vocabulary="item", width=3)
    assert not torch.isclose(base, initial_rows([1, 2], seed=1, vocabulary="item", width=3)).any()
    assert not torch.isclose(base, initial_rows([1, 2], seed=0, vocabulary="user", width=3)).any()
    strings = initial_rows(["1", "2"], seed=0, vocabulary="item", width=3)
    assert not torch.isclose(base, strings).any()


def test_blocks_and_kinds_of_array_make_no_difference() -> None:
    ids = np.arange(70_000)  # more than one block
    rows = initial_rows(ids, seed=0, vocabulary="item", width=2)
    assert torch.equal(
        rows[69_000:], initial_rows(ids[69_000:], seed=0, vocabulary="item", width=2)
    )
    small = initial_rows(ids[:9].astype(np.int16), seed=0, vocabulary="item", width=2)
    assert torch.equal(small, rows[:9])
    fixed_width = initial_rows(np.array(["a", "bb"]), seed=0, vocabulary="item", width=2)
    listed = initial_rows(["a", "bb"], seed=0, vocabulary="item", width=2)
    assert torch.equal(fixed_width, listed)


def test_bits_are_those_of_an_independent_computation() -> None:
    """SplitMix64 in Python integers; an id's hash is pandas', whose own tests pin its values."""
    import pandas as pd

    def mix(z: int) -> int:
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        return z ^ (z >> 31)

    id_hash = int(pd.util.hash_array(np.array([42]))[0])
    key = int.from_bytes(hashlib.sha256(b"9\0item").digest()[:8], "little")
    state = mix(id_hash ^ key)
    unit = [mix((state + j * 0x9E3779B97F4A7C15) % 2**64) / 2**64 for j in (1, 2, 3)]
    rows = initial_rows([42], seed=9, vocabulary="item", width=3)
    expected = [(2 * u - 1) * INITIAL_BOUND for u in unit]
    assert rows[0].tolist() == pytest.approx(expected, abs=1e-7)


def test_no_ids_make_no_rows() -> None:
    assert initial_rows([], seed=0, vocabulary="item", width=4).shape == (0, 4)


@pytest.mark.parametrize("ids", [[1.5, 2.0], ["a", None], [True, False], [None], [1, "a"]])
def test_other_ids_are_refused(ids: list[object]) -> None:
    with pytest.raises(ValueError, match="'item': ids must be all integers or all strings"):
        initial_rows(ids, seed=0, vocabulary="item", width=4)  # type: ignore[arg-type]
