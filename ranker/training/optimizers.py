"""Adam for the dense weights, Adagrad for the embeddings, and their state by parameter name.

Embedding gradients are sparse: only the batch's rows are touched. Adagrad fits ids: a rare id's
row keeps a large step, a frequent one's settles (Duchi et al., JMLR 2011).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from ranker.config import Config
from ranker.models.ranking_model import RankingModel
from ranker.training.sparse_adagrad import SparseAdagrad


class OptimizerConfig(Config):
    """Learning rates; ``weight_decay`` acts on dense weights (decoupled, AdamW)."""

    dense_rate: float = Field(default=1e-3, gt=0)
    embedding_rate: float = Field(default=0.05, gt=0)
    embedding_initial_sum: float = Field(default=0.1, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)


def build_optimizers(model: RankingModel, config: OptimizerConfig) -> list[Optimizer]:
    """Dense first, then embeddings (left out when the model has none)."""
    dense, embeddings = _split(model)
    optimizers: list[Optimizer] = [
        AdamW(dense.values(), lr=config.dense_rate, weight_decay=config.weight_decay)
    ]
    if embeddings:
        optimizers.append(
            SparseAdagrad(
                embeddings.values(),
                rate=config.embedding_rate,
                initial_sum=config.embedding_initial_sum,
            )
        )
    return optimizers


def optimizer_tensors(model: RankingModel, optimizers: list[Optimizer]) -> dict[str, Tensor]:
    """The optimizers' state as ``<parameter>/<state>`` -> tensor."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        for optimizer in optimizers:
            for key, value in optimizer.state.get(parameter, {}).items():
                tensors[f"{name}/{key}"] = value.detach().clone().contiguous()
    return tensors


def restore_optimizers(
    model: RankingModel,
    optimizers: list[Optimizer],
    tensors: Mapping[str, Tensor],
    config: OptimizerConfig,
) -> None:
    """Put back what `optimizer_tensors` took; rows that tables have grown by start afresh."""
    for name, parameter in model.named_parameters():
        for optimizer in optimizers:
            if not any(parameter is p for group in optimizer.param_groups for p in group["params"]):
                continue
            state = {
                key.rpartition("/")[2]: value.clone()
                for key, value in tensors.items()
                if key.rpartition("/")[0] == name
            }
            for key, value in state.items():
                fill = config.embedding_initial_sum if key == "sum" else 0.0
                state[key] = _padded(value, parameter, fill)
            if state:
                optimizer.state[parameter] = state


def _padded(value: Tensor, parameter: nn.Parameter, fill: float) -> Tensor:
    """State for rows that ``parameter`` has grown by."""
    if value.dim() == 0 or value.shape[0] == parameter.shape[0]:
        return value
    new_rows = torch.full((parameter.shape[0] - value.shape[0], *parameter.shape[1:]), fill)
    return torch.cat([value, new_rows.to(value.dtype)])


def _split(model: RankingModel) -> tuple[dict[str, nn.Parameter], dict[str, nn.Parameter]]:
    tables = {id(parameter) for parameter in model.embedder.tables.parameters()}
    dense: dict[str, nn.Parameter] = {}
    embeddings: dict[str, nn.Parameter] = {}
    for name, parameter in model.named_parameters():
        (embeddings if id(parameter) in tables else dense)[name] = parameter
    return dense, embeddings
