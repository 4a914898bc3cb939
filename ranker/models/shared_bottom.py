"""The shared bottom: one MLP that all tasks share (Caruana, Machine Learning 1997).

Shapes: ``B`` batch, ``D`` inputs, ``K`` tasks, ``H`` width of the last layer.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ranker.models.layers import MLP, LayerStyle


class SharedBottom(nn.Module):
    """Every task sees the same hidden layer."""

    def __init__(
        self, *, in_width: int, widths: Sequence[int], tasks: Sequence[str], style: LayerStyle
    ) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        self.mlp = MLP(in_width, widths, style=style)
        self.out_width = self.mlp.out_width

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, D] to [B, K, H]: K views of one [B, H], in the order of ``tasks``."""
        hidden: Tensor = self.mlp(x)  # [B, H]
        return hidden[:, None].expand(-1, len(self.tasks), -1)

    def gate_weights(self, x: Tensor) -> dict[str, Tensor]:
        """No task has a gate here, whatever ``x``."""
        del x
        return {}
