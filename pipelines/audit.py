"""``ranker audit``: ten minutes with a stranger's log.

Drafts a schema for it, says what is wrong with it and what it can and cannot answer. Writes
``audit.json``, ``schema_draft.yaml`` and ``audit.html``. Findings are no failure: exit code 0.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from importlib.metadata import version
from pathlib import Path

from pipelines.arguments import positive, read_schema, require_output_folder
from pipelines.console import Console
from ranker.atomic import write_json, write_text
from ranker.audit.audit import Audit, audit_with_draft, audit_with_schema
from ranker.audit.column import columns_of
from ranker.audit.roles import find_roles
from ranker.audit.sample import read_head, read_sample
from ranker.data.parquet import DataError, read_table
from ranker.report.audit_page import AuditPage, render_audit
from ranker.schema import Owner

MAX_ROWS = 2_000_000
PAGE, DRAFT = "audit.html", "schema_draft.yaml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("log", type=Path, metavar="LOG", help="Parquet file or folder, any columns")
    parser.add_argument("--users", type=Path, metavar="PATH", help="a table of users")
    parser.add_argument("--items", type=Path, metavar="PATH", help="a table of items")
    parser.add_argument(
        "--schema", type=Path, metavar="FILE", help="what the columns mean; else it is guessed"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("audit"), metavar="DIR", help="default: audit"
    )
    parser.add_argument(
        "--rows",
        type=positive,
        default=MAX_ROWS,
        metavar="N",
        help=f"of a larger log, whole users with about so many rows are looked at ({MAX_ROWS:,})",
    )


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Audit a log."""
    output = require_output_folder(arguments)
    audit = _audit(arguments)
    _write(audit, output, log=arguments.log)
    console.result(describe(audit, output, console), {"output": str(output), **audit.to_json()})
    return 0


def describe(audit: Audit, output: Path, console: Console) -> str:
    """A short table: the answers, and how many findings of each level there are."""
    levels = Counter(finding.level for finding in audit.findings)
    rows = [[a.question, a.verdict, a.why] for a in audit.answers]
    problems = [f"problem: {f.sentence}" for f in audit.findings if f.level == "problem"]
    return "\n".join(
        [
            f"{audit.sample.num_rows_total:,} rows, {audit.num_rows:,} looked at",
            console.table(["question", "answer", "why"], rows),
            *problems,
            f"{levels['problem']} problems, {levels['look']} to look at, {levels['fine']} fine",
            str(output / PAGE),
            *([] if audit.draft is None else [str(output / DRAFT)]),
        ]
    )


def _audit(arguments: argparse.Namespace) -> Audit:
    schema = None if arguments.schema is None else read_schema(arguments.schema)
    tables: dict[Owner, object] = {}
    paths: dict[Owner, Path | None] = {"user": arguments.users, "item": arguments.items}
    tables = {owner: read_table(path) for owner, path in paths.items() if path is not None}
    head = columns_of(read_head(arguments.log))
    user = find_roles(head).user if schema is None else schema.log.user
    sample = read_sample(
        arguments.log, max_rows=arguments.rows, user_column=user if user in head else None
    )
    if sample.rows.num_rows == 0:
        raise DataError(f"{arguments.log}: has no rows")
    if schema is not None:
        return audit_with_schema(sample, tables, schema=schema)
    return audit_with_draft(sample, tables, name=_name(arguments.log))


def _write(audit: Audit, output: Path, *, log: Path) -> None:
    page = render_audit(
        AuditPage(audit=audit, log=str(log), created_by=f"ranker {version('ranker')}")
    )
    write_json(output / "audit.json", audit.to_json())
    if audit.draft is not None:
        write_text(output / DRAFT, audit.draft.yaml_text)
    write_text(output / PAGE, page)


def _name(log: Path) -> str:
    return re.sub(r"\W+", "_", log.stem).strip("_") or "log"
