"""Adagrad for embedding tables: only the batch's rows are touched.

`torch.optim.Adagrad` accepts sparse gradients too, but spends most of its time on sorting and on
sparse arithmetic. Here the gradients of equal rows are added up by the kernel that an embedding's
dense backward pass uses.

Shapes: ``R`` rows of a table, ``W`` its width, ``n`` lookups of a batch, ``U`` different rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

EPSILON = 1e-10


class SparseAdagrad(Optimizer):
    """x -= rate · g / (√s + ε) with s += g², element by element (Duchi et al., JMLR 2011).

    A row's new value depends on its own lookups alone, added up in the batch's order: neither the
    other rows nor the table's size change a bit of it. So a table grown later equals one that had
    all its rows from the beginning.
    """

    def __init__(self, tables: Iterable[nn.Parameter], *, rate: float, initial_sum: float) -> None:
        """``tables`` [R, W] get sparse gradients; their state ``sum`` starts at ``initial_sum``."""
        super().__init__(tables, {"rate": rate, "initial_sum": initial_sum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update the rows that have a gradient."""
        assert closure is None, "the loss is evaluated once a step"
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is not None:
                    self._update(table, group)

    def _update(self, table: nn.Parameter, group: dict[str, Any]) -> None:
        state = self.state[table]
        if not state:
            state["sum"] = torch.full_like(table, group["initial_sum"])
        total: Tensor = state["sum"]
        assert table.grad is not None
        rows, gradient = sum_by_row(table.grad)
        if rows is None:
            total.addcmul_(gradient, gradient)
            table.addcdiv_(gradient, total.sqrt().add_(EPSILON), value=-group["rate"])
            return
        new_total = total.index_select(0, rows).addcmul_(gradient, gradient)  # [U, W]
        total.index_copy_(0, rows, new_total)
        values = table.index_select(0, rows)
        values.addcdiv_(gradient, new_total.sqrt().add_(EPSILON), value=-group["rate"])
        table.index_copy_(0, rows, values)


def sum_by_row(gradient: Tensor) -> tuple[Tensor | None, Tensor]:
    """Add up a sparse gradient [R, W] with repeated rows.

    Returns:
        Row indices [U] and sums [U, W]; or, where the table has fewer rows than the batch has
        lookups and finding the different ones isn't worth it, None and sums [R, W]. The sums are
        the same bits either way.
    """
    lookups, values = gradient._indices()[0], gradient._values()  # [n], [n, W]
    num_rows = gradient.shape[0]
    if num_rows <= len(lookups):
        return None, _scatter_sum(values, lookups, num_rows)
    rows, position = torch.unique(lookups, return_inverse=True)
    return rows, _scatter_sum(values, position, len(rows))


def _scatter_sum(values: Tensor, position: Tensor, num_rows: int) -> Tensor:
    """[n, W] -> [num_rows, W]; equal positions are added in their order."""
    backward = torch.ops.aten.embedding_dense_backward
    return cast(Tensor, backward(values, position, num_rows, -1, False))
