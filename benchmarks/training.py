"""The speed contest: `ranker train` beside our plain loop and the peers, on the same logs.

    python benchmarks/training.py --quick
    python benchmarks/training.py [--parts speed memory real quality time] [--rounds 3] [--resume]

Parts. `speed`: workload A in short interleaved rounds at batch 1,024 and 4,096. `memory`: workload
B at batch 1,024. `real`: one pass over KuaiRand, where RANKER_DATA is set. `quality`: whole passes
over workload A, test AUC. `time`: the wall time from raw Parquet to torch-rechub's one-pass AUC.
Peers take part whose environments have been made (see peers/make_environment.py). Ratios are taken
within a round; all is measured in processes of their own. Runs are kept in --work, and --resume
takes up what is there.
"""

import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from arms import OURS, TORCH_PEERS, ArmError, Run, RunPlan, available_peers, prepare, run_arm
from make_data import NUM_DAYS, TRAIN_DAYS, Workload, workload_a, workload_b, write_log
from real_pass import real_figures
from record import (
    REPOSITORY,
    Arguments,
    Figure,
    make_parser,
    median_figure,
    progress,
    publish,
    ratio_figure,
)
from whole_pass import quality_figures, time_figures

PARTS = ("speed", "memory", "real", "quality", "time")
QUICK_ROWS, QUICK_BATCH, QUICK_STEPS = 40_000, 1_024, 20
QUICK_PEERS_UNTIL_S = 25.0
SLOW_START = ("fuxictr",)  # a minute before its first step: not in a run under a minute
STEPS_BY_BATCH = {1_024: 60, 4_096: 25}
MEMORY_BATCH, MEMORY_STEPS = 1_024, 20
MEMORY_IDS = (
    5_000_000,
    20_000_000,
)  # with the larger one, peers may need more memory than there is


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """Where a contest lives, who takes part, and how often each is run in short rounds."""

    work: Path
    arms: Sequence[str]
    rounds: int

    def log(self, workload: Workload, *, num_rows: int) -> Path:
        """The log of a workload with its prepared data, made on first use."""
        folder = self.work / f"log_{workload.name}_{num_rows}"
        if not (folder / "data.json").is_file():
            progress(f"writing {num_rows:,} rows of workload {workload.name}")
            write_log(workload, folder, num_rows=num_rows, seed=0)
        prepare(folder)
        return folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounds:
    """Runs by arm, one a round.

    Arms that failed in a round are left out: ``failures`` says why, ``unfinished`` what they had
    done in rounds before.
    """

    runs: Mapping[str, Sequence[Run]]
    failures: Mapping[str, str]
    unfinished: Mapping[str, Sequence[Run]] = field(default_factory=dict)

    def values(self, arm: str, event: str) -> list[float]:
        """One number of timing.json in every round.

        Raises:
            ArmError: a run was too short to have it.
        """
        for run in self.runs[arm]:
            if event not in run.timing:
                raise ArmError(f"{arm}: too few steps for {event} ({run.folder}); give more rows")
        return [run.timing[event] for run in self.runs[arm]]

    @property
    def peers(self) -> list[str]:
        """The arms that are not ours."""
        return [arm for arm in self.runs if arm not in OURS]


def short_plans(
    contest: Contest, data: Path, *, num_rows: int, batch: int, steps: int
) -> list[RunPlan]:
    """Peers stop after ``steps``; ours train on the last whole days that hold at least as many."""
    days = min(TRAIN_DAYS, -(-steps * batch * NUM_DAYS // num_rows))
    return [
        RunPlan(arm=arm, data=data, batch=batch, limit_steps=steps, train_days=days)
        for arm in contest.arms
    ]


def interleave(contest: Contest, name: str, plans: Sequence[RunPlan]) -> Rounds:
    """Run all plans (one an arm) in every round, each round beginning with another one."""
    runs: dict[str, list[Run]] = {plan.arm: [] for plan in plans}
    failures: dict[str, str] = {}
    for number in range(contest.rounds):
        for plan in (*plans[number % len(plans) :], *plans[: number % len(plans)]):
            if plan.arm in failures:
                continue
            progress(f"{name}, round {number + 1} of {contest.rounds}: {plan.arm}")
            try:
                run = run_arm(plan, contest.work / f"{name}_{plan.arm}_{number}")
            except ArmError as error:
                failures[plan.arm] = str(error)
                progress(f"{plan.arm} failed and is left out: {error}")
                continue
            runs[plan.arm].append(run)
    if failures.keys() & set(OURS):
        raise ArmError(f"our own arm failed: {failures}")
    return Rounds(
        runs={arm: made for arm, made in runs.items() if arm not in failures},
        failures=failures,
        unfinished={arm: made for arm, made in runs.items() if arm in failures and made},
    )


def speed_figures(prefix: str, rounds: Rounds) -> Iterator[tuple[str, Figure]]:
    """Examples a second of every arm, and what `ranker` makes of each other arm's."""
    rate = {arm: rounds.values(arm, "examples_per_s") for arm in rounds.runs}
    for arm, rates in rate.items():
        yield f"{prefix}_{arm}_examples_per_s", median_figure(rates)
        if arm != "ranker":
            yield f"{prefix}_ranker_over_{arm}", ratio_figure(rate["ranker"], rates)
    if rounds.peers:
        fastest = [max(values) for values in zip(*(rate[p] for p in rounds.peers), strict=True)]
        yield f"{prefix}_ranker_over_fastest_peer", ratio_figure(rate["ranker"], fastest)


def start_figures(prefix: str, rounds: Rounds) -> Iterator[tuple[str, Figure]]:
    """Process start to first step; a peer's includes reading and encoding the raw log."""
    for arm in rounds.runs:
        first = rounds.values(arm, "first_step_s")
        yield f"{prefix}_{arm}_first_step_s", median_figure(first)
        imported = rounds.values(arm, "imported_s")
        beyond = [a - b for a, b in zip(first, imported, strict=True)]
        yield f"{prefix}_{arm}_first_step_beyond_imports_s", median_figure(beyond)
    if rounds.peers:
        starts = [rounds.values(peer, "first_step_s") for peer in rounds.peers]
        fastest = [min(values) for values in zip(*starts, strict=True)]
        ours = rounds.values("ranker", "first_step_s")
        yield f"{prefix}_first_step_ranker_over_fastest_peer", ratio_figure(ours, fastest)


def memory_figures(prefix: str, rounds: Rounds) -> Iterator[tuple[str, Figure]]:
    """Peak memory of every arm's processes, and `ranker`'s share of each peer's.

    Ours is one process, looked at when the bundle is saved: what its script predicts after that
    peers don't predict in short rounds.
    """
    peak = {arm: [run.peak_memory_mb for run in runs] for arm, runs in rounds.runs.items()}
    peak |= {arm: rounds.values(arm, "peak_rss_mb") for arm in rounds.runs if arm in OURS}
    for arm, values in peak.items():
        yield f"{prefix}_{arm}_peak_memory_mb", median_figure(values)
        if arm in rounds.peers:
            yield f"{prefix}_peak_memory_ranker_over_{arm}", ratio_figure(peak["ranker"], values)


def roofline_figures(data: Path, rates: Mapping[str, Sequence[float]]) -> dict[str, Figure]:
    """Share of the sustained matrix-product speed that a training run of workload A reaches."""
    from roofline import mmoe_multiplications, sgemm_gflops, training_gflop

    document = json.loads((data / "data.json").read_text())
    multiplications = mmoe_multiplications(
        in_width=16 * len(document["categorical"]) + len(document["numeric"]),
        num_experts=8,
        expert_widths=(256, 128),
        tower_widths=(64,),
        num_tasks=len(document["tasks"]),
    )
    sustained = sgemm_gflops(threads=2)
    gflop = training_gflop(multiplications)
    shares = {
        f"{name}_share_of_sgemm": median_figure([rate * gflop / sustained for rate in values])
        for name, values in rates.items()
    }
    return {"sgemm_gflops": Figure(value=sustained), **shares}


def run_speed(
    contest: Contest, figures: dict[str, Figure], details: dict[str, object], *, num_rows: int
) -> None:
    """Workload A in short rounds."""
    data = contest.log(workload_a(), num_rows=num_rows)
    rates = {}
    for batch, steps in STEPS_BY_BATCH.items():
        plans = short_plans(contest, data, num_rows=num_rows, batch=batch, steps=steps)
        rounds = interleave(contest, f"a_{batch}", plans)
        figures |= dict(speed_figures(f"a_{batch}", rounds))
        figures |= dict(start_figures(f"a_{batch}", rounds))
        figures |= dict(memory_figures(f"a_{batch}", rounds))
        details[f"a_{batch}"] = _raw(rounds)
        rates[f"a_{batch}_ranker"] = rounds.values("ranker", "examples_per_s")
    figures["a_prepare_s"] = Figure(value=prepare(data))
    figures |= roofline_figures(data, rates)


def run_memory(
    contest: Contest, figures: dict[str, Figure], details: dict[str, object], *, num_ids: int
) -> None:
    """Workload B: few rows, but a table of all ids."""
    workload = workload_b(num_ids)
    data = contest.log(workload, num_rows=workload.default_rows)
    plans = short_plans(
        contest,
        data,
        num_rows=workload.default_rows,
        batch=MEMORY_BATCH,
        steps=MEMORY_STEPS,
    )
    prefix = f"b_{num_ids / 1e6:g}m"
    name = f"{prefix}_{MEMORY_BATCH}"
    rounds = interleave(contest, name, plans)
    figures |= dict(speed_figures(name, rounds))
    figures |= dict(memory_figures(name, rounds))
    figures[f"{prefix}_prepare_s"] = Figure(value=prepare(data))
    details[name] = _raw(rounds)


def run_quick(work: Path, figures: dict[str, Figure], details: dict[str, object]) -> None:
    """One round on a small log; a peer only where its environment exists and there is time."""
    started = time.perf_counter()
    contest = Contest(work=work, arms=OURS, rounds=1)
    data = contest.log(workload_a(), num_rows=QUICK_ROWS)
    runs: dict[str, list[Run]] = {}
    left_out = []
    for arm in (*OURS, *available_peers()):
        late = time.perf_counter() - started > QUICK_PEERS_UNTIL_S
        if arm in SLOW_START or (arm not in OURS and late):
            left_out.append(arm)
            continue
        plan = RunPlan(arm=arm, data=data, batch=QUICK_BATCH, limit_steps=QUICK_STEPS)
        runs[arm] = [run_arm(plan, work / f"quick_{arm}")]
    rounds = Rounds(runs=runs, failures={})
    figures |= dict(speed_figures(f"a_{QUICK_BATCH}", rounds))
    figures |= dict(start_figures(f"a_{QUICK_BATCH}", rounds))
    figures["a_prepare_s"] = Figure(value=prepare(data))
    details["left_out"] = left_out
    details["rounds"] = _raw(rounds)


def _raw(rounds: Rounds) -> dict[str, object]:
    # the rest is what a process last printed, paths of this machine among it
    failures = {arm: message.partition("\n")[0] for arm, message in rounds.failures.items()}
    timings, unfinished = (
        {
            arm: [{**r.timing, "wall_s": r.wall_s, "tree_mb": r.peak_memory_mb} for r in runs]
            for arm, runs in by_arm.items()
        }
        for by_arm in (rounds.runs, rounds.unfinished)
    )
    return {"timings": timings, "failures": failures, "unfinished": unfinished}


def main() -> None:
    parser = make_parser("training", description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--peers", nargs="*", choices=TORCH_PEERS, help="all whose environment is made"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of whole passes")
    parser.add_argument("--rows", type=int, default=2_000_000, help="of workload A")
    parser.add_argument("--ids", type=int, nargs="+", default=MEMORY_IDS, help="of workload B")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "runs" / "benchmarks")
    parser.add_argument("--resume", action="store_true", help="keep the runs that are in --work")
    parsed = parser.parse_args()
    arguments = Arguments(quick=parsed.quick, output=parsed.output)
    work = parsed.work / ("training_quick" if parsed.quick else "training")
    if work.exists() and not parsed.resume:
        shutil.rmtree(work)
    figures: dict[str, Figure] = {}
    details: dict[str, object] = {}
    settings: dict[str, object] = {"threads": 2}
    if parsed.quick:
        settings |= {"rows": QUICK_ROWS, "batch": QUICK_BATCH}
        run_quick(work, figures, details)
    else:
        peers = available_peers() if parsed.peers is None else parsed.peers
        contest = Contest(work=work, arms=(*OURS, *peers), rounds=parsed.rounds)
        settings |= {key: vars(parsed)[key] for key in ("parts", "rounds", "rows", "ids")}
        settings["arms"] = list(contest.arms)
        if "speed" in parsed.parts:
            run_speed(contest, figures, details, num_rows=parsed.rows)
        if "memory" in parsed.parts:
            for num_ids in parsed.ids:
                run_memory(contest, figures, details, num_ids=num_ids)
        if "real" in parsed.parts:
            figures |= real_figures(work, rounds=parsed.rounds)
        if "quality" in parsed.parts:
            data = contest.log(workload_a(), num_rows=parsed.rows)
            found, details["quality"] = quality_figures(
                data, work, arms=contest.arms, seeds=parsed.seeds
            )
            figures |= found
        if "time" in parsed.parts and "torch_rechub" in peers:
            data = contest.log(workload_a(), num_rows=parsed.rows)
            found, details["time"] = time_figures(data, work, seeds=parsed.seeds)
            figures |= found
    publish(
        "training",
        figures,
        arguments=arguments,
        seeds=[0] if parsed.quick else parsed.seeds,
        settings=settings,
        details=details,
    )


if __name__ == "__main__":
    main()
