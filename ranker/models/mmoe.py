"""Multi-gate mixture of experts (Ma et al., KDD 2018), in the form of Zhao et al. (RecSys 2019).

Shapes: ``B`` batch, ``D`` inputs, ``S`` width of the shared layers, ``E`` experts, ``K`` tasks,
``H`` width of an expert's last layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ranker.models.layers import MLP, BatchedMLP, LayerStyle

GateInput = Literal["shared", "input"]


class MMoE(nn.Module):
    """A task's hidden layer is a mixture of experts, weighted by a softmax gate of its own.

    The experts sit on ``shared_widths`` hidden layers, as in Zhao et al. to keep them cheap, or on
    the input where that is empty. A gate reads what the experts read or the input.
    """

    def __init__(
        self,
        *,
        in_width: int,
        shared_widths: Sequence[int],
        num_experts: int,
        expert_widths: Sequence[int],
        tasks: Sequence[str],
        gate_input: GateInput = "shared",
        expert_dropout: float = 0.1,
        style: LayerStyle,
    ) -> None:
        """``expert_dropout`` is the probability that a task loses an expert for one example."""
        super().__init__()
        if num_experts < 1 or not expert_widths:
            raise ValueError(
                f"MMoE: expected at least one expert with at least one layer, got {num_experts} "
                f"experts of widths {list(expert_widths)}"
            )
        if not 0 <= expert_dropout < 1:
            raise ValueError(f"MMoE: expert_dropout must be in [0, 1), got {expert_dropout}")
        self.tasks = tuple(tasks)
        self.num_experts = num_experts
        self.gate_input: GateInput = gate_input
        self.expert_dropout = expert_dropout
        self.shared = MLP(in_width, shared_widths, style=style)
        self.experts = BatchedMLP(num_experts, self.shared.out_width, expert_widths, style=style)
        gate_width = in_width if gate_input == "input" else self.shared.out_width
        self.gates = nn.Linear(gate_width, len(self.tasks) * num_experts)
        self.out_width = self.experts.out_width

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, D] to [B, K, H]: sum_i g_k(x)_i f_i(x) for each task k (Ma et al., eq. 6)."""
        shared: Tensor = self.shared(x)  # [B, S]
        logits = self._gate_logits(x, shared)
        if self.training and self.expert_dropout > 0:
            logits = drop_experts(logits, probability=self.expert_dropout)
        experts: Tensor = self.experts(shared)  # [B, E, H]
        return torch.bmm(logits.softmax(dim=-1), experts)  # [B, K, H]

    def gate_weights(self, x: Tensor) -> dict[str, Tensor]:
        """Task -> weights [B, E] that each sum to one over the experts; nothing is dropped."""
        weights = self._gate_logits(x, self.shared(x)).softmax(dim=-1)
        return dict(zip(self.tasks, weights.unbind(dim=1), strict=True))

    def _gate_logits(self, x: Tensor, shared: Tensor) -> Tensor:
        logits: Tensor = self.gates(x if self.gate_input == "input" else shared)  # [B, K * E]
        return logits.view(-1, len(self.tasks), self.num_experts)  # [B, K, E]


def drop_experts(logits: Tensor, *, probability: float) -> Tensor:
    """Gate logits [B, K, E] with experts dropped at random: -inf, so weight 0 in the softmax.

    Zhao et al. (RecSys 2019) set an expert's utilisation to 0 with 10 % probability
    and renormalise; a softmax over the remaining logits is that renormalisation, without a
    division by what little weight a polarized gate may leave. Each example and task draws for
    itself, as in ordinary dropout: drawn once for a batch, one draw would decide a whole step. A
    gate that would lose all of its experts keeps all.
    """
    dropped = torch.rand_like(logits) < probability
    dropped = dropped & ~dropped.all(dim=-1, keepdim=True)
    return logits.masked_fill(dropped, -torch.inf)
