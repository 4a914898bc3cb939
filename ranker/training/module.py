"""The LightningModule: one optimizer step on one numbered batch, and where training stands."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import Optimizer

from ranker.data.batch import Batch
from ranker.data.loader import NumberedBatch, seed_of
from ranker.models.ranking_model import RankingModel
from ranker.training.gradients import PLAIN, GradientPass, StepSettings
from ranker.training.objective import observed_rows
from ranker.training.optimizers import (
    OptimizerConfig,
    averaged_weights,
    build_optimizers,
    optimizer_tensors,
    restore_optimizers,
    take_back_own,
)
from ranker.training.ranks import ALONE, Ranks


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """The next batch to train on: everything that decides what comes next.

    ``window`` is a label; ``steps`` and ``rows`` count what this and earlier runs have trained.
    """

    window: str
    pass_number: int
    batch: int
    steps: int
    rows: int


class RankingModule(pl.LightningModule):
    """Trains a `RankingModel`.

    Every random number of a step is a function of (seed, window, pass, batch): a run resumed at a
    cursor repeats nothing and draws what the uninterrupted run would have drawn.

    Attributes:
        last_loss: of the last batch, a scalar.
    """

    def __init__(
        self,
        model: RankingModel,
        *,
        loss_weights: Mapping[str, float],
        optimizer: OptimizerConfig,
        seed: int,
        cursor: Cursor,
        step: StepSettings = PLAIN,
        ranks: Ranks = ALONE,
    ) -> None:
        """Of several ``ranks`` each is given every whole batch and computes its part."""
        super().__init__()
        self.automatic_optimization = False
        self.model = model
        self.cursor = cursor
        self._optimizer_config = optimizer
        self._seed = seed
        self._gradients = GradientPass(
            model, loss_weights=loss_weights, settings=step, backward=self.manual_backward
        )
        self.ranks = ranks
        self._restored: Mapping[str, Tensor] = {}
        self._loss_sum = torch.zeros(())
        self.last_loss = torch.zeros(())

    def configure_optimizers(self) -> list[Optimizer]:
        """Build the optimizers, with the state given to `restore` if any."""
        optimizers = build_optimizers(self.model, self._optimizer_config)
        restore_optimizers(self.model, optimizers, self._restored)
        return optimizers

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Start the optimizers from `optimizer_tensors`, also those of a published bundle."""
        self._restored = take_back_own(self.model, tensors)

    @property
    def restored(self) -> Mapping[str, Tensor]:
        """What `restore` was given."""
        return self._restored

    def training_step(self, numbered: NumberedBatch, batch_idx: int) -> None:
        """One step; ``batch_idx`` is Lightning's and not used: the cursor counts."""
        del batch_idx
        cursor = self.cursor
        assert numbered.number == cursor.batch, "batches must come in the cursor's order"
        parts = (cursor.window, cursor.pass_number, cursor.batch)
        rank = (self.ranks.rank,) if self.ranks.rank else ()
        self._seed_step(seed_of("step", self._seed, *parts, *rank))
        batch = numbered.batch
        optimizers = self._optimizers()
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss = self._backward(batch)
        for optimizer in optimizers:
            optimizer.step()
        self.last_loss = loss
        self._loss_sum = self._loss_sum.to(loss.device) + loss * batch.num_rows
        self.cursor = Cursor(
            window=cursor.window,
            pass_number=cursor.pass_number,
            batch=cursor.batch + 1,
            steps=cursor.steps + 1,
            rows=cursor.rows + batch.num_rows,
        )

    def _seed_step(self, seed: int) -> None:
        # torch.manual_seed looks for every kind of device: .2 ms, a tenth of a small model's step
        if self.device.type == "cpu":
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)

    def _backward(self, batch: Batch) -> Tensor:
        """Add up the gradients of all micro-batches and ranks; returns the batch's loss."""
        observed = observed_rows(batch.labels)
        part = self.ranks.part(batch)
        total, logits = self._gradients.add(part, observed=observed)
        if part.num_rows:
            for task, head in self.model.heads.items():
                head.observe(logits[task], part.labels[task])
        self.model.embedder.observe(batch.features)
        return self.ranks.exchange(self.model, total)

    def transfer_batch_to_device(
        self, batch: NumberedBatch, device: torch.device, dataloader_idx: int
    ) -> NumberedBatch:
        """Our batches move themselves."""
        del dataloader_idx
        return NumberedBatch(number=batch.number, batch=batch.batch.to(device))

    def take_loss(self) -> float:
        """Sum of loss × rows since the last call."""
        total = float(self._loss_sum)
        self._loss_sum = torch.zeros_like(self._loss_sum)
        return total

    def averaged(self) -> AbstractContextManager[None]:
        """Inside, the model predicts with its averaged weights."""
        return averaged_weights(self._optimizers())

    def optimizer_tensors(self) -> dict[str, Tensor]:
        """The optimizers' state by parameter name."""
        return optimizer_tensors(self.model, self._optimizers())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep only what resuming needs: weights, optimizer state by name, and the cursor."""
        cursor = self.cursor
        checkpoint.clear()
        checkpoint["weights"] = self.model.state_dict()
        checkpoint["optimizer"] = self.optimizer_tensors()
        checkpoint["loss_sum"] = self._loss_sum.clone()
        checkpoint["cursor"] = {
            "window": cursor.window,
            "pass_number": cursor.pass_number,
            "batch": cursor.batch,
            "steps": cursor.steps,
            "rows": cursor.rows,
        }

    def load(self, checkpoint: Mapping[str, Any]) -> None:
        """Go on from what `on_save_checkpoint` kept."""
        self.model.load_state_dict(checkpoint["weights"])
        self.restore(checkpoint["optimizer"])
        self._loss_sum = checkpoint["loss_sum"]
        self.cursor = Cursor(**checkpoint["cursor"])

    def _optimizers(self) -> list[Optimizer]:
        trainer = self.trainer
        return list(trainer.optimizers)
