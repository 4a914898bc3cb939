"""What a model costs: multiplications for one example, parameters to store."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from ranker.data.batch import Batch
from ranker.models.ranking_model import RankingModel


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterCount:
    """Numbers of trainable parameters: embedding tables, and all the rest."""

    embedding: int
    dense: int


def count_parameters(model: RankingModel) -> ParameterCount:
    """Count the trainable parameters of ``model``, the position tower among the dense ones."""
    table = model.embedder.table
    embedding = 0 if table is None else table.weight.numel()
    total = sum(parameter.numel() for parameter in model.parameters())
    return ParameterCount(embedding=embedding, dense=total - embedding)


def multiplications_per_example(model: RankingModel, example_batch: Batch) -> int:
    """Multiply-adds of all matrix products when one row of ``example_batch`` is scored.

    Lookups and element-wise work (activations, normalisation, softmax) are left out. The lengths
    of the sequences count as they are, padding included.

    Raises:
        ValueError: the batch has no rows.
    """
    if example_batch.num_rows == 0:
        raise ValueError("cost: the example batch has no rows; give at least one")
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model.scoring_logits(example_batch)
    finally:
        model.train(was_training)
    # a multiply-add is two floating-point operations
    return int(counter.get_total_flops()) // 2 // example_batch.num_rows
