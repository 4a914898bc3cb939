"""A drafted schema as YAML, every line with its reason as a comment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import yaml

from ranker.audit.features import FoundFeature
from ranker.audit.roles import Roles
from ranker.audit.tasks import Entry, FoundTask

TO_BE_NAMED = "TO_BE_NAMED"
_WHY_TOP = {
    "name": "from the log's file name",
    "user_table": "a table of users was given",
    "item_table": "a table of items was given",
    "window_hours": "longer than a day, as the log spans so many of them",
    "max_positions": "down to the deepest in the log, at most 50",
    "scale_rows": "a tenth of the rows: the usual number would be most of a log this small",
}
_WHY_LOG = {
    "time_unit": "by the size of the times",
    "watch_time_unit": "by the name of the watch time, or its size",
}
_WHY_HISTORY = {
    "watched": "all count; or name the binary task that says what was watched",
    "feedback": "the first three binary tasks",
    "keys": "what groups items, by its name",
    "contexts": "the first with 3 to 50 different values",
    "rates": "the first five tasks",
}


def draft_text(
    top: Entry,
    features: Sequence[FoundFeature],
    tasks: Sequence[FoundTask],
    history: Entry,
    *,
    roles: Roles,
    why_time_zone: str,
) -> str:
    """The schema that these make.

    Args:
        top: everything above the features; the columns of the log in an entry of its own.
        features: with their reasons.
        tasks: with their reasons.
        history: what is computed from the past.
        roles: of the log's columns, with their reasons.
        why_time_zone: the reason for the time zone.
    """
    lines = [
        "# A draft: every line is a guess from names and values. Read it, mend it, then run",
        "# `ranker validate`. What prepare needs but was not found is called " + TO_BE_NAMED + ".",
    ]
    why_top = _WHY_TOP | {"time_zone": why_time_zone, "list_by": _why_list_by(top, roles)}
    by_column = {guess.column: guess.reason for guess in roles.guesses}
    by_column[TO_BE_NAMED] = "no column was found by name and values"
    for key, value in top.items():
        if isinstance(value, dict):
            why = {k: _WHY_LOG.get(k) or by_column[str(column)] for k, column in value.items()}
            lines += _mapping(key, value, why)
        else:
            lines.append(_line(_flow({key: value})[1:-1], why_top[key]))
    lines.append("features:" if features else "features: []")
    lines += [_line(f"  - {_flow(f.entry)}", f.reason) for f in features]
    lines.append("tasks:")
    lines += [_line(f"  - {_flow(t.entry)}", t.reason) for t in tasks]
    why_history = {k: why if history[k] else "none was found" for k, why in _WHY_HISTORY.items()}
    lines += _mapping("history", history, why_history)
    return "\n".join(lines) + "\n"


def _why_list_by(top: Entry, roles: Roles) -> str:
    if top["list_by"] == "request":
        return "requests have several rows"
    return "no column tells requests apart" if roles.request is None else "requests have one row"


def _mapping(key: str, values: Entry, why: Mapping[str, str]) -> list[str]:
    """``key`` with a line for each of its values."""
    return [f"{key}:", *(_line(f"  {_flow({k: v})[1:-1]}", why[k]) for k, v in values.items())]


def _line(text: str, comment: str) -> str:
    return f"{text} # {' '.join(comment.split())}"


def _flow(value: object) -> str:
    return yaml.safe_dump(
        value, default_flow_style=True, sort_keys=False, width=10**6, allow_unicode=True
    ).strip()
