"""Adam for the dense weights, a sparse rule for the embeddings, and their state by parameter name.

Only the batch's rows of the embedding table are touched. Adagrad fits ids: a rare id's row keeps a
large step, a frequent one's settles (Duchi et al., JMLR 2011).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, assert_never

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from ranker.config import Config
from ranker.data.parquet import DataError
from ranker.models.embedding_table import copy_rows
from ranker.models.ranking_model import RankingModel
from ranker.training.sparse_rows import (
    STEP,
    Adagrad,
    LazyAdam,
    RowRule,
    RowwiseAdagrad,
    SparseRows,
)

AVERAGE, OWN = "average", "own"
TABLE = "embedder.table.weight"
Positive = Annotated[float, Field(gt=0)]


class RowwiseAdagradConfig(Config):
    """See `ranker.training.sparse_rows.RowwiseAdagrad`."""

    kind: Literal["rowwise_adagrad"] = "rowwise_adagrad"
    rate: Positive = 0.05
    initial_sum: Positive = 0.1


class AdagradConfig(Config):
    """See `ranker.training.sparse_rows.Adagrad`."""

    kind: Literal["adagrad"] = "adagrad"
    rate: Positive = 0.05
    initial_sum: Positive = 0.1


class LazyAdamConfig(Config):
    """See `ranker.training.sparse_rows.LazyAdam`."""

    kind: Literal["lazy_adam"] = "lazy_adam"
    rate: Positive = 1e-3


EmbeddingRule = Annotated[
    RowwiseAdagradConfig | AdagradConfig | LazyAdamConfig, Field(discriminator="kind")
]


class OptimizerConfig(Config):
    """How weights learn.

    Attributes:
        dense_rate: Adam's rate for all but the embeddings.
        weight_decay: of the dense weights (decoupled, AdamW).
        average_decay: the dense weights are averaged over the last 1 / (1 - decay) steps or so
            (`AveragedAdamW`); 0 uses the last weights as they are.
        embedding: how the embeddings learn.
        embedding_decay: pulls the rows looked up to 0 (`ranker.training.sparse_rows.SparseRows`).
    """

    dense_rate: Positive = 1e-3
    weight_decay: float = Field(default=0.0, ge=0)
    average_decay: float = Field(default=0.99, ge=0, lt=1)
    embedding: EmbeddingRule = RowwiseAdagradConfig()
    embedding_decay: float = Field(default=0.0, ge=0)


class AveragedAdamW(AdamW):
    """AdamW that keeps a moving average of the weights as the state ``average``.

    One pass over a log leaves the last steps' noise in the weights; their average predicts better
    (Polyak and Juditsky, SIAM J. Control Optim. 1992). Training goes on from the weights
    themselves. The average starts as a plain mean: after t steps it forgets by
    min(decay, t / (t + 1)).
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        *,
        rate: float,
        weight_decay: float,
        decay: float,
    ) -> None:
        super().__init__(params, lr=rate, weight_decay=weight_decay)
        self._decay = decay

    @torch.no_grad()
    # torch's step is typed by overloads, which one signature can't match
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update the weights, then their average."""
        super().step(closure)
        averages: list[Tensor] = []
        weights: list[Tensor] = []
        steps = 0.0
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state.get(parameter)
                if not state:
                    continue
                if AVERAGE not in state:
                    state[AVERAGE] = parameter.detach().clone()
                averages.append(state[AVERAGE])
                weights.append(parameter)
                # every step gives all weights a gradient; read once, as it may be on a GPU
                steps = steps or float(state["step"])
        if averages:
            decay = min(self._decay, (steps - 1) / steps)
            torch._foreach_lerp_(averages, weights, 1 - decay)


def build_optimizers(model: RankingModel, config: OptimizerConfig) -> list[Optimizer]:
    """Dense first, then embeddings (left out when the model has none)."""
    table = model.embedder.table
    weight = None if table is None else table.weight
    optimizers: list[Optimizer] = [dense_optimizer(_dense_groups(model), config)]
    if weight is not None:
        rule = row_rule(config.embedding)
        optimizers.append(SparseRows(weight, rule, decay=config.embedding_decay))
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
    model: RankingModel, optimizers: list[Optimizer], tensors: Mapping[str, Tensor]
) -> None:
    """Put back what `optimizer_tensors` took."""
    for name, parameter in model.named_parameters():
        state = {
            key.rpartition("/")[2]: value.clone()
            for key, value in tensors.items()
            if key.rpartition("/")[0] == name
        }
        for optimizer in optimizers:
            groups = optimizer.param_groups
            if state and any(parameter is p for group in groups for p in group["params"]):
                optimizer.state[parameter] = state


def grow_optimizer_tensors(
    tensors: Mapping[str, Tensor], old: RankingModel, new: RankingModel, config: OptimizerConfig
) -> dict[str, Tensor]:
    """State of ``old``'s optimizers for ``new``, whose vocabularies have grown.

    New rows start with the state that they would have had from the beginning.

    Raises:
        DataError: the embeddings' state is of another rule than ``config``'s.
    """
    grown = dict(tensors)
    old_parameters = dict(old.named_parameters())
    initial = row_rule(config.embedding).initial_state(torch.zeros(1, 1))
    found = {key.rpartition("/")[2] for key in tensors if key.startswith(f"{TABLE}/")} - {STEP}
    if found and found != set(initial):
        raise DataError(
            f"the bundle's embeddings were trained with another rule than {config.embedding.kind!r}"
            " (optimizer.embedding.kind); to continue it they must be the same"
        )
    for name, parameter in new.named_parameters():
        old_shape = old_parameters[name].shape
        if old_shape == parameter.shape:
            continue
        of_table = name == TABLE
        for key, value in tensors.items():
            owner, _, state = key.rpartition("/")
            if owner != name or value.shape[:1] != old_shape[:1]:
                continue
            fill = float(initial[state]) if of_table else 0.0
            target = value.new_full((parameter.shape[0], *value.shape[1:]), fill)
            if of_table:
                copy_table_rows(old, value, new, target)
            else:
                target[: value.shape[0]] = value
            grown[key] = target
    return grown


def copy_table_rows(old: RankingModel, values: Tensor, new: RankingModel, target: Tensor) -> None:
    """Copy ``values`` [R, ...] by row of ``old``'s table to ``target``, by row of ``new``'s."""
    assert old.embedder.table is not None
    assert new.embedder.table is not None
    copy_rows(values, old.embedder.table.sizes, target, new.embedder.table.sizes)


@contextlib.contextmanager
def averaged_weights(optimizers: list[Optimizer]) -> Iterator[None]:
    """Inside, the model has its averaged weights, where they are kept; outside its own."""
    own: list[tuple[Tensor, Tensor]] = []
    with torch.no_grad():
        for optimizer in optimizers:
            for parameter, state in optimizer.state.items():
                if AVERAGE in state:
                    own.append((parameter, parameter.detach().clone()))
                    parameter.copy_(state[AVERAGE])
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, values in own:
                parameter.copy_(values)


def publish_average(model: RankingModel, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the model its averaged weights for good; its own go into the state as ``own``."""
    published = dict(tensors)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            average = tensors.get(f"{name}/{AVERAGE}")
            if average is not None:
                published[f"{name}/{OWN}"] = parameter.detach().clone()
                parameter.copy_(average)
    return published


def take_back_own(model: RankingModel, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo `publish_average`, to train on; a layer that has grown keeps its new rows."""
    taken = dict(tensors)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            own = taken.pop(f"{name}/{OWN}", None)
            if own is not None:
                parameter[: own.shape[0]].copy_(own)
    return taken


def _dense_groups(model: RankingModel) -> list[dict[str, Any]]:
    """Parameters for the fused kernel, and those it must not touch.

    The fused kernel rounds a tensor's last elements otherwise than those that fill a vector
    register. A layer that grows with its devices would then depend on when they were seen first.
    """
    grows = set() if model.position_tower is None else set(model.position_tower.parameters())
    table = set() if model.embedder.table is None else {model.embedder.table.weight}
    fixed = [parameter for parameter in model.parameters() if parameter not in grows | table]
    groups: list[dict[str, Any]] = [{"params": fixed, "fused": True}]
    if grows:
        kept_in_order = [parameter for parameter in model.parameters() if parameter in grows]
        groups.append({"params": kept_in_order, "fused": False})
    return groups


def dense_optimizer(groups: list[dict[str, Any]], config: OptimizerConfig) -> Optimizer:
    """The optimizer of all but the embeddings, averaging its weights if ``config`` says so."""
    if config.average_decay == 0:
        return AdamW(groups, lr=config.dense_rate, weight_decay=config.weight_decay)
    return AveragedAdamW(
        groups,
        rate=config.dense_rate,
        weight_decay=config.weight_decay,
        decay=config.average_decay,
    )


def row_rule(config: EmbeddingRule) -> RowRule:
    """How one table's rows learn."""
    match config:
        case RowwiseAdagradConfig():
            return RowwiseAdagrad(rate=config.rate, initial_sum=config.initial_sum)
        case AdagradConfig():
            return Adagrad(rate=config.rate, initial_sum=config.initial_sum)
        case LazyAdamConfig():
            return LazyAdam(rate=config.rate)
        case _:
            assert_never(config)
