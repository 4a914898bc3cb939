"""Columns that are missing, or that `ranker prepare` would not take as they are."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from ranker.audit.finding import Finding
from ranker.audit.sample import LogSample
from ranker.audit.view import LogView

_NAMED = 5


def check_columns(view: LogView, sample: LogSample) -> list[Finding]:
    """Roles without a column, types that need a change, columns that only some files have."""
    findings = _missing_roles(view) + _time_type(view)
    findings += _nested(view) + _broken_numbers(view)
    if sample.absent:
        findings.append(
            Finding(
                level="look",
                topic="columns",
                sentence=f"{len(sample.absent)} columns are missing in some of the "
                f"{sample.num_files} files: {_list(list(sample.absent))}.",
                remedy="They are null there; write all files with the same columns.",
                numbers={"columns": len(sample.absent)},
            )
        )
    if not findings:
        findings.append(
            Finding(
                level="fine",
                topic="columns",
                sentence=f"{len(view.columns)} columns, user, item, time and labels among them.",
            )
        )
    return findings


def _missing_roles(view: LogView) -> list[Finding]:
    needed = {
        "user": "No one can be told apart: no history, no user features, no experiment.",
        "item": "Nothing can be ranked.",
        "time": "Past and future cannot be told apart: no honest test, no windows.",
    }
    findings = [
        Finding(
            level="problem",
            topic="columns",
            sentence=f"No {role} column was found. {why}",
            remedy=f"Name it in the drafted schema (log.{role}) and audit again with --schema, or "
            "ask for a log that has it.",
        )
        for role, why in needed.items()
        if getattr(view.roles, role) is None
    ]
    if not view.labels:
        findings.append(
            Finding(
                level="problem",
                topic="columns",
                sentence="No label was found: nothing says what users did.",
                remedy="Name the outcome's column in the drafted schema (tasks) and audit again.",
            )
        )
    return findings


def _time_type(view: LogView) -> list[Finding]:
    if view.roles.time is None:
        return []
    unit = view.columns[view.roles.time].time_unit
    remedies = {
        "text": "write it as a timestamp",
        "date": "write it as a timestamp, with the time of day",
        "ns": "divide by a million (milliseconds), or write it as a timestamp",
    }
    if unit is not None and unit not in remedies:
        return []
    what = remedies.get(str(unit), "write UTC milliseconds")
    return [
        Finding(
            level="problem",
            topic="columns",
            sentence=f"Time column {view.roles.time!r}: prepare can't read its type "
            f"({unit or 'no moments between 1990 and 2100'}).",
            remedy=f"Before prepare: {what}.",
        )
    ]


def _nested(view: LogView) -> list[Finding]:
    nested = [column.name for column in view.columns.values() if column.kind == "other"]
    if not nested:
        return []
    return [
        Finding(
            level="look",
            topic="columns",
            sentence=f"{len(nested)} columns are of types that can't be features: {_list(nested)}.",
            remedy="Write their parts as columns of their own.",
            numbers={"columns": len(nested)},
        )
    ]


def _broken_numbers(view: LogView) -> list[Finding]:
    used = {task.label for task in view.schema.tasks}
    used |= {feature.column for feature in view.schema.features}
    nan, infinite = [], []
    for column in view.columns.values():
        if column.name not in used or not pa.types.is_floating(column.values.type):
            continue
        if np.isinf(column.numbers).any():
            infinite.append(column.name)
        if int(column.is_null.sum()) > column.values.null_count:
            nan.append(column.name)
    return [
        Finding(
            level="problem",
            topic="columns",
            sentence=f"{len(names)} columns hold {what}: {_list(names)}.",
            remedy="prepare sets such rows aside: write null where a value is missing.",
            numbers={"columns": len(names)},
        )
        for what, names in (("NaN", nan), ("infinite numbers", infinite))
        if names
    ]


def _list(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_NAMED])
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED} more"
