"""Are the gates of a mixture of experts healthy: who uses which expert, and is one taking over?

Shapes: ``N`` rows, ``E`` experts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

POLARIZED_MEAN_WEIGHT = 0.9
UNUSED_MEAN_WEIGHT = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertUtilisation:
    """How a task's gate spreads its weight.

    Attributes:
        mean_weights: mean gate weight of each expert; they sum to one.
        entropy_nats: entropy of ``mean_weights``: log E when all experts are used alike.
        row_entropy_nats: mean over rows of the entropy of a row's weights. Far below
            ``entropy_nats``, the gate picks other experts for other rows; equal to it, the mix is
            the same for all.
    """

    mean_weights: tuple[float, ...]
    entropy_nats: float
    row_entropy_nats: float

    @property
    def is_polarized(self) -> bool:
        """One expert takes > 0.9 of the weight, or more than half the experts < 0.01 each.

        A single expert takes all of it by construction: that is no polarized gate.
        """
        if len(self.mean_weights) == 1:
            return False
        unused = sum(weight < UNUSED_MEAN_WEIGHT for weight in self.mean_weights)
        return max(self.mean_weights) > POLARIZED_MEAN_WEIGHT or 2 * unused > len(self.mean_weights)


def expert_utilisation(
    gate_weights_by_task: Mapping[str, Tensor],
) -> dict[str, ExpertUtilisation]:
    """Summarise gate weights [N, E] of each task (`RankingModel.gate_weights` in eval mode).

    Raises:
        ValueError: weights that are empty, negative, NaN, or don't sum to one.
    """
    return {task: _summarise(task, weights) for task, weights in gate_weights_by_task.items()}


def polarized_tasks(utilisation_by_task: Mapping[str, ExpertUtilisation]) -> tuple[str, ...]:
    """The tasks whose gates are polarized (`ExpertUtilisation.is_polarized`)."""
    return tuple(task for task, found in utilisation_by_task.items() if found.is_polarized)


def _summarise(task: str, weights: Tensor) -> ExpertUtilisation:
    if weights.dim() != 2 or weights.numel() == 0:
        raise ValueError(
            f"gates of task {task!r}: expected weights [rows, experts] with at least one row, got "
            f"shape {list(weights.shape)}"
        )
    weights = weights.detach().to(torch.float64)
    off = (weights.sum(dim=1) - 1).abs().max()
    if not bool(off <= 1e-3) or bool(weights.min() < 0):
        raise ValueError(
            f"gates of task {task!r}: expected weights >= 0 that sum to 1 in each row, got a sum "
            f"off by {float(off):.3g} and a minimum of {float(weights.min()):.3g}"
        )
    mean = weights.mean(dim=0)  # [E]
    return ExpertUtilisation(
        mean_weights=tuple(mean.tolist()),
        entropy_nats=float(torch.special.entr(mean).sum()),
        row_entropy_nats=float(torch.special.entr(weights).sum(dim=1).mean()),
    )
