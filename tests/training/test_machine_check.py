"""Which settings a machine is told to use, from timings made up and measured."""

from __future__ import annotations

import dataclasses
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ranker.config import parse_config
from ranker.models.mmoe import MMoE
from ranker.training import gradients, machine_check, step_trials
from ranker.training.gradients import PLAIN, GradientPass, StepSettings
from ranker.training.machine_check import (
    NOTHING,
    Recommendation,
    check_machine,
    combined,
    reason_for_doubt,
    recommend,
    sgemm_gflops,
    variants_for,
    what_pays,
)
from ranker.training.settings import TrainConfig
from ranker.training.step_trials import Speedup, StepTrials, Timing, Variant, speedup
from ranker.training.trial_model import TrialSizes, trial_batch, trial_model

CPU = torch.device("cpu")
TINY = TrialSizes(
    batch_rows=64,
    num_categorical=5,
    num_numeric=3,
    largest_vocabulary=50,
    embedding_width=4,
    num_experts=6,
    expert_widths=(9, 8),
    tower_widths=(7,),
)
VARIANTS = {v.name: v for v in variants_for(CPU, cores=4, batch_rows=4096)}


@pytest.fixture(autouse=True)
def short_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_trials, "_TRIAL_S", 0.01)
    monkeypatch.setattr(machine_check, "_MATRIX_ROWS", 50)


def timing(name: str, *seconds: float, left_out: str = "") -> Timing:
    return Timing(variant=VARIANTS[name], seconds=seconds, first_step_s=0.0, left_out=left_out)


BASELINE = timing("baseline", 1.0, 1.1, 0.9)
SAME_ALONE = timing("threads: 1", 1.0, 1.1, 0.9)


def recommended(*timings: Timing, together: tuple[Timing, ...] = ()) -> dict[str, Any]:
    found = dataclasses.asdict(recommend((BASELINE, *timings), together))
    return {key: value for key, value in found.items() if value is not None}


def test_a_speedup_compares_within_rounds() -> None:
    faster = timing("precision: bf16", 0.5, 0.55, 0.3)
    assert speedup(faster, BASELINE) == Speedup(
        median=2.0, low=pytest.approx(2.0), high=pytest.approx(3.0)
    )
    assert speedup(timing("precision: bf16", left_out="slow"), BASELINE) is None


def test_variants_change_one_setting_each() -> None:
    settings = {
        name: (v.threads, v.step.micro_batch_rows, v.step.precision, v.step.compile_model)
        for name, v in VARIANTS.items()
    }
    assert settings == {
        "baseline": (4, 0, "fp32", False),
        "threads: 1": (1, 0, "fp32", False),
        "micro_batch_rows: 256": (4, 256, "fp32", False),
        "micro_batch_rows: 512": (4, 512, "fp32", False),
        "micro_batch_rows: 1024": (4, 1024, "fp32", False),
        "precision: bf16": (4, 0, "bf16", False),
        "compile_model: true": (4, 0, "fp32", True),
    }
    small = [v.name for v in variants_for(CPU, cores=1, batch_rows=512)]
    assert small == ["baseline", "micro_batch_rows: 256", "precision: bf16", "compile_model: true"]
    on_gpu = variants_for(torch.device("cuda"), cores=4, batch_rows=4096)
    assert "threads: 1" not in [v.name for v in on_gpu]


@pytest.mark.parametrize(
    ("timings", "expected"),
    [
        ([SAME_ALONE], {}),
        # 4 % in one round is not enough, however much it is in the others
        ([timing("micro_batch_rows: 512", 0.5, 0.5, 0.866)], {}),
        ([timing("micro_batch_rows: 512", 0.95, 1.04, 0.85)], {"micro_batch_rows": 512}),
        ([timing("precision: bf16", 2.0, 2.2, 1.8)], {}),
        (
            [
                timing("micro_batch_rows: 256", 0.8, 0.8, 0.8),
                timing("micro_batch_rows: 512", 0.7, 0.7, 0.7),
                timing("micro_batch_rows: 1024", 0.75, 0.75, 0.75),
            ],
            {"micro_batch_rows": 512},
        ),
        ([timing("precision: bf16", 0.5, 0.5, 0.5)], {"precision": "bf16"}),
        ([timing("compile_model: true", 0.5, 0.5, 0.5)], {"compile_model": True}),
        ([timing("compile_model: true", left_out="no compiler")], {}),
        # threads: in both directions only where every round says so
        ([timing("threads: 1", 0.9, 0.9, 0.8)], {"threads": 1}),
        ([timing("threads: 1", 2.0, 2.0, 1.8)], {"threads": 4}),
        ([timing("threads: 1", 2.0, 2.0, 0.9)], {}),
        ([timing("threads: 1", left_out="17 times slower")], {"threads": 4}),
    ],
)
def test_only_what_is_clearly_faster_in_every_round(
    timings: list[Timing], expected: dict[str, Any]
) -> None:
    assert recommended(*timings) == expected
    config = parse_config(TrainConfig, expected, source="the recommendation")
    assert {key: getattr(config, key) for key in expected} == expected


def test_two_rounds_are_too_few() -> None:
    faster = timing("precision: bf16", 0.5, 0.5)
    assert recommend((timing("baseline", 1.0, 1.0), faster), ()) == NOTHING
    slower_alone = timing("threads: 1", 2.0, 2.0)
    assert recommend((timing("baseline", 1.0, 1.0), slower_alone), ()) == NOTHING


def test_combinations_are_recommended_only_if_they_beat_the_best_alone() -> None:
    micro = timing("micro_batch_rows: 256", 0.8, 0.8, 0.8)
    bf16 = timing("precision: bf16", 0.6, 0.6, 0.6)
    assert what_pays((BASELINE, micro, bf16)) == [bf16, micro]
    both = combined([bf16.variant, micro.variant])
    assert both.step == StepSettings(micro_batch_rows=256, precision="bf16")
    assert both.threads == 4

    def together(*seconds: float) -> tuple[Timing, ...]:
        alone = dataclasses.replace(bf16, seconds=(0.6, 0.6, 0.6))
        return alone, Timing(variant=both, seconds=seconds, first_step_s=0.0)

    assert recommended(micro, bf16, together=together(0.5, 0.5, 0.5)) == {
        "micro_batch_rows": 256,
        "precision": "bf16",
    }
    for seconds in ((0.5, 0.5, 0.59), (0.7, 0.7, 0.7)):
        assert recommended(micro, bf16, together=together(*seconds)) == {"precision": "bf16"}
    alone = combined([VARIANTS["threads: 1"], VARIANTS["compile_model: true"]])
    assert (alone.threads, alone.step) == (1, StepSettings(compile_model=True))


def test_a_busy_machine_is_recognised() -> None:
    assert reason_for_doubt(BASELINE, load=3.9, cores=4) == ""
    assert "5.5 programs at a time wanted the 4 usable cores" in reason_for_doubt(
        BASELINE, load=5.5, cores=4
    )
    unsteady = timing("baseline", 0.31, 0.42, 0.3)
    assert "0.3 s in one round and 0.42 s in another" in reason_for_doubt(unsteady, load=0, cores=4)
    short = timing("baseline", 0.3, 0.3)
    assert "2 of 3 rounds" in reason_for_doubt(short, load=0, cores=4)


def test_nothing_is_recommended_by_a_busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_check.os, "getloadavg", lambda: (7.0, 0.0, 0.0))
    check = check_machine(cores=1, sizes=TINY, compiles=False, max_rounds=3, budget_s=60)
    assert "7.0 programs" in check.unsure
    assert (check.recommendation, check.together) == (NOTHING, ())


def test_a_check_measures_every_variant_in_every_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_check, "MICRO_BATCHES", (19, 64))
    monkeypatch.setattr(machine_check.os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    monkeypatch.setenv("CXX", "no-such-compiler")
    threads = torch.get_num_threads()
    said: list[str] = []
    check = check_machine(
        cores=1, sizes=TINY, compiles=True, max_rounds=3, budget_s=60, on_progress=said.append
    )
    assert torch.get_num_threads() == threads
    *timed, compiled = check.timings
    assert [t.variant.name for t in timed] == [
        "baseline",
        "micro_batch_rows: 19",
        "precision: bf16",
    ]
    assert [len(t.seconds) for t in timed] == [3, 3, 3]
    assert all(s > 0 for t in timed for s in (*t.seconds, t.first_step_s))
    assert compiled.seconds == ()
    assert "'no-such-compiler'" in compiled.left_out
    assert list(check.sgemm_gflops) == [1]
    assert check.sgemm_gflops[1] > 0
    assert {"round 1", "round 2", "round 3", "first steps: precision: bf16"} <= set(said)
    assert (check.device, check.batch_rows) == ("cpu", 64)
    assert check.recommendation.threads is None, "there is one core"


def test_a_slower_variant_measures_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the 5 ms that a micro-batch is made to wait: 64 rows are 4 of them, or 32."""
    forward = MMoE.forward

    def slow(self: MMoE, x: torch.Tensor) -> torch.Tensor:
        time.sleep(5e-3)
        return forward(self, x)

    monkeypatch.setattr(MMoE, "forward", slow)
    trials = StepTrials(TINY, device=CPU, rng=np.random.default_rng(0))
    few, many = (
        Variant(name=str(rows), threads=1, step=StepSettings(micro_batch_rows=rows))
        for rows in (16, 2)
    )
    baseline, slower = trials.run([few, many], max_rounds=2, budget_s=60)
    assert min(baseline.seconds) > 0.02
    assert min(slower.seconds) > 0.16
    found = speedup(slower, baseline)
    assert found is not None
    assert found.high < 1


def test_a_hopeless_variant_is_not_timed_at_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sixteenth of the batch, 4 rows, takes 0.2 s: the whole would take 3.2 s."""
    add = GradientPass.add

    def slow(self: GradientPass, *words: Any, **named: Any) -> Any:
        time.sleep(0.2 if self._settings.micro_batch_rows else 0)
        return add(self, *words, **named)

    monkeypatch.setattr(gradients.GradientPass, "add", slow)
    trials = StepTrials(TINY, device=CPU, rng=np.random.default_rng(0))
    plain = Variant(name="plain", threads=1, step=PLAIN)
    crawling = Variant(name="crawling", threads=1, step=StepSettings(micro_batch_rows=7))
    kept, dropped = trials.run([plain, crawling], max_rounds=1, budget_s=60)
    assert len(kept.seconds) == 1
    assert dropped.seconds == ()
    assert "times slower in a first try of 4 rows" in dropped.left_out
    assert dropped.first_step_s > 0.2


def test_time_runs_out_after_a_round() -> None:
    trials = StepTrials(TINY, device=CPU, rng=np.random.default_rng(0))
    plain = Variant(name="plain", threads=1, step=PLAIN)
    (timed,) = trials.run([plain], max_rounds=50, budget_s=0.0)
    assert len(timed.seconds) == 1


def test_the_trial_model_has_the_sizes_asked_for() -> None:
    model, batch = trial_model(TINY), trial_batch(TINY, rng=np.random.default_rng(1))
    assert model.tasks == ("engage", "satisfy")
    table = model.embedder.table
    assert table is not None
    # geometric from 10 to 50 in 5 steps, and a row for unknown ids each
    assert list(table.sizes.values()) == [11, 16, 23, 34, 51]
    assert model.embedder.out_width == 5 * 4 + 3
    for name, size in TINY.vocabularies.items():
        ids = batch.features[name]
        assert (len(ids), int(ids.min()) >= 1, int(ids.max()) <= size) == (64, True, True)
    rare = trial_batch(dataclasses.replace(TINY, batch_rows=5_000), rng=np.random.default_rng(2))
    assert 0.02 < rare.labels["satisfy"].mean() < 0.06
    assert 0.27 < rare.labels["engage"].mean() < 0.33
    weights = [parameter.numel() for parameter in trial_model(TrialSizes()).bottom.parameters()]
    # 8 experts: 20 * 16 + 10 inputs, 256 and 128 wide, their batch norms, and 2 gates of 8
    experts = 8 * (330 * 256 + 256 * 128 + 2 * (256 + 128))
    assert sum(weights) == experts + 2 * 8 * (330 + 1)


def test_matrix_products_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """4 products after the first, each of 2 · 50³ operations in 2 ms on a made-up clock."""
    ticks = iter(np.arange(99) * 2e-3)
    clock = SimpleNamespace(perf_counter=lambda: next(ticks))
    monkeypatch.setattr(machine_check, "time", clock)
    threads = torch.get_num_threads()
    assert sgemm_gflops(threads=1) == pytest.approx(2 * 50**3 / 2e-3 / 1e9)
    assert torch.get_num_threads() == threads


def test_nothing_is_a_recommendation_of_nothing() -> None:
    assert set(dataclasses.asdict(NOTHING).values()) == {None}
    names = {field.name for field in dataclasses.fields(Recommendation)}
    assert names <= set(TrainConfig.model_fields)
