from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ranker.training.sparse_rows import (
    Adagrad,
    LazyAdam,
    RowRule,
    RowwiseAdagrad,
    SparseRows,
    sum_by_row,
)

ROWS, WIDTH = 11, 5
RULES: list[RowRule] = [
    RowwiseAdagrad(rate=0.07, initial_sum=0.3),
    Adagrad(rate=0.07, initial_sum=0.3),
    LazyAdam(rate=0.07),
]
LOOKUPS = st.lists(
    st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=17), min_size=1, max_size=4
)


def sparse_gradient(lookups: list[int], *, num_rows: int, seed: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    values = torch.randn(len(lookups), WIDTH, generator=random)
    indices = torch.tensor([lookups], dtype=torch.int64)
    return torch.sparse_coo_tensor(indices, values, (num_rows, WIDTH), check_invariants=True)


def start_table(num_rows: int = ROWS) -> torch.Tensor:
    return torch.linspace(-1, 1, num_rows * WIDTH).view(num_rows, WIDTH)


def run(rule: RowRule, batches: list[list[int]], *, decay: float = 0.0) -> nn.Parameter:
    table = nn.Parameter(start_table())
    optimizer = SparseRows(table, rule, decay=decay)
    for seed, lookups in enumerate(batches):
        table.grad = sparse_gradient(lookups, num_rows=ROWS, seed=seed)
        optimizer.step()
    return table


@given(batches=LOOKUPS)
def test_adagrad_equals_torchs_dense_one(batches: list[list[int]]) -> None:
    theirs = nn.Parameter(start_table())
    oracle = torch.optim.Adagrad([theirs], lr=0.07, initial_accumulator_value=0.3)
    for seed, lookups in enumerate(batches):
        theirs.grad = sparse_gradient(lookups, num_rows=ROWS, seed=seed).to_dense()
        oracle.step()
    ours = run(Adagrad(rate=0.07, initial_sum=0.3), batches)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@given(batches=LOOKUPS)
def test_lazy_adam_equals_torchs_sparse_one(batches: list[list[int]]) -> None:
    theirs = nn.Parameter(start_table())
    oracle = torch.optim.SparseAdam([theirs], lr=0.07)
    for seed, lookups in enumerate(batches):
        theirs.grad = sparse_gradient(lookups, num_rows=ROWS, seed=seed).coalesce()
        oracle.step()
    ours = run(LazyAdam(rate=0.07), batches)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@given(batches=LOOKUPS)
def test_rowwise_adagrad_equals_a_dense_loop(batches: list[list[int]]) -> None:
    table = start_table().double().numpy().copy()
    total = np.full(ROWS, 0.3)
    for seed, lookups in enumerate(batches):
        gradient = sparse_gradient(lookups, num_rows=ROWS, seed=seed).to_dense().double().numpy()
        for row in range(ROWS):
            total[row] += (gradient[row] ** 2).sum() / WIDTH
            table[row] -= 0.07 * gradient[row] / np.sqrt(total[row])
    ours = run(RowwiseAdagrad(rate=0.07, initial_sum=0.3), batches)
    np.testing.assert_allclose(ours.detach().numpy(), table, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_rows_that_are_not_looked_up_keep_their_bits(rule: RowRule) -> None:
    table = run(rule, [[3, 7, 3], [7, 1]], decay=0.5)
    untouched = sorted(set(range(ROWS)) - {1, 3, 7})
    assert torch.equal(table[untouched], start_table()[untouched])
    assert (table[[1, 3, 7]] != start_table()[[1, 3, 7]]).all()


def test_decay_adds_the_gradient_of_half_the_squared_norm_once_a_row() -> None:
    table = nn.Parameter(start_table())
    optimizer = SparseRows(table, Adagrad(rate=0.1, initial_sum=1.0), decay=0.4)
    table.grad = torch.sparse_coo_tensor(
        torch.tensor([[2, 2]]), torch.zeros(2, WIDTH), (ROWS, WIDTH), check_invariants=True
    )
    optimizer.step()
    row = start_table()[2]
    gradient = 0.4 * row
    torch.testing.assert_close(table[2], row - 0.1 * gradient / (1 + gradient**2).sqrt())


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
@given(lookups=st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=40), seed=st.integers(0, 9))
def test_a_larger_table_changes_no_bit(rule: RowRule, lookups: list[int], seed: int) -> None:
    """Whichever way `sum_by_row` takes."""
    tables = []
    for num_rows in (ROWS, ROWS + 400):
        table = nn.Parameter(torch.ones(num_rows, WIDTH))
        optimizer = SparseRows(table, rule)
        for step in range(2):
            table.grad = sparse_gradient(lookups, num_rows=num_rows, seed=seed + step)
            optimizer.step()
        state = [v[:ROWS] for name, v in optimizer.state[table].items() if name != "step"]
        tables.append([table[:ROWS], *state])
    for small, large in zip(*tables, strict=True):
        assert torch.equal(small, large)


@pytest.mark.parametrize("num_rows", [7, 700], ids=["marked", "sorted"])
def test_rows_are_summed_by_hand(num_rows: int) -> None:
    gradient = torch.sparse_coo_tensor(
        torch.tensor([[6, 2, 6]]),
        torch.tensor([[1.0, 2.0], [4.0, 8.0], [16.0, 32.0]]),
        (num_rows, 2),
        check_invariants=True,
    )
    rows, sums = sum_by_row(gradient)
    assert rows.tolist() == [2, 6]
    assert sums.tolist() == [[4.0, 8.0], [17.0, 34.0]]


def test_threads_change_no_bit() -> None:
    lookups = torch.randint(0, 300, (4001,), generator=torch.Generator().manual_seed(1)).tolist()
    before = torch.get_num_threads()
    sums = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            sums.append(sum_by_row(sparse_gradient(lookups, num_rows=90_000, seed=3))[1])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*sums)
