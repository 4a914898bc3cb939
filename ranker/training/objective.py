"""The training loss over all tasks: a weighted sum of masked means."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ranker.models.heads import Head


def task_losses(
    logits: Mapping[str, Tensor], labels: Mapping[str, Tensor], heads: Mapping[str, Head]
) -> dict[str, Tensor]:
    """Task -> mean loss over the rows [B] where its label was observed; 0 where none was.

    The mean is over observed rows, not over the batch: a rarely shown survey is not drowned by
    the rows that have no answer.
    """
    losses = {}
    for task, head in heads.items():
        label = labels[task]
        observed = (~label.isnan()).sum().clamp(min=1)
        losses[task] = head.loss(logits[task], label).sum() / observed
    return losses


def weighted_sum(losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Σ_k weight_k · loss_k (a scalar)."""
    return torch.stack([weights[task] * loss for task, loss in losses.items()]).sum()
