"""The position tower: what a logged impression owed to where it stood (Zhao et al., RecSys 2019).

Shapes: ``B`` batch, ``P`` positions, ``V`` devices, ``K`` tasks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class PositionTower(nn.Module):
    """A shallow tower over position × device whose logit is added to the main one.

    A logit is the sum of a scalar for the position, one for the device and one for the pair. The
    pairs alone could say the same; the sum lets a rare pair lean on its position. All start at 0.

    Position comes from the logging policy and is unknown when scoring, hence *missing* there. In
    training a part of the rows (10 % in the paper) loses its position, so that *missing* learns the
    average over positions. The device is no consequence of any ranking and known when scoring: it
    stays, and all candidates of a request share its logit.
    """

    def __init__(
        self, *, num_positions: int, num_devices: int, tasks: Sequence[str], dropout: float = 0.1
    ) -> None:
        """Index 0 (missing position, unknown device) comes on top of both numbers."""
        super().__init__()
        if not 0 <= dropout < 1:
            raise ValueError(f"position tower: dropout must be in [0, 1), got {dropout}")
        self.tasks = tuple(tasks)
        self.num_positions = num_positions
        self.dropout = dropout
        shape = (len(self.tasks),)
        self.positions = nn.Parameter(torch.zeros(num_positions + 1, *shape))  # [P + 1, K]
        self.devices = nn.Parameter(torch.zeros(num_devices + 1, *shape))  # [V + 1, K]
        self.pairs = nn.Parameter(torch.zeros(num_devices + 1, num_positions + 1, *shape))

    def forward(self, position: Tensor, device: Tensor) -> Tensor:
        """Logits [B, K] to train with, from indices [B] each as in `Batch`.

        Positions beyond the last one count as the last one. In training mode ``dropout`` of the
        rows lose their position.
        """
        position = position.clamp(max=self.num_positions)
        if self.training and self.dropout > 0:
            dropped = torch.rand(position.shape, device=position.device) < self.dropout
            position = position.masked_fill(dropped, 0)
        return self._logits(position, device)

    def missing(self, device: Tensor) -> Tensor:
        """Logits [B, K] to score with: whatever the position, it is missing."""
        return self._logits(torch.zeros_like(device), device)

    def _logits(self, position: Tensor, device: Tensor) -> Tensor:
        position, device = position.long(), device.long()  # ONNX takes no other indices
        return self.positions[position] + self.devices[device] + self.pairs[device, position]
