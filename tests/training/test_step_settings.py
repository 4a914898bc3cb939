"""Gradients in bfloat16 and compiled, beside plain ones."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ranker.bundle import build_bundle_model, load_bundle
from ranker.config import ConfigError
from ranker.data.loader import read_in_order
from ranker.data.store import EncodedStore
from ranker.models.ranking_model import RankingModel
from ranker.scoring.verification import verify
from ranker.training.gradients import PLAIN, GradientPass, StepSettings
from ranker.training.objective import observed_rows
from ranker.training.settings import TrainConfig

TrainInto = Callable[..., dict[str, str]]
NO_CHANCE = {"dropout": 0.0, "id_dropout": 0.0, "position_tower": {"kind": "none"}}


def without_chance(config: TrainConfig, **model: object) -> TrainConfig:
    """The same without anything drawn at random in a step."""
    values = config.model_dump()
    values["model"] |= {**NO_CHANCE, **model}
    values["model"]["bottom"]["expert_dropout"] = 0.0
    return TrainConfig.model_validate(values)


def distance(one: nn.Module, other: nn.Module) -> float:
    """Euclidean, over all parameters."""
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return math.hypot(*(float((a - b).detach().norm()) for a, b in pairs))


def weights(run_folder: Path) -> dict[str, Tensor]:
    return load_bundle(run_folder / "bundle").model.state_dict()


def mean_losses(run_folder: Path) -> list[float]:
    lines = (run_folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["mean_loss"] for line in lines]


def gradients(
    model: RankingModel, store: EncodedStore, settings: StepSettings, *, num_rows: int
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Loss, logits and gradients of the store's first rows."""
    loss_weights = {task.name: task.loss_weight for task in store.schema.tasks}
    (batch,) = read_in_order(store, 0, num_rows, vocabulary_sizes={}, batch_rows=num_rows)
    model.zero_grad(set_to_none=True)
    one = GradientPass(model, loss_weights=loss_weights, settings=settings)
    loss, logits = one.add(batch, observed=observed_rows(batch.labels))
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return loss, logits, {n: g.to_dense() if g.is_sparse else g.clone() for n, g in found.items()}


@pytest.fixture
def model(trained_synthetic: Path) -> RankingModel:
    """In evaluation mode, so that nothing is drawn at random."""
    return load_bundle(trained_synthetic / "bundle").model.eval()


def test_a_loss_in_bfloat16_is_that_of_float32_but_for_its_grain(
    model: RankingModel, store: EncodedStore
) -> None:
    loss, logits, exact = gradients(model, store, PLAIN, num_rows=71)
    bf16 = StepSettings(precision="bf16")
    rounded_loss, rounded_logits, rounded = gradients(model, store, bf16, num_rows=71)
    assert rounded_loss.dtype == torch.float32
    assert loss != rounded_loss
    # bfloat16 keeps 8 bits: 0.4 % of each product; sums of many hold better than each of them
    torch.testing.assert_close(rounded_loss, loss, rtol=1e-2, atol=0)
    for task, values in logits.items():
        assert rounded_logits[task].dtype == torch.float32
        torch.testing.assert_close(rounded_logits[task], values, rtol=0.05, atol=0.05)
    assert rounded.keys() == exact.keys()
    for name, gradient in exact.items():
        assert rounded[name].dtype == torch.float32
        assert (rounded[name] - gradient).norm() < 0.1 * gradient.norm() + 1e-4, name


def test_micro_batches_add_up_to_the_batch(model: RankingModel, store: EncodedStore) -> None:
    loss, logits, whole = gradients(model, store, PLAIN, num_rows=71)
    settings = StepSettings(micro_batch_rows=13)
    parts_loss, parts_logits, parts = gradients(model, store, settings, num_rows=71)
    torch.testing.assert_close(parts_loss, loss)
    torch.testing.assert_close(parts_logits, logits)
    torch.testing.assert_close(parts, whole, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("normalization", ["batch", "layer", "none"])
def test_bfloat16_trains_to_nearly_the_same_weights(
    normalization: str,
    tmp_path: Path,
    store: EncodedStore,
    three_days: TrainConfig,
    train_into: TrainInto,
) -> None:
    config = without_chance(three_days, normalization=normalization)
    one_day = config.model_copy(update={"before_window": "2024-03-05"})
    train_into(tmp_path / "fp32", store, one_day)
    train_into(tmp_path / "bf16", store, one_day.model_copy(update={"precision": "bf16"}))
    bundle = load_bundle(tmp_path / "fp32" / "bundle")
    start = build_bundle_model(bundle.config, bundle.schema, bundle.encoders)
    exact, rounded = bundle.model, load_bundle(tmp_path / "bf16" / "bundle").model
    assert all(values.isfinite().all() for values in rounded.state_dict().values())
    assert {p.dtype for p in rounded.parameters()} == {torch.float32}
    assert 0 < distance(rounded, exact) < 0.25 * distance(exact, start)
    assert verify(tmp_path / "bf16" / "bundle").problems == ()


def test_without_a_compiler_it_says_so(
    tmp_path: Path,
    store: EncodedStore,
    three_days: TrainConfig,
    train_into: TrainInto,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    config = three_days.model_copy(update={"compile_model": True})
    with pytest.raises(ConfigError, match="needs the C\\+\\+ compiler 'no-such-compiler'"):
        train_into(tmp_path, store, config)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler warns of what torch itself does
def test_compiled_layers_learn_the_same(
    tmp_path: Path, store: EncodedStore, three_days: TrainConfig, train_into: TrainInto
) -> None:
    """With micro-batches of three sizes; and byte for byte in one run or two."""
    config = without_chance(three_days).model_copy(update={"micro_batch_rows": 19})
    train_into(tmp_path / "eager", store, config)
    compiled = config.model_copy(update={"compile_model": True})
    digests = train_into(tmp_path / "compiled", store, compiled)
    assert mean_losses(tmp_path / "compiled") == pytest.approx(
        mean_losses(tmp_path / "eager"), rel=1e-4
    )
    exact, found = weights(tmp_path / "eager"), weights(tmp_path / "compiled")
    assert list(exact) == list(found)
    assert any(not torch.equal(exact[name], found[name]) for name in exact)
    # what comes after batch normalisation: a bias before it has no gradient but rounding errors
    for name in ("embedder.table.weight", "towers.final.weight", "towers.final.bias"):
        torch.testing.assert_close(found[name], exact[name], rtol=1e-3, atol=1e-4, msg=name)
    assert verify(tmp_path / "compiled" / "bundle").problems == ()
    first_days = compiled.model_copy(update={"before_window": "2024-03-06"})
    train_into(tmp_path / "first", store, first_days)
    start_from = load_bundle(tmp_path / "first" / "bundle")
    assert train_into(tmp_path / "rest", store, compiled, start_from=start_from) == digests


@pytest.mark.slow
def test_a_broken_compiler_is_explained(prepared_synthetic: Path, tmp_path: Path) -> None:
    """In a process of its own: torch looks for its compiler once."""
    broken = tmp_path / "broken-compiler"
    broken.write_text("#!/bin/sh\necho broken >&2\nexit 3\n")
    broken.chmod(0o755)
    words = ["train", "--data", str(prepared_synthetic), "--output", str(tmp_path / "run")]
    settings = ["compile_model=true", "threads=1", "accelerator=cpu"]
    words += [word for setting in settings for word in ("--set", setting)]
    environment = {
        **os.environ,
        "CXX": str(broken),
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *words],
        cwd=Path(__file__).resolve().parents[2],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "compile_model: torch.compile failed: " in done.stderr
    assert "set compile_model: false" in done.stderr
    assert not (tmp_path / "run" / "bundle").exists()
