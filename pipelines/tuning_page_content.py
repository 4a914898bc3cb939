"""What `ranker tune-weights` found, as the content of its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np

from pipelines.tuning_json import change_text, extremes, infeasible
from ranker.config import dump_yaml
from ranker.evaluation import intervals
from ranker.report.content import Estimate, Fact, Provenance
from ranker.report.tuning_content import (
    Check,
    PageRows,
    ShownList,
    TunedPoint,
    TunedTask,
    TuningPage,
)
from ranker.schema import Schema
from ranker.score_weights import ScoreWeights
from ranker.scoring.tuning.tuning_result import Tuning, TuningRows, WeightPoint
from ranker.scoring.tuning.tuning_settings import TuneConfig

if TYPE_CHECKING:
    import pyarrow as pa

    from ranker.data.store import EncodedStore, Window
    from ranker.evaluation.metrics import IntArray

FEWEST_ITEMS, MOST_ITEMS = 5, 30  # of a list to look at: with fewer nothing can move


def tuning_page(
    tuning: Tuning,
    inputs: TuningRows,
    *,
    store: EncodedStore,
    windows: Sequence[Window],
    titles: pa.Table | None,
    config: TuneConfig,
    source: Path,
) -> TuningPage:
    """The page's content."""
    schema = store.schema
    ends = [_point(point, name=name) for name, point in extremes(tuning)]
    return TuningPage(
        title="Score weights",
        subtitle=(
            f"{source}, windows {windows[0].label} to {windows[-1].label}: "
            f"{tuning.num_candidates:,} weights tried"
        ),
        headlines=_headlines(tuning),
        tasks=_tasks(tuning, inputs, schema),
        combination=tuning.combination,
        combinations=get_args(ScoreWeights.model_fields["combination"].annotation),
        at=config.at,
        today=_point(tuning.today),
        chosen=None if tuning.chosen is None else _point(tuning.chosen),
        extremes=ends,
        front=[_point(p, name=f"front {n}") for n, p in enumerate(tuning.front, start=1)],
        landmarks=[_point(point) for point in tuning.landmarks],
        checks=[
            Check(
                constraint=str(check.constraint),
                change=_estimate(check.change),
                verdict=check.verdict,
            )
            for check in tuning.checks
        ],
        cloud=tuning.cloud,
        rows=_page_rows(tuning, inputs),
        shown=_shown_lists(tuning, inputs, store, windows, titles, config),
        methods=_methods(tuning, config),
        provenance=Provenance(
            facts=[
                Fact(name="Predictions", value=str(source)),
                Fact(name="Data", value=str(store.folder)),
                Fact(name="Seed", value=str(config.seed)),
            ],
            config_yaml=dump_yaml(config),
        ),
        created_by=f"ranker {version('ranker')}",
    )


def _headlines(tuning: Tuning) -> list[str]:
    if tuning.chosen is None:
        return [infeasible(tuning).capitalize() + "."]
    changes = tuning.chosen.estimates.changes
    named = dict.fromkeys([tuning.maximize, "engagement", "satisfaction"])
    told = ", ".join(f"{name} {_minus(change_text(changes[name]))}" for name in named)
    asked = " and ".join(f"“{constraint}”" for constraint in tuning.constraints)
    under = f" such that {asked}" if asked else ""
    sentences = [
        f"Chosen for the most {tuning.maximize}{under}: {told}, measured on "
        f"{tuning.report.users:,} users who had no say in the choice.",
    ]
    looked = tuning.chosen.on_choice[tuning.maximize]
    if looked is not None:
        had = _minus(f"{100 * looked:+.2f} %")
        sentences.append(
            f"For the {tuning.choice.users:,} users who chose, {tuning.maximize} had looked like "
            f"{had}; the best of {tuning.num_candidates:,} tends to be flattered where it is "
            "chosen."
        )
    if tuning.chosen.weights == tuning.today.weights:
        sentences.append("That is today’s weights: no others were better within the constraints.")
    sentences += [f"Constraint {c.constraint}: {c.verdict}." for c in tuning.checks]
    return sentences


def _minus(text: str) -> str:
    return text.replace("-", "−")


def _tasks(tuning: Tuning, inputs: TuningRows, schema: Schema) -> list[TunedTask]:
    judged = tuning.judged
    share = {t.name: float(s) for t, s in zip(judged.tasks, judged.importance, strict=True)}
    weighable = {task.name for task in tuning.tasks}
    return [
        TunedTask(
            name=task.name,
            family=task.family,
            kind=task.kind,
            direction=task.direction,
            conditional_on=task.conditional_on,
            is_predicted=task.name in weighable and task.name in inputs.predictions,
            left_out=tuning.left_out.get(task.name, ""),
            importance=share.get(task.name, 0.0),
        )
        for task in schema.tasks
    ]


def _point(point: WeightPoint, *, name: str = "") -> TunedPoint:
    return TunedPoint(
        name=name or point.name,
        weights=point.weights,
        values=_estimates(point.estimates.values),
        changes=_estimates(point.estimates.changes),
        engagement=point.page_changes["engagement"],
        satisfaction=point.page_changes["satisfaction"],
        swapped_pairs=point.flips.pairs,
        replaced_at_top=point.flips.top,
    )


def _estimates(estimates: Mapping[str, intervals.Estimate]) -> dict[str, Estimate]:
    return {name: _estimate(estimate) for name, estimate in estimates.items()}


def _estimate(estimate: intervals.Estimate) -> Estimate:
    return Estimate(
        value=estimate.value,
        ci_low=estimate.ci_low,
        ci_high=estimate.ci_high,
        reason=estimate.reason,
    )


def _page_rows(tuning: Tuning, inputs: TuningRows) -> PageRows:
    rows = tuning.page.rows
    return PageRows(
        list_starts=tuning.page.list_starts,
        predictions={task: values[rows] for task, values in inputs.predictions.items()},
        labels={task: values[rows] for task, values in inputs.labels.items()},
        is_sample=tuning.page.num_lists < tuning.report.lists,
    )


def _shown_lists(
    tuning: Tuning,
    inputs: TuningRows,
    store: EncodedStore,
    windows: Sequence[Window],
    titles: pa.Table | None,
    config: TuneConfig,
) -> list[ShownList]:
    """Lists of a length that can be looked at, drawn among those in which something happened."""
    page = tuning.page
    stops = np.append(page.list_starts[1:], page.rows.size)
    happened = np.zeros(inputs.users.size, dtype=bool)
    for values in inputs.labels.values():
        happened |= values > 0
    lengths = stops - page.list_starts
    outcomes = np.add.reduceat(happened[page.rows], page.list_starts, dtype=np.int64)
    fits = (lengths >= FEWEST_ITEMS) & (lengths <= MOST_ITEMS) & (outcomes > 0)
    usable = np.flatnonzero(fits if fits.any() else lengths == lengths.min())
    rng = np.random.default_rng([config.seed, 5])
    chosen = np.sort(rng.choice(usable, size=min(config.page_lists, usable.size), replace=False))
    shown = []
    for number in chosen.tolist():
        rows = page.rows[page.list_starts[number] : stops[number]] + windows[0].start
        names = _item_names(store, rows, titles)
        label = f"{_user(store, int(rows[0]))}, {_window(windows, int(rows[0]))}: {len(rows)} items"
        shown.append(ShownList(label=label, list_number=number, items=names))
    return shown


def _item_names(store: EncodedStore, rows: IntArray, titles: pa.Table | None) -> list[str]:
    """Titles where there are any, ids elsewhere."""
    codes = np.asarray(store.column("item")[rows], dtype=np.int64)
    ids = store.encoders.vocabularies["item"].decode(codes).to_pylist()
    if titles is None:
        return [str(one) for one in ids]
    import pyarrow as pa
    import pyarrow.compute as pc

    found = titles.filter(pc.is_in(titles.column(0), pa.array(ids, titles.column(0).type)))
    title_by_id = dict(zip(found.column(0).to_pylist(), found.column(1).to_pylist(), strict=True))
    return [str(title_by_id.get(one) or one) for one in ids]


def _user(store: EncodedStore, row: int) -> str:
    code = np.asarray(store.column("user")[row : row + 1], dtype=np.int64)
    return f"user {store.encoders.vocabularies['user'].decode(code).to_pylist()[0]}"


def _window(windows: Sequence[Window], row: int) -> str:
    return next(window.label for window in windows if row < window.stop)


def _methods(tuning: Tuning, config: TuneConfig) -> list[str]:
    held = (
        f"the lower end of its {config.confidence:.0%} interval keeps"
        if config.constraints_hold_by == "lower_bound"
        else "its value keeps"
    )
    return [
        "Value of a task under some weights: order every list by the score; then "
        "Σ d(rank) · label / Σ d(rank) over all impressions whose label was observed, with "
        f"d(rank) = 1 / log2(1 + rank) for ranks up to {config.at} and 0 below. A null label is "
        "masked in both sums, never 0. Lists of one impression have no order and are left out.",
        "Change: (value − value today) / |value today|, turned round for negative tasks. A "
        "family’s change is the mean of its tasks’ changes, weighted by their importance: "
        "today’s score weights unless the configuration says otherwise.",
        "Tasks with fewer than 20 positives, negatives or (regression) labels in either half of "
        "the users are not judged, and their weights stay as they are: nobody would see the harm.",
        f"Users were split by chance: {tuning.choice.users:,} choose, {tuning.report.users:,} "
        "report. Front, constraints and choice look at the first half only; every interval shown "
        "comes from the second, by resampling whole users, today’s order and the other under the "
        "same draws.",
        f"A candidate counts as keeping a constraint where, for the users who choose, {held} it.",
        "What this can’t say: the labels are those of impressions that the logging policy chose, "
        "showed and placed. Reordering what was shown is not showing something else, users look "
        "more at what stood at the top, and outcomes may depend on their neighbours. A gain here "
        "is a reason for an experiment, not its result.",
    ]
