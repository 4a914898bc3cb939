"""Optimizer steps of S stacked models, each with draws, rates and loss weights of its own.

Shapes: ``S`` models, ``B`` rows of each in a batch, ``P`` dense weights of a model, ``R`` rows of a
model's embedding table, ``W`` its width, ``U`` rows of the stacked table looked up in a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode

from ranker.data.batch import Batch
from ranker.data.loader import slice_batch
from ranker.models.ranking_model import RankingModel
from ranker.models.stacked_model import StackedModel
from ranker.training.optimizers import (
    OptimizerConfig,
    averaged_weights,
    dense_optimizer,
    row_rule,
)
from ranker.training.sparse_rows import RowRule, SparseRows


class StackTrainer:
    """Trains S models of one shape on batches of the caller's making.

    Models may see different rows, labels (null where one must not learn) and loss weights, but the
    same number of rows. A step equals that of `ranker.training.module.RankingModule` on each
    model's rows, but for rounding.
    """

    def __init__(
        self,
        models: Sequence[RankingModel],
        *,
        optimizers: Sequence[OptimizerConfig],
        loss_weights: Sequence[Mapping[str, float]],
        micro_batch_rows: int = 0,
    ) -> None:
        """Copy ``models``; each has its optimizer config and its weight for every task.

        Rates, weight decay and averaging may differ, the embeddings' rule may not.

        Raises:
            ValueError: models of different shapes, lengths that differ, a task without loss
                weight, or optimizers that differ in more than they may.
        """
        if not len(models) == len(optimizers) == len(loss_weights):
            raise ValueError(
                f"stack trainer: {len(models)} models, {len(optimizers)} optimizers and "
                f"{len(loss_weights)} loss weights; give one of each a model"
            )
        self._stack = StackedModel([*models])
        self._stack.model.train()
        self._micro_batch_rows = micro_batch_rows
        device = next(self._stack.model.parameters()).device
        self._draws = _OwnDraws(len(models), device)
        self._loss_weights = {
            task: torch.tensor([_weight_of(task, w) for w in loss_weights], device=device)
            for task in self._stack.model.tasks
        }
        table = self._stack.model.embedder.table
        weight = None if table is None else table.weight
        self._parameters = [p for p in self._stack.model.parameters() if p is not weight]
        weights = _side_by_side(self._parameters)
        self._gradient = torch.empty_like(weights)
        self._dense = _dense_optimizers(weights, self._gradient, optimizers)
        self._sparse = None if weight is None else _sparse_optimizer(weight, optimizers)

    def step(self, batch: Batch, *, seeds: Sequence[int]) -> Tensor:
        """Take a step of every model.

        Args:
            batch: columns [B, S, ...]: row b of model s.
            seeds: each model's, for the random draws of this step.

        Returns:
            The losses [S], before the step.
        """
        self._draws.seed(seeds)
        self._stack.model.zero_grad(set_to_none=True)
        losses, logits = self._backward(batch)
        self._stack.observe(batch, logits)
        own = [_gradient_of(parameter).flatten(1) for parameter in self._parameters]
        torch.cat(own, dim=1, out=self._gradient)
        for optimizer in self._dense:
            optimizer.step()
        if self._sparse is not None:
            self._sparse.step()
        return losses

    def _backward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Add up the gradients of all micro-batches; returns losses [S] and logits [B, S]."""
        observed = {task: (~v.isnan()).sum(dim=0).clamp(min=1) for task, v in batch.labels.items()}
        parts: list[Tensor] = []
        logits: dict[str, list[Tensor]] = {task: [] for task in self._loss_weights}
        size = self._micro_batch_rows or batch.num_rows
        for start in range(0, batch.num_rows, size):
            part = slice_batch(batch, start, start + size)
            with self._draws:
                part_logits = self._stack.training_logits(part)
            losses = self._losses(part_logits, part.labels, observed)
            losses.sum().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            parts.append(losses.detach())
            for task, values in part_logits.items():
                logits[task].append(values.detach())
        together = {task: torch.cat(values) for task, values in logits.items()}
        return torch.stack(parts).sum(dim=0), together

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Task -> every model's prediction [S, B] for the same rows [B], by averaged weights."""
        self._stack.model.eval()
        with torch.no_grad(), averaged_weights(self._dense):
            predictions = self._stack.predict(batch)
        self._stack.model.train()
        return predictions

    def trained(self) -> list[RankingModel]:
        """The models with averaged weights, in evaluation mode; training may go on."""
        with averaged_weights(self._dense):
            return [model.eval() for model in self._stack.unstack()]

    def _losses(
        self,
        logits: Mapping[str, Tensor],
        labels: Mapping[str, Tensor],
        observed: Mapping[str, Tensor],
    ) -> Tensor:
        """Each model's weighted sum of `ranker.training.objective.task_losses`, [S]."""
        by_task = [
            self._loss_weights[task]
            * head.loss(logits[task], labels[task]).sum(dim=0)
            / observed[task]
            for task, head in self._stack.model.heads.items()
        ]
        return torch.stack(by_task).sum(dim=0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _OwnRates:
    """A rule whose rate, 1 in ``rule``, is each model's own: ``rates`` [S]."""

    rule: RowRule
    rates: Tensor

    def initial_state(self, table: Tensor) -> dict[str, Tensor]:
        rows = table.shape[0] // len(self.rates)
        return {**self.rule.initial_state(table), "rate": self.rates.repeat_interleave(rows)}

    def update(self, values: Tensor, gradient: Tensor, state: dict[str, Tensor], step: int) -> None:
        change = torch.zeros_like(values)  # [U, W]
        self.rule.update(change, gradient, state, step)
        values.addcmul_(change, state["rate"][:, None])


class _OwnDraws(TorchFunctionMode):
    """Inside, each model's rows are drawn by its own generator, as they would be alone.

    Covers what our layers draw with: `torch.rand`, `torch.rand_like` and dropout.
    """

    def __init__(self, num_models: int, device: torch.device) -> None:
        super().__init__()
        self._generators = [torch.Generator(device) for _ in range(num_models)]

    def seed(self, seeds: Sequence[int]) -> None:
        for generator, seed in zip(self._generators, seeds, strict=True):
            generator.manual_seed(seed)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        del types
        kwargs = kwargs or {}
        if func is torch.rand:
            return self._draw(torch.empty(*args, **kwargs), _uniform)
        if func is torch.rand_like:
            return self._draw(torch.empty_like(args[0]), _uniform)
        if func is functional.dropout and kwargs["training"] and kwargs["p"] > 0:
            kept = 1 - kwargs["p"]
            noise = self._draw(
                torch.empty_like(args[0]), lambda x, own: x.bernoulli_(kept, generator=own)
            )
            return args[0] * noise.div_(kept)
        return func(*args, **kwargs)

    def _draw(self, like: Tensor, fill: Callable[[Tensor, torch.Generator], Tensor]) -> Tensor:
        """Numbers [B * S, ...] whose rows are drawn by their models' generators in turn."""
        shape = (len(like) // len(self._generators), *like.shape[1:])
        drawn = [fill(like.new_empty(shape), own) for own in self._generators]
        return torch.stack(drawn, dim=1).flatten(0, 1)


def _uniform(values: Tensor, own: torch.Generator) -> Tensor:
    return values.uniform_(generator=own)


def _weight_of(task: str, weights: Mapping[str, float]) -> float:
    if task not in weights:
        raise ValueError(f"stack trainer: no loss weight for task {task!r}; got {sorted(weights)}")
    return weights[task]


def _gradient_of(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None, "every parameter takes part in every step"
    return parameter.grad


def _side_by_side(parameters: Sequence[nn.Parameter]) -> Tensor:
    """Move the weights [S, ...] into one matrix [S, P], a row a model.

    The parameters become views of it: what changes a row changes the model.
    """
    weights = torch.cat([parameter.detach().flatten(1) for parameter in parameters], dim=1)
    sizes = [parameter[0].numel() for parameter in parameters]
    for parameter, own in zip(parameters, torch.split(weights, sizes, dim=1), strict=True):
        parameter.data = own.view(parameter.shape)
    return weights


def _dense_optimizers(
    weights: Tensor, gradient: Tensor, configs: Sequence[OptimizerConfig]
) -> list[Optimizer]:
    """An optimizer for the models with the same settings: all of them, usually."""
    rows: dict[tuple[float, float, float], list[nn.Parameter]] = {}
    config_of = {}
    for config, own, of_own in zip(configs, weights, gradient, strict=True):
        row = nn.Parameter(own)
        row.grad = of_own
        settings = (config.dense_rate, config.weight_decay, config.average_decay)
        rows.setdefault(settings, []).append(row)
        config_of[settings] = config
    return [
        dense_optimizer([{"params": own, "fused": True}], config_of[settings])
        for settings, own in rows.items()
    ]


def _sparse_optimizer(table: nn.Parameter, configs: Sequence[OptimizerConfig]) -> SparseRows:
    """The embeddings' optimizer, with a rate a model only where the rates differ."""
    shared = configs[0]
    unit = [config.embedding.model_copy(update={"rate": 1.0}) for config in configs]
    decays = {config.embedding_decay for config in configs}
    if any(rule != unit[0] for rule in unit) or len(decays) > 1:
        raise ValueError(
            "stack trainer: models of one stack may differ in the embeddings' rate, but not in "
            f"embedding_decay or the rest of their rule; got {sorted(decays)} and {unit}"
        )
    rates = [config.embedding.rate for config in configs]
    rule = row_rule(shared.embedding)
    if len(set(rates)) > 1:
        rule = _OwnRates(rule=row_rule(unit[0]), rates=torch.tensor(rates, device=table.device))
    return SparseRows(table, rule, decay=shared.embedding_decay)
