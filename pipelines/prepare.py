"""``ranker prepare``: a raw log becomes encoded data and a state."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from pipelines.arguments import (
    add_config,
    add_raw_inputs,
    print_config,
    read_schema_to_rank_by,
    require_apart,
    require_output,
    resolve,
)
from pipelines.console import Console
from ranker.atomic import check_replaceable, replacing_folder
from ranker.data.intact import KIND
from ranker.data.prepare import Inputs, PrepareSettings, PrepareSummary, prepare, read_summary
from ranker.data.reuse import is_made_of, read_origin, write_origin


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_raw_inputs(parser)
    parser.add_argument("--state", type=Path, metavar="DIR", help="continue an earlier prepare")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="gets store, state, ..."
    )
    parser.add_argument(
        "--force", action="store_true", help="prepare again though nothing has changed"
    )
    add_config(parser)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Prepare a log."""
    settings = resolve(PrepareSettings, arguments)
    if arguments.print_config:
        return print_config(settings, console)
    output = require_output(arguments)
    schema = read_schema_to_rank_by(arguments.schema)
    inputs = Inputs(
        log=arguments.log,
        users=arguments.users,
        items=arguments.items,
        earlier_history=arguments.earlier_history,
        state=arguments.state,
    )
    require_apart(output, arguments.log, arguments.users, arguments.items)
    require_apart(output, arguments.earlier_history, arguments.state, arguments.schema)
    check_replaceable(output, kind=KIND)
    origin = read_origin(inputs, schema, settings)
    reused = not arguments.force and is_made_of(output, origin)
    if reused:
        summary = read_summary(output)
    else:
        with replacing_folder(output, kind=KIND) as folder:
            summary = prepare(inputs, schema, settings, folder)
            write_origin(folder, origin)
    text = describe(summary, output)
    if reused:
        text += (
            "\n  unchanged, reused: inputs, schema and settings are those it was made of (--force)"
        )
    console.result(text, asdict(summary) | {"reused": reused})
    return 0


def describe(summary: PrepareSummary, output: Path) -> str:
    """A few lines on what was kept and what was not."""
    windows = list(summary.rows_by_window)
    lines = [
        f"{output}: {_several(summary.rows_kept, 'row')} in {_several(len(windows), 'window')} "
        f"({windows[0]} .. {windows[-1]}), {_several(summary.users, 'user')}, "
        f"{_several(summary.items, 'item')}",
        f"  read {summary.rows_read:,}; exact duplicates {summary.exact_duplicates:,}; "
        f"quarantined {summary.bad_rows:,}",
    ]
    if summary.rows_before_state:
        lines.append(f"  {summary.rows_before_state:,} rows older than the state were left out")
    lines += [f"  {reason}: {rows:,}" for reason, rows in summary.bad_rows_by_reason.items()]
    lines += [
        f"  {rows:,} rows have no row in the {owner} table"
        for owner, rows in summary.rows_without_owner.items()
        if rows
    ]
    return "\n".join(lines)


def _several(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
