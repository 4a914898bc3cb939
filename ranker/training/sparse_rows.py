"""Optimizers for the embedding table that touch only the batch's rows.

`torch.optim.Adagrad` and `SparseAdam` accept sparse gradients too, but spend most of their time on
sparse arithmetic. Here the different rows of a batch are gathered, updated as a small dense matrix
by a rule, and put back.

Shapes: ``R`` rows of a table, ``W`` its width, ``n`` lookups of a batch, ``U`` different rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

EPSILON = 1e-10
ADAM_EPSILON = 1e-8
STEP = "step"
# below this many rows a lookup, marking rows is faster than sorting lookups
_ROWS_PER_LOOKUP = 24


class RowRule(Protocol):
    """How a row's new value follows from its gradient and its state."""

    def initial_state(self, table: Tensor) -> dict[str, Tensor]:
        """State [R] or [R, W] by name, for a table [R, W]."""
        ...

    def update(self, values: Tensor, gradient: Tensor, state: dict[str, Tensor], step: int) -> None:
        """Change ``values`` [U, W] and their ``state`` in place; ``step`` counts from 1."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RowwiseAdagrad:
    """x -= rate · g / (√s + ε) with s += mean(g²): one number of state a row.

    Adagrad (Duchi et al., JMLR 2011) with the row's coordinates sharing their sum, which needs
    1 / W of the memory.
    """

    rate: float
    initial_sum: float

    def initial_state(self, table: Tensor) -> dict[str, Tensor]:
        """``sum`` [R]."""
        return {"sum": table.new_full((table.shape[0],), self.initial_sum)}

    def update(self, values: Tensor, gradient: Tensor, state: dict[str, Tensor], step: int) -> None:
        """See `RowRule`."""
        del step
        total = state["sum"].add_(gradient.square().mean(dim=1))  # [U]
        values.addcdiv_(gradient, total.sqrt().add_(EPSILON)[:, None], value=-self.rate)


@dataclass(frozen=True, slots=True, kw_only=True)
class Adagrad:
    """x -= rate · g / (√s + ε) with s += g², element by element (Duchi et al., JMLR 2011)."""

    rate: float
    initial_sum: float

    def initial_state(self, table: Tensor) -> dict[str, Tensor]:
        """``sum`` [R, W]."""
        return {"sum": torch.full_like(table, self.initial_sum)}

    def update(self, values: Tensor, gradient: Tensor, state: dict[str, Tensor], step: int) -> None:
        """See `RowRule`."""
        del step
        total = state["sum"].addcmul_(gradient, gradient)
        values.addcdiv_(gradient, total.sqrt().add_(EPSILON), value=-self.rate)


@dataclass(frozen=True, slots=True, kw_only=True)
class LazyAdam:
    """Adam (Kingma and Ba, ICLR 2015) whose moments move only when their row is looked up.

    The bias correction counts all steps of the table, as in `torch.optim.SparseAdam`.
    """

    rate: float
    betas: tuple[float, float] = (0.9, 0.999)

    def initial_state(self, table: Tensor) -> dict[str, Tensor]:
        """``mean`` and ``square`` [R, W]."""
        return {"mean": torch.zeros_like(table), "square": torch.zeros_like(table)}

    def update(self, values: Tensor, gradient: Tensor, state: dict[str, Tensor], step: int) -> None:
        """See `RowRule`."""
        first, second = self.betas
        mean = state["mean"].lerp_(gradient, 1 - first)
        square = state["square"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
        correction = (1 - second**step) ** 0.5
        denominator = square.sqrt().add_(ADAM_EPSILON)
        values.addcdiv_(mean, denominator, value=-self.rate * correction / (1 - first**step))


class SparseRows(Optimizer):
    """Applies a `RowRule` to the rows of ``table`` that have a gradient.

    A row's new value depends on its own lookups alone, added up in the batch's order: neither the
    other rows nor the table's size change a bit of it. So a table grown later equals one that had
    all its rows from the beginning. A row looked up several times in a batch is updated once.

    With ``decay`` the gradient of ½ · decay · |x|² is added for the rows looked up, so a row is
    pulled to 0 as often as it is used.
    """

    def __init__(self, table: nn.Parameter, rule: RowRule, *, decay: float = 0.0) -> None:
        super().__init__([table], {})
        self._rule, self._decay = rule, decay

    @torch.no_grad()
    # torch's step is typed by overloads, which one signature can't match
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update the rows that have a gradient."""
        assert closure is None, "the loss is evaluated once a step"
        (table,) = self.param_groups[0]["params"]
        if table.grad is None:
            return
        state = self.state[table]
        if not state:
            state[STEP] = torch.zeros((), dtype=torch.int64)
            state.update(self._rule.initial_state(table))
        state[STEP] += 1
        rows, gradient = sum_by_row(table.grad)
        values = table.index_select(0, rows)  # [U, W]
        if self._decay:
            gradient.add_(values, alpha=self._decay)
        of_rows = {n: v.index_select(0, rows) for n, v in state.items() if n != STEP}
        self._rule.update(values, gradient, of_rows, int(state[STEP]))
        table.index_copy_(0, rows, values)
        for name, new in of_rows.items():
            state[name].index_copy_(0, rows, new)


def sum_by_row(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Add up a sparse gradient [R, W] with repeated rows.

    Returns:
        The different rows [U], ascending, and their sums [U, W], each added up in the order of the
        lookups.
    """
    lookups, values = gradient._indices()[0], gradient._values()  # [n], [n, W]
    num_rows = gradient.shape[0]
    if num_rows <= _ROWS_PER_LOOKUP * len(lookups):
        marks = torch.zeros(num_rows, dtype=torch.bool, device=lookups.device)
        marks[lookups] = True
        rows = marks.nonzero().squeeze(1)
        place_of_row = torch.empty(num_rows, dtype=torch.int64, device=lookups.device)
        place_of_row[rows] = torch.arange(len(rows), device=lookups.device)
        places = place_of_row[lookups]
    else:
        rows, places = torch.unique(lookups, return_inverse=True)
    sums = values.new_zeros(len(rows), values.shape[1])
    return rows, sums.index_add_(0, places, values)
