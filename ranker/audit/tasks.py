"""Which columns are outcomes, and what they say: family, direction, binary or a number."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ranker.audit.column import Column, determined_share
from ranker.audit.names import Outcome, outcome_of
from ranker.audit.roles import Guess, Roles, Sureness, is_stay_time

SECONDS_BY_UNIT = {"s": 1.0, "ms": 0.001, "us": 1e-6}
Entry = dict[str, object]  # a task or a feature as the schema's YAML spells it
_SCORES = ("rating", "survey")


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundTask:
    """A task of the draft, with the reason for it."""

    entry: Entry
    reason: str


def find_tasks(columns: Mapping[str, Column], roles: Roles) -> list[FoundTask]:
    """Outcomes by name and values; ``roles`` learns which columns they are.

    A column named after feedback that only holds 0 and 1 (or −1 and 1, or a count) is a binary
    task, a rating a regression and a binary task "4 of 5 or more"; the watch time is a regression
    in seconds. Further stay times are outcomes too, but no task is drafted for them. Engagement
    comes first.
    """
    tasks: list[FoundTask] = []
    item = None if roles.item is None else columns[roles.item]
    for column in columns.values():
        if column.name in roles.taken:
            continue
        outcome = outcome_of(column.name)
        if is_stay_time(column):
            reason = "a time that somebody spent: known only afterwards, no feature"
            _note(roles, column.name, "outcome", "likely", reason)
        elif outcome is not None:
            found = _tasks_of(column, outcome, item)
            tasks += found
            if found:
                sureness: Sureness = "unsure" if outcome.name == "label" else "sure"
                _note(roles, column.name, "label", sureness, found[0].reason)
    if roles.watch_time is not None:
        tasks.append(_watch_task(columns[roles.watch_time], roles))
    return sorted(_unique(tasks), key=lambda task: str(task.entry["family"]))


def _tasks_of(column: Column, outcome: Outcome, item: Column | None) -> list[FoundTask]:
    values = column.finite
    if column.kind not in ("boolean", "number") or len(values) == 0:
        return []
    if column.is_binary or set(np.unique(values[:1000])) <= {-1.0, 1.0}:
        threshold = None if column.is_binary else 1.0
        shape = "nothing but 0 and 1" if column.is_binary else "nothing but −1 and 1"
        return [_binary(column, outcome, shape, threshold)]
    if item is not None:
        share, rows = determined_share(item.codes, column.codes)
        if rows and share >= 0.98:
            return []  # an item's average, say: a feature
    if outcome.name in _SCORES and column.num_distinct <= 101 and values.min() >= -1:
        return _rating(column, outcome)
    if column.is_whole and values.min() >= 0 and column.num_distinct <= 1_000:
        return [_binary(column, outcome, "a count: 1 where it is 1 or more", 1.0)]
    return []


def _binary(column: Column, outcome: Outcome, shape: str, threshold: float | None) -> FoundTask:
    entry: Entry = {
        "name": _task_name(column.name),
        "label": column.name,
        "family": outcome.family,
        "kind": "binary",
    }
    if outcome.direction == "negative":
        entry["direction"] = "negative"
    if threshold is not None:
        entry["threshold"] = threshold
    entry["score_weight"] = outcome.score_weight
    direction = "less is better" if outcome.direction == "negative" else "more is better"
    reason = f"named like a {outcome.name.replace('_', ' ')}; {shape}; {direction}"
    return FoundTask(entry=entry, reason=reason)


def _rating(column: Column, outcome: Outcome) -> list[FoundTask]:
    low, high = float(column.finite.min()), float(column.finite.max())
    name = _task_name(column.name)
    reason = f"named like a {outcome.name}; {column.num_distinct} values from {low:g} to {high:g}"
    number: Entry = {
        "name": name,
        "label": column.name,
        "family": "satisfaction",
        "kind": "regression",
        "minimum": low,
        "maximum": high,
        "loss": "squared",
        "score_weight": outcome.score_weight,
    }
    threshold = 0.8 * high
    if not low < threshold <= high:
        return [FoundTask(entry=number, reason=reason)]
    liked: Entry = {
        "name": f"{name}_high",
        "label": column.name,
        "family": "satisfaction",
        "kind": "binary",
        "threshold": round(threshold, 6),
        "score_weight": outcome.score_weight,
    }
    high_reason = f"1 where {column.name} is {threshold:g} or more, four fifths of the highest"
    return [
        FoundTask(entry=number, reason=reason),
        FoundTask(entry=liked, reason=high_reason),
    ]


def _watch_task(column: Column, roles: Roles) -> FoundTask:
    factor = SECONDS_BY_UNIT[roles.watch_time_unit]
    cap = float(np.quantile(column.finite, 0.999)) * factor if len(column.finite) else 0.0
    entry: Entry = {"name": "watch_time_s", "label": column.name}
    if factor != 1.0:
        entry["label_factor"] = factor
    if cap > 0:
        entry["cap"] = float(f"{cap:.2g}")
    entry |= {
        "family": "engagement",
        "kind": "regression",
        "loss": "squared_log1p",
        "loss_weight": 0.2,
        "score_weight": 0.5,
    }
    return FoundTask(entry=entry, reason="seconds watched, cut at the 99.9 % quantile")


def _task_name(column: str) -> str:
    name = re.sub(r"^(is|has|was|did)_", "", column)
    return file_name(name)


def file_name(name: str) -> str:
    """``name`` with what a schema's names may not hold replaced by "_"."""
    plain = re.sub(r"[^\w. -]", "_", name)[:90]
    return plain if re.match(r"\w", plain) else f"x{plain}"


def _note(roles: Roles, column: str, role: str, sureness: Sureness, reason: str) -> None:
    roles.guesses.append(Guess(column=column, role=role, sureness=sureness, reason=reason))


def _unique(tasks: list[FoundTask]) -> list[FoundTask]:
    """Tasks with names of their own: a name that is taken becomes that of the column."""
    names: set[str] = set()
    unique = []
    for task in tasks:
        name = str(task.entry["name"])
        while name in names:
            name = f"{name}_2"
        names.add(name)
        unique.append(FoundTask(entry={**task.entry, "name": name}, reason=task.reason))
    return unique
