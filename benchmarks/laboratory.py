"""The laboratory's proofs: false alarms, power, coverage and peeking, over seeded experiments.

python benchmarks/laboratory.py [--quick] [--jobs N]

Figures don't depend on the number of processes. A verdict outside its band is printed and recorded.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import laboratory_fixed as fixed
import laboratory_peeking as peeking
import laboratory_world as world
import numpy as np
from laboratory_others import compare_with_others
from laboratory_runs import (
    CONFIDENCE,
    Proof,
    Verdict,
    at_most_verdict,
    near_verdict,
    repeat,
    report_failures,
    share_figure,
    share_verdict,
    uniform_verdict,
)
from laboratory_sizes import FULL, QUICK, SEEDS, Sizes
from laboratory_users import draw_arm, past_correlation
from record import Arguments, Figure, describe_machine, make_parser, progress, publish
from threadpoolctl import threadpool_limits

ALPHA = 1 - CONFIDENCE
LIFTS = (0.0, 0.01, 0.02, 0.03)


def prove_a_a(sizes: Sizes, executor: Executor) -> Proof:
    """Without a difference, each method finds one in 5 % of experiments, and p is uniform."""
    experiment = fixed.FixedHorizon(num_users=sizes.users_a_a, lift=0.0)
    outcomes = repeat(experiment, times=sizes.a_a, seed=SEEDS["a_a"], executor=executor)
    experiment = fixed.Interleaving(num_users=sizes.users_interleaving)
    interleaved = repeat(experiment, times=sizes.a_a, seed=SEEDS["interleaving"], executor=executor)
    p_values = {name: outcomes[f"p_{name}"] for name in fixed.METHODS}
    p_values["interleaving"] = interleaved["p"]
    naive = outcomes["p_naive_ratio"]
    left, expected = fixed.variance_left(outcomes), 1 - past_correlation() ** 2
    figures = {f"a_a_false_alarm_share_{m}": share_figure(p < ALPHA) for m, p in p_values.items()}
    figures |= {f"a_a_uniform_p_value_{m}": _uniform(p) for m, p in p_values.items()}
    figures["a_a_false_alarm_share_naive_ratio"] = share_figure(naive < ALPHA)
    figures["a_a_cuped_variance_of_differences_over_plain"] = Figure(value=left)
    verdicts = [
        share_verdict(f"A/A, {m}", p < ALPHA, expected=ALPHA, family=len(p_values))
        for m, p in p_values.items()
    ]
    verdicts += [
        uniform_verdict(f"A/A, {m}: p uniform (KS)", p, family=len(p_values))
        for m, p in p_values.items()
    ]
    return Proof(
        figures=figures,
        verdicts=verdicts,
        details={"expected_cuped_variance_over_plain": expected},
    )


def prove_sample_ratio(sizes: Sizes, executor: Executor) -> Proof:
    """The alarm of the sample ratio rings as often as it says, under the salted hash."""
    p_values = repeat(
        fixed.SampleRatio(num_users=sizes.users_a_a),
        times=sizes.a_a,
        seed=SEEDS["sample_ratio"],
        executor=executor,
    )["p"]
    figures, verdicts = {}, []
    for name, level in (("05", 0.05), ("001", 0.001)):
        figures[f"sample_ratio_alarm_share_at_{name}"] = share_figure(p_values < level)
        proof = f"sample-ratio alarm at {level}"
        verdicts.append(share_verdict(proof, p_values < level, expected=level, family=2))
    return Proof(figures=figures, verdicts=verdicts)


def prove_lifts(sizes: Sizes, executor: Executor) -> Proof:
    """A lift is found as often as the formula says, and intervals hold it 95 times in 100."""
    users = draw_arm(sizes.users_baseline, lift=0.0, rng=np.random.default_rng(SEEDS["baseline"]))
    proof = Proof(figures={})
    family = len(LIFTS) * (len(fixed.METHODS) + len(fixed.VALUES))
    for number, lift in enumerate(LIFTS):
        outcomes = repeat(
            fixed.FixedHorizon(num_users=sizes.users_lifts, lift=lift),
            times=sizes.lifts,
            seed=SEEDS["lifts"] + number,
            executor=executor,
        )
        label = f"lift_{100 * lift:.0f}"
        analytic = fixed.analytic_power(lift, num_users=sizes.users_lifts, users=users)
        for method, power in analytic.items():
            found = outcomes[f"p_{method}"] < ALPHA
            proof.figures[f"{label}_power_share_{method}"] = share_figure(found)
            proof.figures[f"{label}_analytic_power_share_{method}"] = Figure(value=power)
            verdict = near_verdict(
                f"power at a lift of {lift:.0%}, {method}",
                found,
                expected=power,
                margin=0.03,
                family=len(LIFTS) * len(analytic),
            )
            proof.verdicts.append(verdict)
        for name, covered in outcomes.items():
            if name.startswith("covers_"):
                proof.figures[f"{label}_{name}_share"] = share_figure(covered)
                title = f"95 % intervals at a lift of {lift:.0%}, {name}"
                verdict = share_verdict(title, covered, expected=CONFIDENCE, family=family)
                proof.verdicts.append(verdict)
    return proof


def prove_peeking(sizes: Sizes, executor: Executor) -> Proof:
    """Sequences raise at most 5 % false alarms over 20 looks; repeated tests far more.

    Where users stay, looks resemble each other, and repeated tests err less often than where new
    users arrive: of those, only the share is given.
    """
    outcomes = repeat(
        peeking.Peeking(num_users=sizes.users_peeking),
        times=sizes.a_a,
        seed=SEEDS["peeking"],
        executor=executor,
    )
    figures = {f"peeking_false_alarm_share_{n}": share_figure(v) for n, v in outcomes.items()}
    verdicts = [
        at_most_verdict(f"peeking, {name}", outcomes[f"sequence_{name}"], limit=ALPHA)
        for name in peeking.SEQUENCES
    ]
    verdicts += [
        Verdict(
            proof=f"peeking at a plain test, {name}: far too many alarms",
            value=float(outcomes[f"naive_{name}"].mean()),
            low=0.15,
            high=1.0,
        )
        for name in peeking.ARRIVING
    ]
    verdicts += [
        share_verdict(
            f"group-sequential, {name}",
            outcomes[f"group_{name}"],
            expected=ALPHA,
            family=len(peeking.GROUP_SEQUENTIAL),
        )
        for name in peeking.GROUP_SEQUENTIAL
    ]
    return Proof(figures=figures, verdicts=verdicts)


def prove_cuped(sizes: Sizes, executor: Executor) -> Proof:
    """CUPED leaves 1 - rho² of the variance, rho known from how users are made."""
    ratios = repeat(
        fixed.CupedVariance(num_users=sizes.users_cuped),
        times=sizes.repeats_cuped,
        seed=SEEDS["cuped"],
        executor=executor,
    )["ratio"]
    expected = 1 - past_correlation() ** 2
    farthest = float(ratios[np.argmax(np.abs(ratios - expected))])
    return Proof(
        figures={
            "cuped_squared_se_over_plain": Figure(
                value=float(np.median(ratios)),
                ci_low=float(ratios.min()),
                ci_high=float(ratios.max()),
            ),
            "cuped_one_minus_squared_correlation_over_plain": Figure(value=expected),
        },
        verdicts=[
            Verdict(
                proof="CUPED's squared standard error over the plain one, farthest experiment",
                value=farthest,
                low=expected - 0.02,
                high=expected + 0.02,
            )
        ],
    )


def prove_equal_to_others(_sizes: Sizes, _executor: Executor) -> Proof:
    """Ours is scipy's, statsmodels' and tea-tasting's wherever they do the same."""
    comparisons = compare_with_others(np.random.default_rng(SEEDS["others"]))
    largest = max(comparison.largest for comparison in comparisons)
    return Proof(
        figures={"largest_difference_from_others": Figure(value=largest)},
        verdicts=[
            Verdict(
                proof=f"{one.what}: distance from {one.library}",
                value=one.largest,
                low=0.0,
                high=1e-8,
            )
            for one in comparisons
        ],
        details=[comparison.to_json() for comparison in comparisons],
    )


PROOFS: dict[str, Callable[[Sizes, Executor], Proof]] = {
    "a_a": prove_a_a,
    "sample_ratio": prove_sample_ratio,
    "lifts": prove_lifts,
    "peeking": prove_peeking,
    "cuped": prove_cuped,
    "others": prove_equal_to_others,
    **world.PROOFS,
}


def prove_all(sizes: Sizes, *, jobs: int) -> tuple[dict[str, Proof], dict[str, float]]:
    """Every proof, and the seconds it took."""
    proofs, seconds = {}, {}
    # One thread to a process: with more, sums are rounded otherwise on another machine.
    with ProcessPoolExecutor(
        jobs, mp_context=get_context("spawn"), initializer=partial(threadpool_limits, 1)
    ) as executor:
        for name, prove in PROOFS.items():
            progress(name)
            start = time.perf_counter()
            proofs[name] = prove(sizes, executor)
            seconds[name] = time.perf_counter() - start
            report_failures(proofs[name].verdicts)
    return proofs, seconds


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser("laboratory", description=__doc__)
    parser.add_argument("--jobs", type=int, help="processes; as many as cores where left out")
    parsed = parser.parse_args(argv)
    jobs = parsed.jobs or int(describe_machine()["cores"])
    sizes = QUICK if parsed.quick else FULL
    proofs, seconds = prove_all(sizes, jobs=jobs)
    verdicts = [verdict for proof in proofs.values() for verdict in proof.verdicts]
    publish(
        "laboratory",
        {
            **{name: one for proof in proofs.values() for name, one in proof.figures.items()},
            "verdicts_held_share": Figure(value=float(np.mean([one.holds for one in verdicts]))),
        },
        arguments=Arguments(quick=parsed.quick, output=parsed.output),
        seeds=[
            *(seed for name, seed in SEEDS.items() if name != "lifts"),
            *(SEEDS["lifts"] + number for number in range(len(LIFTS))),
        ],
        settings={name: getattr(sizes, name) for name in Sizes.__slots__},
        details={
            "verdicts": [verdict.to_json() for verdict in verdicts],
            "seconds": seconds,
            **{name: proof.details for name, proof in proofs.items() if proof.details},
        },
    )


def _uniform(p_values: np.ndarray) -> Figure:
    return Figure(value=uniform_verdict("", p_values, family=1).value)


if __name__ == "__main__":
    main()
