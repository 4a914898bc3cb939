"""S models of one shape as one model, which computes all of them with the same few products.

Most of a small model's time goes into starting operations, not into arithmetic. A stack starts
them once for S models.

Shapes: ``S`` models, ``B`` rows of each.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from ranker.data.batch import Batch
from ranker.models.heads import Head
from ranker.models.ranking_model import RankingModel
from ranker.models.stacked_layers import stacked_layer


class StackedModel:
    """S models that share nothing but the time they are computed in.

    Attributes:
        model: all of them: S stands in front of its weights' shapes, its rows take turns (see
            `ranker.models.stacked_layers`).
        num_models: ``S``.
    """

    def __init__(self, models: Sequence[RankingModel]) -> None:
        """Copy ``models`` of one config: mode, dropout and the like are the first one's.

        Raises:
            ValueError: there are none, or they differ in shape.
            TypeError: a layer has no stacked form.
        """
        _check_alike(models)
        self.num_models = len(models)
        self._one = copy.deepcopy(models[0])
        self.model = copy.deepcopy(models[0])
        _stack_layers(self.model, models)
        self._observers = {
            task: _Observer(head)
            for task, head in self.model.heads.items()
            if next(cast(nn.Module, head).buffers(), None) is not None
        }

    def training_logits(self, batch: Batch) -> dict[str, Tensor]:
        """Task -> logit [B, S] given the logged position, for columns [B, S, ...]."""
        logits = self.model.training_logits(_map_columns(batch, _take_turns))
        return {task: values.view(-1, self.num_models) for task, values in logits.items()}

    def observe(self, batch: Batch, logits: Mapping[str, Tensor]) -> None:
        """Take note of a training batch [B, S, ...] and its logits [B, S]."""
        for task, observer in self._observers.items():
            _observe_each(observer, logits[task], batch.labels[task])
        self.model.embedder.observe(_map_columns(batch, _take_turns).features)

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Task -> every model's prediction [S, B] for the same rows [B], position missing."""
        rows = _map_columns(batch, lambda column: column.repeat_interleave(self.num_models, dim=0))
        logits = self.model.scoring_logits(rows)
        return {
            task: head.prediction(logits[task].view(-1, self.num_models)).T
            for task, head in self.model.heads.items()
        }

    def unstack(self) -> list[RankingModel]:
        """The models as they are now, in order, in the stack's mode."""
        state = self.model.state_dict()
        models = []
        for number in range(self.num_models):
            one = copy.deepcopy(self._one).train(self.model.training)
            own = {
                name: state[name].view(self.num_models, *values.shape)[number]
                for name, values in one.state_dict().items()
            }
            one.load_state_dict(own)
            models.append(one)
        return models


def _check_alike(models: Sequence[RankingModel]) -> None:
    if not models:
        raise ValueError("stacked model: expected at least one model, got none")
    shapes = [{name: v.shape for name, v in model.state_dict().items()} for model in models]
    for number, other in enumerate(shapes):
        differing = [
            name for name in {**shapes[0], **other} if shapes[0].get(name) != other.get(name)
        ]
        if differing:
            raise ValueError(
                f"stacked model: model {number} differs from model 0 in the shape of {differing}; "
                "stack models of one config, schema and vocabulary"
            )


def _stack_layers(stack: nn.Module, modules: Sequence[nn.Module]) -> None:
    """Replace the layers of ``stack`` by stacked ones, and the heads' buffers by [S] of them."""
    for name, child in stack.named_children():
        layers = [module.get_submodule(name) for module in modules]
        if name == "_heads":
            _stack_heads(child, layers)
            continue
        stacked = stacked_layer(layers)
        if stacked is None:
            _stack_layers(child, layers)
        else:
            setattr(stack, name, stacked.train(child.training))


def _stack_heads(stack: nn.Module, heads: Sequence[nn.Module]) -> None:
    """A head works element by element: with buffers [S] it reads logits [B, S]."""
    for name, _ in list(stack.named_buffers()):
        owner, _, buffer = name.rpartition(".")
        values = torch.stack([module.get_buffer(name) for module in heads])
        setattr(stack.get_submodule(owner), buffer, values)


class _Observer(nn.Module):
    """Calls a head's `observe`; it has no parameters."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head

    def forward(self, logit: Tensor, label: Tensor) -> Tensor:
        self.head.observe(logit, label)
        return logit


def _observe_each(observer: _Observer, logits: Tensor, labels: Tensor) -> None:
    """Let each model's head observe its own column of [B, S]; what it notes is changed in place."""

    def observe(buffers: dict[str, Tensor], logit: Tensor, label: Tensor) -> Tensor:
        noted: Tensor = functional_call(observer, buffers, (logit, label))
        return noted

    vmap(observe, in_dims=(0, 1, 1))(dict(observer.named_buffers()), logits, labels)


def _take_turns(column: Tensor) -> Tensor:
    """[B, S, ...] -> [B * S, ...]."""
    return column.flatten(0, 1)


def _map_columns(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    return Batch(
        features={name: change(column) for name, column in batch.features.items()},
        labels={name: change(column) for name, column in batch.labels.items()},
        position={name: change(column) for name, column in batch.position.items()},
    )
