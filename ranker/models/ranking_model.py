"""The whole model: embedder -> bottom -> towers (+ position tower) -> heads.

Shapes: ``B`` batch, ``D`` width of the input, ``K`` tasks, ``E`` experts, ``H`` bottom's width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from ranker.data.batch import Batch
from ranker.models.embedder import Embedder
from ranker.models.heads import Head
from ranker.models.layers import module_key
from ranker.models.position import PositionTower
from ranker.models.towers import Towers

# Rows to predict at a time. The activations of more leave a core's cache, and are so large that
# their memory is asked of the system for every batch anew.
PREDICTION_ROWS = 2048


class Bottom(Protocol):
    """A sharing structure: a module that gives each task its hidden layer."""

    tasks: tuple[str, ...]
    out_width: int

    def __call__(self, x: Tensor) -> Tensor:
        """Map [B, D] to [B, K, H], tasks in the order of ``tasks``."""
        ...

    def gate_weights(self, x: Tensor) -> dict[str, Tensor]:
        """Task -> [B, E]; empty where there are no gates."""
        ...


class RankingModel(nn.Module):
    """A multi-task ranking model (Zhao et al., RecSys 2019, figure 1), composed of its parts.

    There are two kinds of logits. `training_logits` explain the log, with the position at which an
    impression was shown. `scoring_logits` are what the model thinks of a candidate: no position
    can change them. Predictions come from the latter; call them in evaluation mode.
    """

    def __init__(
        self,
        *,
        embedder: Embedder,
        bottom: Bottom,
        towers: Towers,
        heads: Mapping[str, Head],
        position_tower: PositionTower | None = None,
        linear: nn.Linear | None = None,
    ) -> None:
        """All parts must name the same tasks in the same order (ValueError).

        ``linear`` maps the input's numbers straight to the K logits (wide and deep learning, Cheng
        et al., DLRS 2016): what is linear needn't be learned through the towers.
        """
        super().__init__()
        parts: list[Bottom | Towers | PositionTower] = [bottom, towers]
        parts += [] if position_tower is None else [position_tower]
        self.tasks = tuple(heads)
        for part in parts:
            if part.tasks != self.tasks:
                raise ValueError(
                    f"model: {type(part).__name__} has tasks {part.tasks}, the heads {self.tasks}"
                )
        self.embedder = embedder
        self.bottom = bottom
        self.towers = towers
        self.position_tower = position_tower
        self.linear = linear
        self._heads = nn.ModuleDict(
            {module_key(task): cast(nn.Module, head) for task, head in heads.items()}
        )

    @property
    def heads(self) -> dict[str, Head]:
        """Task -> head."""
        return {task: cast(Head, self._heads[module_key(task)]) for task in self.tasks}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The same as `scoring_logits`."""
        return self.scoring_logits(batch)

    def training_logits(self, batch: Batch) -> dict[str, Tensor]:
        """Task -> logit [B] given the logged position.

        Raises:
            ValueError: there is a position tower, but the batch has no positions.
        """
        logits = self._main_logits(batch)
        if self.position_tower is not None:
            if "position" not in batch.position:
                raise ValueError(
                    "model: its position tower trains on positions, but the batch has none; give "
                    "the log's position column or build the model without position tower"
                )
            position = batch.position["position"]
            logits = logits + self.position_tower(position, _device_of(batch, position.device))
        return self._by_task(logits)

    def scoring_logits(self, batch: Batch) -> dict[str, Tensor]:
        """Task -> logit [B] with the position missing, whatever the batch says."""
        logits = self._main_logits(batch)
        if self.position_tower is not None:
            logits = logits + self.position_tower.missing(_device_of(batch, logits.device))
        return self._by_task(logits)

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Task -> probability or expected value [B] in the label's unit, position missing."""
        logits = self.scoring_logits(batch)
        return {task: head.prediction(logits[task]) for task, head in self.heads.items()}

    def gate_weights(self, batch: Batch) -> dict[str, Tensor]:
        """Task -> weights of the experts [B, E]; empty for a bottom without gates."""
        return self.bottom.gate_weights(self.embedder(batch.features))

    def _main_logits(self, batch: Batch) -> Tensor:
        x = self.embedder(batch.features)  # [B, D]
        logits: Tensor = self.towers(self.bottom(x))  # [B, K]
        if self.linear is not None:
            logits = logits + self.linear(x[:, -self.linear.in_features :])
        return logits

    def _by_task(self, logits: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.tasks, logits.unbind(dim=1), strict=True))


def _device_of(batch: Batch, where: torch.device) -> Tensor:
    """The device's index [B]; unknown where the batch does not say."""
    if "device" in batch.position:
        return batch.position["device"]
    return torch.zeros(batch.num_rows, dtype=torch.int64, device=where)
