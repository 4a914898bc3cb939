"""What `ranker tune-weights` found, as tuning.json and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.console import Console
from ranker.evaluation.intervals import Estimate
from ranker.scoring.tuning.order_value import FAMILIES
from ranker.scoring.tuning.tuning_result import ConstraintCheck, Tuning, WeightPoint
from ranker.scoring.tuning.tuning_settings import TuneConfig

if TYPE_CHECKING:
    from ranker.data.store import Window


def tuning_json(
    tuning: Tuning, windows: Sequence[Window], config: TuneConfig, *, source: Path
) -> dict[str, object]:
    """Everything but the rows; ``source`` is whose predictions they are."""
    importance = zip(tuning.judged.tasks, tuning.judged.importance.tolist(), strict=True)
    return {
        "split": {"first": windows[0].label, "last": windows[-1].label},
        "predictions": str(source),
        "config": config.model_dump(mode="json"),
        "combination": tuning.combination,
        "users_who_choose": asdict(tuning.choice),
        "users_who_report": asdict(tuning.report),
        "importance": {task.name: share for task, share in importance},
        "left_out": dict(tuning.left_out),
        "candidates": tuning.num_candidates,
        "feasible": tuning.num_feasible,
        "constraints": [_check_json(check) for check in tuning.checks],
        "today": _point_json(tuning.today),
        "chosen": None if tuning.chosen is None else _point_json(tuning.chosen),
        "front": [_point_json(point) for point in tuning.front],
        "landmarks": [_point_json(point) for point in tuning.landmarks],
    }


def describe(tuning: Tuning, windows: Sequence[Window], output: Path, console: Console) -> str:
    """Who chose and who reports, today, chosen and the ends of the front, and the constraints."""
    choice, report = tuning.choice, tuning.report
    names = [*FAMILIES, *([] if tuning.maximize in FAMILIES else [tuning.maximize])]
    points = [tuning.today, *([] if tuning.chosen is None else [tuning.chosen])]
    rows = [
        ["today", *("0" for _ in names), "0 %"]
        if point is tuning.today
        else [name, *(change_text(point.estimates.changes[n]) for n in names), _flips(point)]
        for name, point in [*((p.name, p) for p in points), *extremes(tuning)]
    ]
    left_out = [f"  {task} is not judged: {reason}" for task, reason in tuning.left_out.items()]
    chosen = [
        f"constraint {check.constraint}: {check.verdict} ({change_text(check.change)})"
        for check in tuning.checks
    ]
    end = infeasible(tuning) if tuning.chosen is None else f"{output / 'weights.yaml'}"
    return "\n".join(
        [
            f"windows {windows[0].label} .. {windows[-1].label}; {tuning.num_candidates:,} weights "
            f"tried, {tuning.num_feasible:,} keep the constraints",
            f"{choice.users:,} users chose ({choice.lists:,} lists, {choice.rows:,} impressions); "
            f"below are the other {report.users:,} ({report.lists:,} lists, {report.rows:,})",
            *left_out,
            console.table(["weights", *names, "pairs swapped"], rows),
            *chosen,
            end,
            f"{output / 'tuning.html'}",
        ]
    )


def infeasible(tuning: Tuning) -> str:
    """Why nothing was chosen."""
    asked = " and ".join(map(str, tuning.constraints))
    return (
        f"infeasible: none of the {tuning.num_candidates:,} weights tried keeps {asked} for the "
        "users who choose; nothing was chosen. Ask for less, try more weights or a larger spread, "
        "or take more windows"
    )


def extremes(tuning: Tuning) -> list[tuple[str, WeightPoint]]:
    """The ends of the front, which is sorted by falling engagement."""
    if not tuning.front:
        return []
    ends = [("most engagement", tuning.front[0]), ("most satisfaction", tuning.front[-1])]
    return ends if len(tuning.front) > 1 else ends[:1]


def change_text(change: Estimate) -> str:
    """A relative change in percent with its interval."""
    if change.value is None:
        return f"– ({change.reason})"
    text = f"{100 * change.value:+.2f} %"
    if change.ci_low is not None and change.ci_high is not None:
        text += f" [{100 * change.ci_low:+.2f}, {100 * change.ci_high:+.2f}]"
    return text


def _flips(point: WeightPoint) -> str:
    return f"{100 * point.flips.pairs:.1f} %"


def _check_json(check: ConstraintCheck) -> dict[str, object]:
    return {
        "constraint": str(check.constraint),
        "change": check.change.to_json(),
        "verdict": check.verdict,
    }


def _point_json(point: WeightPoint) -> dict[str, object]:
    return {
        "name": point.name,
        "weights": dict(point.weights),
        "values": _estimates_json(point.estimates.values),
        "changes": _estimates_json(point.estimates.changes),
        "changes_on_users_who_choose": dict(point.on_choice),
        "swapped_pairs": point.flips.pairs,
        "replaced_at_top": point.flips.top,
    }


def _estimates_json(estimates: Mapping[str, Estimate]) -> dict[str, object]:
    return {name: estimate.to_json() for name, estimate in estimates.items()}
