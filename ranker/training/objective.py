"""The training loss over all tasks: a weighted sum of masked means."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ranker.models.heads import Head


def observed_rows(labels: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Task -> how many of the labels [B] were observed, at least 1."""
    return {task: (~label.isnan()).sum().clamp(min=1) for task, label in labels.items()}


def task_losses(
    logits: Mapping[str, Tensor],
    labels: Mapping[str, Tensor],
    heads: Mapping[str, Head],
    *,
    observed: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """Task -> sum of losses over the rows [B] with a label, divided by ``observed``.

    With `observed_rows` of the same labels that is the mean over the rows where the label was
    observed, not over the batch: a rarely shown survey is not drowned by the rows that have no
    answer. With those of a larger batch, the parts' losses add up to the batch's.
    """
    return {
        task: head.loss(logits[task], labels[task]).sum() / observed[task]
        for task, head in heads.items()
    }


def weighted_sum(losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Σ_k weight_k · loss_k (a scalar)."""
    return torch.stack([weights[task] * loss for task, loss in losses.items()]).sum()
