"""What `ranker validate` found in a log, as lines for people and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from ranker.data.survey import LogSurvey


def survey_lines(survey: LogSurvey, log: Path) -> list[str]:
    """A readable summary."""
    lines = [
        f"{log}: {survey.rows_read:,} rows read, {survey.problems.bad_rows:,} bad, "
        f"{survey.exact_duplicates:,} exact duplicates, {survey.rows_kept:,} kept"
    ]
    if survey.rows_kept == 0:
        return lines
    windows = list(survey.rows_by_window)
    least = min(survey.rows_by_window.values())
    most = max(survey.rows_by_window.values())
    lines += [
        f"  time: {_utc(survey.first_ms)} .. {_utc(survey.last_ms)}; {len(windows)} windows "
        f"({windows[0]} .. {windows[-1]}) of {least:,} to {most:,} rows",
        f"  order: {_out_of_order(survey):.1%} of the rows are older than one before them "
        "(prepare sorts)",
        f"  {survey.users:,} users, {survey.items:,} items",
    ]
    for task, label in survey.labels.items():
        mean = f"mean {label.total / label.observed:.4g}" if label.observed else "no mean"
        lines.append(f"  label {task}: {mean}, observed in {label.observed:,} rows")
    lines += [
        f"  feature {name}: null in {rows:,} rows ({rows / survey.rows_kept:.1%})"
        for name, rows in survey.nulls.items()
        if rows
    ]
    lines.append(
        f"  leaks: label copies and future times looked for in {survey.rows_sampled:,} rows, "
        f"period statistics in all; {len(survey.suspects)} suspected"
    )
    return lines


def survey_json(survey: LogSurvey) -> dict[str, object]:
    """The same in numbers; suspects are listed with the verdict."""
    return {
        "rows_read": survey.rows_read,
        "rows_kept": survey.rows_kept,
        "bad_rows": survey.problems.bad_rows,
        "bad_rows_by_reason": survey.problems.counts(),
        "problems": [asdict(problem) for problem in survey.problems.problems.values()],
        "exact_duplicates": survey.exact_duplicates,
        "share_out_of_order": _out_of_order(survey),
        "first_ms": survey.first_ms if survey.rows_kept else None,
        "last_ms": survey.last_ms if survey.rows_kept else None,
        "users": survey.users,
        "items": survey.items,
        "rows_by_window": survey.rows_by_window,
        "rows_without_owner": survey.rows_without_owner,
        "labels": {
            task: {
                "observed": label.observed,
                "mean": label.total / label.observed if label.observed else None,
            }
            for task, label in survey.labels.items()
        },
        "nulls": survey.nulls,
        "rows_sampled": survey.rows_sampled,
    }


def _out_of_order(survey: LogSurvey) -> float:
    good = survey.rows_read - survey.problems.bad_rows
    return survey.rows_out_of_order / good if good else 0.0


def _utc(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, tz=UTC).strftime("%Y-%m-%d %H:%M UTC")
