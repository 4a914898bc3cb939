"""The layers that each task has for itself, above the bottom.

Shapes: ``B`` batch, ``K`` tasks, ``H`` width of the bottom.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ranker.models.layers import BatchedLinear, BatchedMLP, LayerStyle


class Towers(nn.Module):
    """One tower a task, all in one batched product a layer."""

    def __init__(
        self,
        *,
        in_width: int,
        widths: Sequence[int],
        initial_logits: Mapping[str, float],
        style: LayerStyle,
    ) -> None:
        """``initial_logits`` names the tasks, in order, and where each logit starts.

        A rare task that starts at its base rate does not spend its first steps on finding it.
        """
        super().__init__()
        self.tasks = tuple(initial_logits)
        self.hidden = BatchedMLP(len(self.tasks), in_width, widths, style=style)
        self.final = BatchedLinear(len(self.tasks), self.hidden.out_width, 1)
        with torch.no_grad():
            assert self.final.bias is not None
            self.final.bias.copy_(torch.tensor(list(initial_logits.values()))[:, None])

    def forward(self, x: Tensor) -> Tensor:
        """Map the bottom's [B, K, H] to logits [B, K]."""
        logits: Tensor = self.final(self.hidden(x))  # [B, K, 1]
        return logits.squeeze(2)
