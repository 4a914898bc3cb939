from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ranker.training.sparse_adagrad import SparseAdagrad, sum_by_row

ROWS, WIDTH = 11, 5


def sparse_gradient(lookups: list[int], *, num_rows: int, seed: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    values = torch.randn(len(lookups), WIDTH, generator=random)
    indices = torch.tensor([lookups], dtype=torch.int64)
    return torch.sparse_coo_tensor(indices, values, (num_rows, WIDTH), check_invariants=True)


@given(
    batches=st.lists(
        st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=17), min_size=1, max_size=4
    )
)
def test_steps_equal_torchs_dense_adagrad(batches: list[list[int]]) -> None:
    start = torch.linspace(-1, 1, ROWS * WIDTH).view(ROWS, WIDTH)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    optimizer = SparseAdagrad([ours], rate=0.07, initial_sum=0.3)
    oracle = torch.optim.Adagrad([theirs], lr=0.07, initial_accumulator_value=0.3)
    for seed, lookups in enumerate(batches):
        gradient = sparse_gradient(lookups, num_rows=ROWS, seed=seed)
        ours.grad, theirs.grad = gradient, gradient.to_dense()
        optimizer.step()
        oracle.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(optimizer.state[ours]["sum"], oracle.state[theirs]["sum"])
    untouched = sorted(set(range(ROWS)) - {row for lookups in batches for row in lookups})
    assert torch.equal(ours[untouched], start[untouched])


@given(lookups=st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=40), seed=st.integers(0, 9))
def test_a_larger_table_changes_no_bit(lookups: list[int], seed: int) -> None:
    """Whichever way `sum_by_row` takes."""
    tables = []
    for num_rows in (ROWS, ROWS + 100):
        table = nn.Parameter(torch.ones(num_rows, WIDTH))
        optimizer = SparseAdagrad([table], rate=0.07, initial_sum=0.3)
        for step in range(2):
            table.grad = sparse_gradient(lookups, num_rows=num_rows, seed=seed + step)
            optimizer.step()
        tables.append((table, optimizer.state[table]["sum"]))
    for small, large in zip(*tables, strict=True):
        assert torch.equal(small, large[:ROWS])


def test_rows_are_summed_by_hand() -> None:
    gradient = torch.sparse_coo_tensor(
        torch.tensor([[6, 2, 6]]),
        torch.tensor([[1.0, 2.0], [4.0, 8.0], [16.0, 32.0]]),
        (7, 2),
        check_invariants=True,
    )
    rows, sums = sum_by_row(gradient)
    assert rows is not None
    assert rows.tolist() == [2, 6]
    assert sums.tolist() == [[4.0, 8.0], [17.0, 34.0]]


@pytest.mark.parametrize("num_threads", [2])
def test_threads_change_no_bit(num_threads: int) -> None:
    lookups = torch.randint(0, 300, (4001,), generator=torch.Generator().manual_seed(1)).tolist()
    gradient = sparse_gradient(lookups, num_rows=5000, seed=3)
    before = torch.get_num_threads()
    sums = []
    try:
        for threads in (1, num_threads):
            torch.set_num_threads(threads)
            sums.append(sum_by_row(gradient)[1])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*sums)
