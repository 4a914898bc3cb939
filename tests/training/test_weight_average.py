"""The average of the dense weights: what predicts, while training goes on from the weights."""

from pathlib import Path

import pytest
import torch
from torch import nn

from ranker.bundle import load_bundle
from ranker.data.store import EncodedStore
from ranker.training.fit import train
from ranker.training.optimizers import AveragedAdamW, averaged_weights
from ranker.training.settings import TrainConfig


def steps_of(decay: float, num_steps: int) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Weights after each step on a fixed sequence of gradients, and the average at the end."""
    weight = nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))
    optimizer = AveragedAdamW([weight], rate=0.1, weight_decay=0.0, decay=decay)
    rng = torch.Generator().manual_seed(3)
    weights = []
    for _ in range(num_steps):
        weight.grad = torch.randn(3, generator=rng)
        optimizer.step()
        weights.append(weight.detach().clone())
    return weights, optimizer.state[weight]["average"]


def test_the_average_starts_as_a_plain_mean() -> None:
    weights, average = steps_of(decay=0.999, num_steps=7)
    torch.testing.assert_close(average, torch.stack(weights).mean(dim=0))


def test_the_average_forgets_by_its_decay() -> None:
    weights, average = steps_of(decay=0.5, num_steps=7)
    expected = weights[0]
    for step, weight in enumerate(weights[1:], start=2):
        decay = min(0.5, (step - 1) / step)
        expected = decay * expected + (1 - decay) * weight
    torch.testing.assert_close(average, expected)


def test_weights_come_back_after_predicting_with_the_average() -> None:
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = AveragedAdamW([weight], rate=0.1, weight_decay=0.0, decay=0.9)
    for gradient in ([1.0, -1.0], [2.0, 0.5], [0.1, 0.3]):
        weight.grad = torch.tensor(gradient)
        optimizer.step()
    before = weight.detach().clone()
    with averaged_weights([optimizer]):
        assert torch.equal(weight, optimizer.state[weight]["average"])
        assert not torch.equal(weight, before)
    assert torch.equal(weight, before)


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_the_bundle_predicts_with_the_average_and_keeps_the_weights(
    decay: float, prepared_synthetic: Path, small_train_config: TrainConfig, tmp_path: Path
) -> None:
    optimizer = small_train_config.optimizer.model_copy(update={"average_decay": decay})
    config = small_train_config.model_copy(update={"optimizer": optimizer})
    train(EncodedStore(prepared_synthetic), config, tmp_path / "run")
    bundle = load_bundle(tmp_path / "run" / "bundle")
    own = {name for name in bundle.optimizer if name.endswith("/own")}
    if decay == 0:
        assert not own
        return
    weights = bundle.model.state_dict()
    dense = [n for n, _ in bundle.model.named_parameters() if ".table." not in n]
    assert {f"{name}/own" for name in dense} == own
    for name in dense:
        assert torch.equal(weights[name], bundle.optimizer[f"{name}/average"])
    assert any(not torch.equal(weights[n], bundle.optimizer[f"{n}/own"]) for n in dense)
