"""The quality contest: our MMoE beside boosting and torch-rechub on 14 real days of KuaiRand.

    python benchmarks/quality.py --quick
    RANKER_DATA=DIR python benchmarks/quality.py [--only-choose] [--jobs 2]

Every arm reads the same prepared features. It trains on the days before 2022-05-05 and predicts
05-05 to 05-08; all that is chosen is chosen on 05-03 and 05-04 with training before 05-03
(configs/quality.yaml lists the settings), and calibrated on 05-04. The final is trained with five
seeds, and the test days' labels are read once, by one function, when nothing is left to decide.
--only-choose stops before. NDCG@5 is of users' test days: not comparable with the public challenge
on these data, whose split is another one.

--quick runs two arms with one seed on the bundled sample, and judges the validation days.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from quality_arms import Arm, Workshop, read_arms
from quality_choice import Choice, choose, quick_choice
from quality_data import (
    REHEARSAL,
    TEST,
    Splits,
    export,
    prepare,
    raw_inputs,
    sample_inputs,
    splits_of,
)
from quality_final import judge, reference_finalists, train_finalists
from quality_verdicts import figures_of, verdicts_of
from record import REPOSITORY, Arguments, make_parser, progress, publish

QUICK_ARMS = ("hist_gradient_boosting", "mmoe")
QUICK_REPLICATES = 200
RAW_FOLDER = "kuairand_pure_0425_0508"


def run_final(
    workshop: Workshop,
    arms: Sequence[Arm],
    choices: Mapping[str, Choice],
    splits: Splits,
    *,
    arguments: Arguments,
    seeds: Sequence[int],
    num_replicates: int,
) -> None:
    """Train, judge, publish."""
    finalists = train_finalists(workshop, arms, choices, splits, seeds=seeds)
    finalists |= reference_finalists(workshop.store, splits)
    progress("everything is decided: reading the judged days' labels")
    judgement = judge(workshop.store, finalists, splits, num_replicates=num_replicates, seed=0)
    figures = figures_of(judgement)
    verdicts = verdicts_of(figures)
    for verdict in verdicts:
        progress(verdict.line())
    publish(
        "quality",
        figures,
        arguments=arguments,
        seeds=seeds,
        settings={
            "judged": [window.label for window in splits.judge.windows],
            "rows": judgement.rows,
            "users": judgement.users,
            "positives": dict(judgement.positives),
            "replicates": num_replicates,
            "threads": 1,
        },
        details={
            "verdicts": [verdict.line() for verdict in verdicts],
            "choices": {name: choice.to_json() for name, choice in choices.items()},
            "calibration": {name: one.calibration for name, one in finalists.items()},
        },
    )


def run_quick(work: Path, arguments: Arguments, *, jobs: int) -> None:
    """Two arms, one seed, nothing chosen."""
    store = prepare(sample_inputs(), work)
    workshop = Workshop(work=work, store=store, jobs=jobs)
    export(store, workshop.exported, labelled_before=REHEARSAL.judge_from)
    arms = [arm for arm in read_arms() if arm.name in QUICK_ARMS]
    run_final(
        workshop,
        arms,
        {arm.name: quick_choice(arm) for arm in arms},
        splits_of(store, REHEARSAL),
        arguments=arguments,
        seeds=[0],
        num_replicates=QUICK_REPLICATES,
    )


def main() -> None:
    parser = make_parser("quality", description=__doc__)
    parser.add_argument("--only-choose", action="store_true", help="stop before the test days")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--replicates", type=int, default=1_000, help="of the bootstrap")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "runs" / "benchmarks")
    parsed = parser.parse_args()
    arguments = Arguments(quick=parsed.quick, output=parsed.output)
    if parsed.quick:
        run_quick(parsed.work / "quality_quick", arguments, jobs=parsed.jobs)
        return
    if "RANKER_DATA" not in os.environ:
        progress("skipped: RANKER_DATA names no folder with the full data (see data/README.md)")
        return
    work = parsed.work / "quality"
    store = prepare(raw_inputs(Path(os.environ["RANKER_DATA"]) / RAW_FOLDER), work)
    workshop = Workshop(work=work, store=store, jobs=parsed.jobs)
    export(store, workshop.exported, labelled_before=TEST.judge_from)
    arms = [arm for arm in read_arms() if arm.is_here]
    for arm in read_arms():
        if not arm.is_here:
            progress(f"{arm.name} is left out: make it with peers/make_environment.py")
    splits = splits_of(store, TEST)
    choices = choose(workshop, arms, splits.choose)
    if parsed.only_choose:
        return
    run_final(
        workshop,
        arms,
        choices,
        splits,
        arguments=arguments,
        seeds=parsed.seeds,
        num_replicates=parsed.replicates,
    )


if __name__ == "__main__":
    main()
