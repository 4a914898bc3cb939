"""A batch's loss and gradients: in micro-batches, in bfloat16, compiled, or plainly.

Only the forward pass and its gradients are computed otherwise: weights, losses and optimizer states
stay float32, and predictions are always made plainly.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ranker.config import ConfigError
from ranker.data.batch import Batch
from ranker.data.loader import slice_batch
from ranker.models.ranking_model import RankingModel
from ranker.training.objective import task_losses, weighted_sum

Precision = Literal["fp32", "bf16"]
_COMPILER_MODULES = ("torch._dynamo", "torch._inductor", "torch._functorch", "triton")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSettings:
    """How a batch's gradients are computed; see `ranker.training.settings.TrainConfig`."""

    micro_batch_rows: int = 0
    precision: Precision = "fp32"
    compile_model: bool = False


PLAIN = StepSettings()


class GradientPass:
    """Computes gradients of one model, batch after batch."""

    def __init__(
        self,
        model: RankingModel,
        *,
        loss_weights: Mapping[str, float],
        settings: StepSettings,
        backward: Callable[[Tensor], None] = torch.autograd.backward,
    ) -> None:
        """``backward`` adds a loss's gradients to the weights'."""
        self._model = model
        self._loss_weights = dict(loss_weights)
        self._settings = settings
        self._backward = backward
        self._compiled: list[tuple[nn.Module, Callable[..., Any]]] = []

    def add(
        self, part: Batch, *, observed: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Add the gradients of ``part``'s rows to the weights'.

        Args:
            part: rows of a batch, perhaps all.
            observed: the whole batch's `ranker.training.objective.observed_rows`.

        Returns:
            The loss, a scalar, and logits [B] by task; both float32, without gradient.

        Raises:
            ConfigError: the model can't be compiled here.
        """
        size = self._settings.micro_batch_rows or max(1, part.num_rows)
        where = next(self._model.parameters()).device
        total = torch.zeros((), device=where)
        parts: dict[str, list[Tensor]] = {task: [] for task in self._model.tasks}
        table = None if self._model.embedder.table is None else self._model.embedder.table.weight
        of_table: list[Tensor] = []
        with self._compiled_layers(where):
            for start in range(0, part.num_rows, size):
                micro = part if size >= part.num_rows else slice_batch(part, start, start + size)
                logits = self._logits(micro, where)
                losses = task_losses(logits, micro.labels, self._model.heads, observed=observed)
                loss = weighted_sum(losses, self._loss_weights)
                self._backward(loss)
                if table is not None and table.grad is not None:
                    of_table.append(table.grad)
                    table.grad = None
                total = total + loss.detach()
                for task, values in logits.items():
                    parts[task].append(values.detach())
        if table is not None and of_table:
            table.grad = _concatenated(of_table)
        none = torch.zeros(0, device=where)
        return total, {t: torch.cat(values) if values else none for t, values in parts.items()}

    def _logits(self, batch: Batch, where: torch.device) -> dict[str, Tensor]:
        reduced = self._settings.precision == "bf16"
        with torch.autocast(where.type, dtype=torch.bfloat16, enabled=reduced):
            logits = self._model.training_logits(batch)
        return {task: values.float() for task, values in logits.items()}

    def _compiled_layers(self, where: torch.device) -> AbstractContextManager[object]:
        """Inside, bottom and towers run compiled, where that is asked for.

        Outside they don't: what is predicted for a log must not depend on a compiler.
        """
        if not self._settings.compile_model:
            return contextlib.nullcontext()
        if not self._compiled:
            problem = compiler_problem(where)
            if problem:
                raise ConfigError(f"compile_model: {problem}")
            for part in (self._model.bottom, self._model.towers):
                assert isinstance(part, nn.Module)
                # dynamic: one kernel for any number of rows, also after a resume;
                # fullgraph: an error where it would otherwise go on uncompiled
                compiled = torch.compile(part.forward, dynamic=True, fullgraph=True)
                self._compiled.append((part, compiled))
        stack = ExitStack()
        stack.enter_context(_compiler_errors())
        for module, forward in self._compiled:
            stack.enter_context(_forward_replaced(module, forward))
        return stack


def compiler_problem(device: torch.device) -> str:
    """Why nothing can be compiled for ``device``, with what to do; empty if nothing is known."""
    if device.type == "cpu" and cpp_compiler() is None:
        return (
            f"needs the C++ compiler {_cpp_compiler_name()!r}, which is not on the PATH; install "
            "it, name another in CXX, or set compile_model: false"
        )
    return ""


def cpp_compiler() -> str | None:
    """The path of the C++ compiler that torch.compile would use; None if there is none."""
    return shutil.which(_cpp_compiler_name())


def _cpp_compiler_name() -> str:
    return os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")


@contextlib.contextmanager
def _forward_replaced(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Inside, ``module`` computes ``forward``; its weights and their names stay as they are."""
    module.forward = forward
    try:
        yield
    finally:
        del module.forward


@contextlib.contextmanager
def _compiler_errors() -> Iterator[None]:
    """Turn the compiler's own errors into one sentence."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith(_COMPILER_MODULES):
            raise
        first_line = next(iter(str(error).strip().splitlines()), "")
        raise ConfigError(
            f"compile_model: torch.compile failed: {type(error).__name__}: {first_line}; set "
            "compile_model: false, or repair the compiler (`ranker doctor` tries it)"
        ) from error


def _concatenated(gradients: list[Tensor]) -> Tensor:
    """The sum of sparse gradients, their lookups in order.

    Added one after another by autograd, each would be copied as often as others follow it.
    """
    if len(gradients) == 1:
        return gradients[0]
    indices = torch.cat([gradient._indices() for gradient in gradients], dim=1)
    values = torch.cat([gradient._values() for gradient in gradients])
    return torch.sparse_coo_tensor(indices, values, gradients[0].shape, check_invariants=False)
