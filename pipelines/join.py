"""``ranker join``: slates and their outcomes become tomorrow's impressions."""

from __future__ import annotations

import argparse
import datetime
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from pipelines.arguments import (
    add_config,
    print_config,
    read_schema,
    require_output,
    resolve,
)
from pipelines.console import Console
from pipelines.joined_files import (
    KIND,
    also_writing,
    check_outputs,
    is_file,
    manifest_beside,
    write_parts,
)
from ranker.atomic import (
    replacing_file,
    replacing_folder,
    sha256_of,
    write_json,
)
from ranker.config import ConfigError
from ranker.manifest import folder_digests, write_manifest
from ranker.schema import Schema
from ranker.scoring.join.join_config import JoinConfig

if TYPE_CHECKING:
    import pyarrow as pa

    from ranker.scoring.join.join import JoinCounts
    from ranker.scoring.join.joiner import Joiner, Period

EVER_MS = 2**62


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinSummary:
    """What was joined.

    Attributes:
        complete_before_ms: rows requested before then are complete: the next join's ``--since``.
            None where nothing limits it.
    """

    output: str
    complete_before_ms: int | None
    counts: dict[str, object]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("slates", type=Path, metavar="SLATES", help="Parquet file or folder")
    parser.add_argument("outcomes", type=Path, metavar="OUTCOMES", help="Parquet file or folder")
    parser.add_argument("--schema", type=Path, required=True, metavar="FILE")
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="PATH",
        help="a *.parquet file, or a folder that gets impressions/ and a manifest",
    )
    parser.add_argument(
        "--unmatched", type=Path, metavar="FILE", help="Parquet: outcomes that have no slate"
    )
    for name, meaning in (
        ("since", "impressions requested from then on"),
        ("until", "impressions requested before then"),
        ("as-of", "feedback is known up to then (with patience_hours); else the latest outcome"),
    ):
        parser.add_argument(
            f"--{name}",
            metavar="TIME",
            help=f"{meaning}: local date, date and time, or milliseconds",
        )
    add_config(parser)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Join slates with outcomes."""
    config = resolve(JoinConfig, arguments)
    if arguments.print_config:
        return print_config(config, console)
    from ranker.scoring.join.join import check_join_config
    from ranker.scoring.join.joiner import Period

    output = require_output(arguments)
    check_outputs(output, arguments)
    schema = read_schema(arguments.schema)
    try:
        check_join_config(config, schema)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if arguments.as_of is not None and config.patience_hours is None:
        raise ConfigError("--as-of says up to when feedback is known; it needs patience_hours")
    since, until, as_of = (
        None if text is None else moment_ms(text, schema)
        for text in (arguments.since, arguments.until, arguments.as_of)
    )
    if since is not None and until is not None and since >= until:
        raise ConfigError(f"--since {arguments.since} must lie before --until {arguments.until}")
    period = Period(
        since_ms=-EVER_MS if since is None else since, until_ms=EVER_MS if until is None else until
    )
    joiner, unmatched = _prepare(arguments, schema, config, period, as_of)
    with also_writing(arguments.unmatched, unmatched):
        summary = _write(arguments, output, joiner)
    console.result(describe(summary, joiner.counts), asdict(summary))
    return 0


def _prepare(
    arguments: argparse.Namespace,
    schema: Schema,
    config: JoinConfig,
    period: Period,
    as_of_ms: int | None,
) -> tuple[Joiner, pa.Table]:
    """The first pass; and the outcomes that have no slate."""
    import pyarrow as pa

    from ranker.scoring.join.join import JoinCounts, index_slates, sort_out
    from ranker.scoring.join.joiner import make_joiner
    from ranker.scoring.join.outcomes import latest_outcome_ms, read_outcomes

    counts = JoinCounts()
    outcomes = read_outcomes(arguments.outcomes, schema, outcome_time=config.outcome_time)
    index = index_slates(arguments.slates, schema, outcomes)
    merged, unmatched = sort_out(outcomes, index, config, counts)
    joiner = make_joiner(
        outcomes,
        merged,
        schema=schema,
        config=config,
        period=period,
        as_of_ms=latest_outcome_ms(outcomes, now_ms=time.time_ns() // 10**6)
        if as_of_ms is None
        else as_of_ms,
        counts=counts,
    )
    return joiner, outcomes.table.filter(pa.array(unmatched))


def _write(arguments: argparse.Namespace, output: Path, joiner: Joiner) -> JoinSummary:
    """Write the impressions and a manifest; both are there whole or not at all."""
    impressions = joiner.impressions(arguments.slates)
    if is_file(output):
        with replacing_file(manifest_beside(output)) as manifest, replacing_file(output) as new:
            write_parts(impressions, lambda _: new)
            summary = _summary(output, joiner)
            files = {output.name: sha256_of(new)}
            write_json(manifest, _manifest(arguments, joiner, summary, files))
        return summary
    with replacing_folder(output, kind=KIND) as folder:
        # Not beside the manifest: other readers of Parquet folders would stumble over it.
        parts = folder / "impressions"
        parts.mkdir()
        write_parts(impressions, lambda number: parts / f"part-{number:05d}.parquet")
        summary = _summary(output, joiner)
        write_manifest(folder, _manifest(arguments, joiner, summary, folder_digests(folder)))
    return summary


def moment_ms(text: str, schema: Schema) -> int:
    """A moment: milliseconds since 1970, or a date with or without time in the schema's time zone.

    Raises:
        ConfigError: neither.
    """
    from ranker.data.columns import EARLIEST_MS, LATEST_MS

    # a date may be written 20240318, too
    if text.isdecimal() and EARLIEST_MS <= int(text) < LATEST_MS:
        return int(text)
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"{text!r} is no time: expected a date (2024-03-18), a date and time "
            "(2024-03-18T06:30), or milliseconds since 1970"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=ZoneInfo(schema.time_zone))
    return round(moment.timestamp() * 1000)


def _summary(output: Path, joiner: Joiner) -> JoinSummary:
    complete = joiner.complete_before_ms
    return JoinSummary(
        output=str(output),
        complete_before_ms=None if complete >= EVER_MS else complete,
        counts=asdict(joiner.counts),
    )


def _manifest(
    arguments: argparse.Namespace, joiner: Joiner, summary: JoinSummary, files: dict[str, str]
) -> dict[str, object]:
    period = joiner.period
    return {
        "kind": KIND,
        "files": files,
        "slates": str(arguments.slates),
        "outcomes": str(arguments.outcomes),
        "config": joiner.config.model_dump(mode="json"),
        "since_ms": None if period.since_ms == -EVER_MS else period.since_ms,
        "complete_before_ms": summary.complete_before_ms,
        "counts": summary.counts,
    }


def describe(summary: JoinSummary, counts: JoinCounts) -> str:
    """What became of the rows, leaving out what did not happen."""
    lines = [
        f"{summary.output}: {counts.impressions:,} impressions of {counts.shown_rows:,} rows of "
        f"slates, {counts.used_outcomes:,} of {counts.outcome_rows:,} outcomes used"
    ]
    slates = {
        "before --since": counts.before_since,
        "from --until on": counts.from_until_on,
        "still waited for": counts.incomplete,
        "never confirmed as shown": counts.unconfirmed,
    }
    outcomes = {
        "without a slate": counts.unmatched_outcomes,
        "too late": counts.late_outcomes,
        "before their request": counts.early_outcomes,
        "of an impression that had one": counts.repeated_outcomes,
    }
    for what, found in (("rows", slates), ("outcomes", outcomes)):
        said = [f"{count:,} {name}" for name, count in found.items() if count]
        if said:
            lines.append(f"  {what}: " + ", ".join(said))
    labels = [
        f"{name} {count:,}" + (f" ({zeros:,} of them 0 for want of an event)" if zeros else "")
        for (name, count), zeros in zip(
            counts.observed.items(), counts.zeros_without_event.values(), strict=True
        )
    ]
    lines.append("  observed: " + ", ".join(labels))
    return "\n".join(lines)
