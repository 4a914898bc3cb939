"""``ranker validate``: read a raw log as `prepare` would, write nothing, say what is wrong with it.

Exit code 0: `ranker prepare` would take it and nothing leaks (bad rows it would quarantine are
warnings). Exit code 3: rejected.
"""

from __future__ import annotations

import argparse
import difflib
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pipelines.arguments import (
    add_config,
    add_raw_inputs,
    positive,
    print_config,
    read_schema_to_rank_by,
    resolve,
)
from pipelines.console import Console
from pipelines.exit_codes import EXIT_DATA
from pipelines.survey_summary import survey_json, survey_lines
from ranker.config import ConfigError
from ranker.data.features import OwnerTable
from ranker.data.leakage import Suspect
from ranker.data.parquet import DataError
from ranker.data.prepare import PrepareSettings, reject_if_too_bad
from ranker.data.survey import LogSurvey, survey_log
from ranker.data.tables import read_earlier_history, read_owner_table
from ranker.schema import Owner, Schema

SAMPLE_ROWS = 500_000


@dataclass(slots=True, kw_only=True)
class Validation:
    """The verdict: ``rejections`` stop a `prepare` or a fair evaluation, ``warnings`` don't."""

    survey: LogSurvey | None = None
    earlier_history_rows: int | None = None
    rejections: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_raw_inputs(parser)
    parser.add_argument(
        "--allow-leaks",
        action="append",
        default=[],
        metavar="FEATURE",
        help="accept a suspected leak: this feature is known when serving (repeatable)",
    )
    parser.add_argument(
        "--sample-rows",
        type=positive,
        default=SAMPLE_ROWS,
        metavar="N",
        help=f"look for label copies on about so many rows, of whole users ({SAMPLE_ROWS:,})",
    )
    add_config(parser)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Validate a log."""
    settings = resolve(PrepareSettings, arguments)
    if arguments.print_config:
        return print_config(settings, console)
    schema = read_schema_to_rank_by(arguments.schema)
    _require_features(arguments.allow_leaks, schema)
    validation = validate(arguments, schema, settings)
    console.result(describe(validation, arguments.log), as_json(validation))
    if not validation.rejections:
        return 0
    if console.json_output:  # people have read them in the result
        for sentence in validation.rejections:
            console.error(sentence)
    return EXIT_DATA


def validate(
    arguments: argparse.Namespace, schema: Schema, settings: PrepareSettings
) -> Validation:
    """Check the tables and the log; go on after a rejected table, to name all problems at once."""
    validation = Validation()
    tables = _read_tables(
        {"user": arguments.users, "item": arguments.items}, schema, validation.rejections
    )
    _read_earlier_history(arguments.earlier_history, schema, validation)
    try:
        with tempfile.TemporaryDirectory(prefix="ranker-validate-") as spill:
            survey = survey_log(
                arguments.log,
                schema,
                tables=tables,
                sample_rows=arguments.sample_rows,
                sort_rows=settings.sort_rows,
                spill=Path(spill),
            )
    except DataError as error:
        validation.rejections.append(str(error))
        return validation
    validation.survey = survey
    _judge_rows(survey, settings, arguments.log, validation)
    _judge_contents(survey, schema, validation)
    _judge_suspects(survey.suspects, arguments.allow_leaks, validation)
    return validation


def as_json(validation: Validation) -> dict[str, object]:
    """The result as one JSON object."""
    survey = validation.survey
    return {
        "verdict": "rejected" if validation.rejections else "clean",
        "rejections": validation.rejections,
        "warnings": validation.warnings,
        "suspects": [
            {**asdict(s), "accepted": s.sentence() in validation.accepted}
            for s in (survey.suspects if survey else [])
        ],
        "earlier_history_rows": validation.earlier_history_rows,
        "log": None if survey is None else survey_json(survey),
    }


def describe(validation: Validation, log: Path) -> str:
    """A readable summary that ends with the verdict."""
    lines = [] if validation.survey is None else survey_lines(validation.survey, log)
    if validation.earlier_history_rows is not None:
        lines.append(f"  earlier history: {validation.earlier_history_rows:,} rows")
    lines += [f"accepted: {sentence}" for sentence in validation.accepted]
    lines += [f"warning: {sentence}" for sentence in validation.warnings]
    lines += [f"rejected: {sentence}" for sentence in validation.rejections]
    count = len(validation.rejections)
    reasons = f"{count} reason{'s' if count != 1 else ''}"
    lines.append(f"verdict: {f'rejected for {reasons}' if count else 'clean'}")
    return "\n".join(lines)


def _read_tables(
    paths: dict[Owner, Path | None], schema: Schema, rejections: list[str]
) -> dict[Owner, OwnerTable]:
    needed = {"user": schema.user_table, "item": schema.item_table}
    tables: dict[Owner, OwnerTable] = {}
    for owner, path in paths.items():
        if needed[owner] and path is None:
            rejections.append(
                f"schema {schema.name!r} reads a table of {owner}s: give --{owner}s FILE"
            )
        elif not needed[owner] and path is not None:
            rejections.append(f"schema {schema.name!r} has no {owner}_table: leave out --{owner}s")
        elif path is not None:
            try:
                tables[owner] = OwnerTable(read_owner_table(path, schema, owner))
            except DataError as error:
                rejections.append(str(error))
    return tables


def _read_earlier_history(path: Path | None, schema: Schema, validation: Validation) -> None:
    if path is None:
        return
    if schema.earlier_history is None:
        validation.rejections.append(
            f"schema {schema.name!r} has no earlier_history: leave out --earlier-history"
        )
        return
    try:
        validation.earlier_history_rows = read_earlier_history(path, schema).num_rows
    except DataError as error:
        validation.rejections.append(str(error))


def _judge_rows(
    survey: LogSurvey, settings: PrepareSettings, log: Path, validation: Validation
) -> None:
    """Bad rows reject the log as they would in `prepare`; a few are only warned of."""
    try:
        reject_if_too_bad(survey.problems, survey.rows_read, settings)
        validation.warnings += survey.problems.sentences()
    except DataError as error:
        validation.rejections.append(str(error))
    if survey.rows_kept == 0:
        validation.rejections.append(f"{log}: no usable rows among {survey.rows_read:,} read")
    if survey.exact_duplicates:
        validation.warnings.append(
            f"{log}: {survey.exact_duplicates:,} of {survey.rows_read:,} rows repeat another "
            "exactly; prepare drops them"
        )


def _judge_contents(survey: LogSurvey, schema: Schema, validation: Validation) -> None:
    """Rows without owner and labels that can't be learned."""
    for owner, rows in survey.rows_without_owner.items():
        sentence = (
            f"{rows:,} of {survey.rows_kept:,} rows have a {owner} that is not in the {owner} table"
        )
        if 0 < rows == survey.rows_kept:
            validation.rejections.append(
                f"{sentence}: expected ids of one type and origin in --log and --{owner}s"
            )
        elif rows:
            validation.warnings.append(f"{sentence}; their {owner} features will be unknown")
    for task in schema.tasks:
        label = survey.labels[task.name]
        if survey.rows_kept and label.observed == 0:
            validation.warnings.append(
                f"task {task.name!r}: column {task.label!r} is null in every row"
            )
        elif task.kind == "binary" and label.observed and label.total in (0, label.observed):
            validation.warnings.append(
                f"task {task.name!r}: column {task.label!r} is {label.total / label.observed:.0f} "
                "in every row, expected both 0 and 1; there is nothing to learn"
            )


def _judge_suspects(
    suspects: Sequence[Suspect], allowed: Sequence[str], validation: Validation
) -> None:
    for suspect in suspects:
        if suspect.feature in allowed:
            validation.accepted.append(suspect.sentence())
        else:
            validation.rejections.append(
                f"{suspect.sentence()}; if it is known when serving: "
                f"--allow-leaks {suspect.feature}"
            )
    found = {suspect.feature for suspect in suspects}
    validation.warnings += [
        f"--allow-leaks {name}: nothing was suspected of this feature"
        for name in allowed
        if name not in found
    ]


def _require_features(names: Sequence[str], schema: Schema) -> None:
    known = [feature.name for feature in schema.features]
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ConfigError(f"--allow-leaks {name}: the schema declares no such feature{hint}")
