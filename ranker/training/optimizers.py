"""Adam for the dense weights, Adagrad for the embeddings, and their state by parameter name.

Embedding gradients are sparse: only the batch's rows are touched. Adagrad fits ids: a rare id's
row keeps a large step, a frequent one's settles (Duchi et al., JMLR 2011).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from ranker.config import Config
from ranker.models.ranking_model import RankingModel
from ranker.training.sparse_adagrad import SparseAdagrad

AVERAGE, OWN = "average", "own"


class OptimizerConfig(Config):
    """Learning rates; ``weight_decay`` acts on dense weights (decoupled, AdamW).

    ``average_decay`` averages the dense weights over the last 1 / (1 - decay) steps or so
    (`AveragedAdamW`); 0 uses the last weights as they are.
    """

    dense_rate: float = Field(default=1e-3, gt=0)
    embedding_rate: float = Field(default=0.05, gt=0)
    embedding_initial_sum: float = Field(default=0.1, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    average_decay: float = Field(default=0.99, ge=0, lt=1)


class AveragedAdamW(AdamW):
    """AdamW that keeps a moving average of the weights as the state ``average``.

    One pass over a log leaves the last steps' noise in the weights; their average predicts better
    (Polyak and Juditsky, SIAM J. Control Optim. 1992). Training goes on from the weights
    themselves. The average starts as a plain mean: after t steps it forgets by
    min(decay, t / (t + 1)).
    """

    def __init__(
        self, params: Iterable[nn.Parameter], *, rate: float, weight_decay: float, decay: float
    ) -> None:
        super().__init__(params, lr=rate, weight_decay=weight_decay)
        self._decay = decay

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update the weights, then their average."""
        super().step(closure)
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state.get(parameter)
                if not state:
                    continue
                if AVERAGE not in state:
                    state[AVERAGE] = parameter.detach().clone()
                    continue
                steps = float(state["step"])
                decay = min(self._decay, (steps - 1) / steps)
                state[AVERAGE].lerp_(parameter, 1 - decay)


def build_optimizers(model: RankingModel, config: OptimizerConfig) -> list[Optimizer]:
    """Dense first, then embeddings (left out when the model has none)."""
    dense, embeddings = _split(model)
    optimizers: list[Optimizer] = [_dense_optimizer(dense.values(), config)]
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
    """Undo `publish_average`, to train on; a table that has grown keeps its new rows."""
    taken = dict(tensors)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            own = taken.pop(f"{name}/{OWN}", None)
            if own is not None:
                parameter[: own.shape[0]].copy_(own)
    return taken


def _dense_optimizer(parameters: Iterable[nn.Parameter], config: OptimizerConfig) -> Optimizer:
    if config.average_decay == 0:
        return AdamW(parameters, lr=config.dense_rate, weight_decay=config.weight_decay)
    return AveragedAdamW(
        parameters,
        rate=config.dense_rate,
        weight_decay=config.weight_decay,
        decay=config.average_decay,
    )


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
