"""The whole audit: a sample of a log goes in, a draft, findings and answers come out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import pyarrow as pa

from ranker.audit.answers import Answer, Figures, answer_all
from ranker.audit.column import Column, FloatArray, columns_of
from ranker.audit.column_checks import check_columns
from ranker.audit.draft import Draft, draft_schema
from ranker.audit.features import find_table_features
from ranker.audit.finding import Finding
from ranker.audit.label_checks import LabelFigures, check_labels, label_figures
from ranker.audit.leak_checks import ColumnStrength, check_leaks, column_strengths
from ranker.audit.position_checks import (
    check_positions,
    check_propensities,
    position_figures,
    propensity_figures,
)
from ranker.audit.roles import Guess, Roles, find_roles, roles_of_schema
from ranker.audit.row_checks import check_rows
from ranker.audit.sample import LogSample
from ranker.audit.sizes import check_sizes, sizes_needed
from ranker.audit.time_checks import (
    check_time,
    find_utc_offset,
    named_zone,
    rows_by_window,
    span_days,
    time_zone_of_offset,
)
from ranker.audit.view import LogView, view_log, without_duplicates
from ranker.schema import Owner, Schema

NO_LOCAL_TIME = "no column of local dates or hours says otherwise"
Tables = Mapping[Owner, pa.Table]


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """All that was found in a log.

    Attributes:
        draft: None where a schema was given.
        guesses: of the log's columns, then of the tables'.
        rows_by_window: in time order, of the rows looked at.
        strengths: of single features on later rows, strongest first.
    """

    sample: LogSample
    schema: Schema
    draft: Draft | None
    guesses: tuple[Guess, ...]
    num_rows: int
    rows_by_window: Mapping[str, int]
    figures: Figures
    strengths: tuple[ColumnStrength, ...]
    findings: tuple[Finding, ...]
    answers: tuple[Answer, ...]

    def to_json(self) -> dict[str, object]:
        """Ready for ``json.dumps``."""
        figures = self.figures
        return {
            "rows_total": self.sample.num_rows_total,
            "rows_read": self.sample.rows.num_rows,
            "share_of_users": self.sample.share,
            "files": self.sample.num_files,
            "rows_looked_at": self.num_rows,
            "schema_given": self.draft is None,
            "answers": [asdict(answer) for answer in self.answers],
            "findings": [{**asdict(f), "numbers": dict(f.numbers)} for f in self.findings],
            "columns": [asdict(guess) for guess in self.guesses],
            "labels": [_label_json(label) for label in figures.labels],
            "positions": None if figures.positions is None else asdict(figures.positions),
            "propensities": None if figures.propensities is None else asdict(figures.propensities),
            "experiments": [{**asdict(s), "task": s.task.name} for s in figures.sizes],
            "single_columns": [asdict(strength) for strength in self.strengths],
            "rows_by_window": dict(self.rows_by_window),
        }


def audit_with_draft(sample: LogSample, tables: Tables, *, name: str) -> Audit:
    """Draft a schema, then look at the log through it.

    Args:
        sample: of the log.
        tables: of users and items.
        name: of the drafted schema.
    """
    kept = without_duplicates(sample.rows)
    columns = columns_of(kept)
    table_columns = {owner: columns_of(table) for owner, table in tables.items()}
    roles = find_roles(columns, table_columns)
    days, offset = 0.0, None
    if roles.time is not None:
        time_ms = columns[roles.time].time_ms
        days, offset = span_days(time_ms), find_utc_offset(columns, time_ms)
    zone, why_zone = time_zone_of_offset(0), NO_LOCAL_TIME
    if offset is not None:
        zone, why_zone = time_zone_of_offset(offset[0]), offset[1]
    elif roles.time is not None and (own := named_zone(columns[roles.time])) is not None:
        zone, why_zone = own, "the time column's own"
    draft = draft_schema(
        columns,
        roles,
        name=name,
        tables={
            owner: find_table_features(
                table, key=str(roles.user if owner == "user" else roles.item), owner=owner
            )
            for owner, table in table_columns.items()
        },
        time_zone=zone,
        why_time_zone=why_zone,
        span_days=days,
    )
    view = view_log(sample, kept, schema=draft.schema, roles=roles, tables=tables)
    of_tables = [g for guesses in draft.table_guesses.values() for g in guesses]
    return _audit(
        view,
        sample,
        draft=draft,
        guesses=(*draft.guesses, *of_tables),
        more=[] if offset is None else [_zone_finding(offset)],
    )


def audit_with_schema(sample: LogSample, tables: Tables, *, schema: Schema) -> Audit:
    """Look at the log through ``schema``."""
    kept = without_duplicates(sample.rows)
    roles = roles_of_schema(schema, columns_of(kept))
    view = view_log(sample, kept, schema=schema, roles=roles, tables=tables)
    return _audit(view, sample, draft=None, guesses=tuple(roles.guesses), more=[])


def _audit(
    view: LogView,
    sample: LogSample,
    *,
    draft: Draft | None,
    guesses: tuple[Guess, ...],
    more: list[Finding],
) -> Audit:
    order = None if view.roles.time is None else _moments(sample, view.roles)
    labels = label_figures(view)
    positions, propensities = position_figures(view), propensity_figures(view)
    sizes, strengths = sizes_needed(view), column_strengths(view)
    findings = [
        *check_columns(view, sample),
        *check_time(view, order),
        *more,
        *check_rows(view),
        *check_labels(view, labels),
        *check_leaks(view, strengths),
        *check_positions(view, positions),
        *check_propensities(view, propensities),
        *check_sizes(sizes),
    ]
    figures = Figures(labels=labels, positions=positions, propensities=propensities, sizes=sizes)
    return Audit(
        sample=sample,
        schema=view.schema,
        draft=draft,
        guesses=guesses,
        num_rows=view.num_rows,
        rows_by_window=rows_by_window(view),
        figures=figures,
        strengths=strengths,
        findings=tuple(findings),
        answers=answer_all(view, figures, findings),
    )


def _moments(sample: LogSample, roles: Roles) -> FloatArray:
    assert roles.time is not None
    return Column(roles.time, sample.rows.column(roles.time)).time_ms


def _zone_finding(offset: tuple[int, str]) -> Finding:
    return Finding(
        level="fine",
        topic="time",
        sentence=f"Days are probably local: {offset[1]}.",
        numbers={"utc_offset_hours": offset[0]},
    )


def _label_json(label: LabelFigures) -> dict[str, object]:
    return {
        "task": label.task.name,
        "family": label.task.family,
        "kind": label.task.kind,
        "direction": label.task.direction,
        "observed_rows": label.observed_rows,
        "positives": label.positives,
        "rate": None if label.rate is None else asdict(label.rate),
        "windows": [asdict(window) for window in label.windows],
    }
