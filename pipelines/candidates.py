"""``ranker candidates``: requests become pooled candidate lists."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from pipelines.arguments import (
    add_config,
    add_windows,
    non_negative,
    positive,
    print_config,
    require_output_file,
    resolve,
)
from pipelines.console import Console, ProgressLine
from ranker.candidates.build import CandidatesConfig
from ranker.config import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa

    from ranker.candidates.pool import CandidateLists
    from ranker.candidates.protocol import CandidateGenerator, Interactions
    from ranker.data.features import FeatureSource

CHUNK_REQUESTS = 2_000


class CandidateCounts(TypedDict):
    """What was written."""

    requests: int
    requests_without_candidates: int
    candidates: int
    mean_candidates: float
    share_by_source: dict[str, float]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--state", type=Path, required=True, metavar="DIR")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--requests", type=Path, metavar="PATH", help="Parquet, the log's columns")
    where.add_argument(
        "--log", type=Path, metavar="PATH", help="take each user's first impression in each window"
    )
    add_windows(parser, note=" of --log")
    parser.add_argument(
        "--max-requests", type=positive, metavar="N", help="a random sample, by --seed"
    )
    parser.add_argument("--seed", type=non_negative, default=0, metavar="N")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="Parquet")
    add_config(parser)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Generate and pool candidates."""
    config = resolve(CandidatesConfig, arguments)
    if arguments.print_config:
        return print_config(config, console)
    from pipelines.requests import check_distinct_requests, requests_of_log, time_type_of
    from ranker.data.state import load_state
    from ranker.data.tables import read_requests

    output = require_output_file(arguments, arguments.requests, arguments.log)
    if arguments.log is None and (arguments.first or arguments.before):
        raise ConfigError("--from and --before choose from a --log; leave them out with --requests")
    source = load_state(arguments.state)
    if arguments.log is not None:
        requests = requests_of_log(
            arguments.log,
            source.schema,
            first=arguments.first,
            before=arguments.before,
            with_first_item=False,
        )
    else:
        requests = read_requests(arguments.requests, source.schema, content="requests")
        check_distinct_requests(requests, source.schema, str(arguments.requests))
    requests = sample_requests(requests, arguments.max_requests, seed=arguments.seed)
    time_type = time_type_of(arguments.log or arguments.requests, source.schema)
    counts = generate(source, requests, config, output, console, time_type=time_type)
    console.result(
        f"{output}: {counts['candidates']:,} candidates for {counts['requests']:,} requests "
        f"({counts['mean_candidates']:.0f} each; "
        + ", ".join(f"{n} in {share:.0%}" for n, share in counts["share_by_source"].items())
        + ")",
        counts,
    )
    return 0


def generate(
    source: FeatureSource,
    requests: pa.Table,
    config: CandidatesConfig,
    output: Path,
    console: Console,
    *,
    time_type: pa.DataType,
) -> CandidateCounts:
    """Write one row per (request, item): the request's columns, the item, sources and ranks.

    Args:
        source: the state.
        requests: canonical.
        config: of the generators.
        output: a Parquet file.
        console: for progress.
        time_type: of the time column to be written: that of the requests' files.
    """
    from pipelines.requests import check_candidates_possible
    from ranker.scoring.predict import check_not_newer

    check_candidates_possible(source.schema)
    check_not_newer(source, requests)
    fitted = fit_generators(source, config)
    counts: CandidateCounts = {
        "requests": requests.num_rows,
        "requests_without_candidates": 0,
        "candidates": 0,
        "mean_candidates": 0.0,
        "share_by_source": dict.fromkeys(fitted.generators, 0.0),
    }
    line = ProgressLine(console, "candidates")

    def tables() -> Iterator[pa.Table]:
        for start in range(0, requests.num_rows, CHUNK_REQUESTS):
            chunk = requests.slice(start, CHUNK_REQUESTS)
            lists = propose(fitted, chunk, source, config)
            counts["candidates"] += lists.num_rows
            answered = len(set(lists.request.tolist()))
            counts["requests_without_candidates"] += chunk.num_rows - answered
            for name, rank in lists.rank_by_source.items():
                counts["share_by_source"][name] += int((rank > 0).sum())
            yield candidate_table(lists, chunk, source, time_type=time_type)
            line.update(done=start + chunk.num_rows, total=requests.num_rows)

    write_tables(output, tables())
    counts["mean_candidates"] = counts["candidates"] / requests.num_rows
    for name in fitted.generators:
        counts["share_by_source"][name] /= max(counts["candidates"], 1)
    return counts


def write_tables(path: Path, tables: Iterator[pa.Table]) -> None:
    """Write at least one table as one Parquet file, each as a row group of its own."""
    import pyarrow.parquet as pq

    from ranker.atomic import replacing_file

    first = next(tables)
    with (
        replacing_file(path) as temporary,
        pq.ParquetWriter(
            temporary, first.schema, compression="zstd", write_page_checksum=True
        ) as writer,
    ):
        writer.write_table(first)
        for table in tables:
            writer.write_table(table)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FittedGenerators:
    """Generators by name, and the interactions that they were fitted on."""

    generators: Mapping[str, CandidateGenerator]
    interactions: Interactions


def fit_generators(source: FeatureSource, config: CandidatesConfig) -> FittedGenerators:
    """Fit the configured generators on the state's histories."""
    from ranker.candidates.build import build_generators, read_interactions

    interactions = read_interactions(source.history, source.schema, config)
    as_of_ms = source.history.as_of_ms
    generators = build_generators(config, interactions, as_of_ms=as_of_ms)
    return FittedGenerators(generators=generators, interactions=interactions)


def sample_requests(requests: pa.Table, max_requests: int | None, *, seed: int) -> pa.Table:
    """At most ``max_requests`` of the requests, drawn at random, in their order."""
    import numpy as np
    import pyarrow as pa

    if max_requests is None or requests.num_rows <= max_requests:
        return requests
    rng = np.random.default_rng(seed)
    chosen = rng.choice(requests.num_rows, size=max_requests, replace=False)
    return requests.take(pa.array(np.sort(chosen)))


def propose(
    fitted: FittedGenerators, requests: pa.Table, source: FeatureSource, config: CandidatesConfig
) -> CandidateLists:
    """The pooled candidate lists of some requests."""
    import numpy as np

    from ranker.candidates.build import query_items
    from ranker.candidates.pool import WatchedItems, pool
    from ranker.candidates.protocol import Requests

    user_index = source.encoders.vocabularies["user"].encode(requests.column("user"))
    time_ms = np.asarray(requests.column("time_ms").to_numpy(), dtype=np.int64)
    moments = Requests(
        user_index=user_index,
        query_item_index=query_items(source.history, time_ms, user_index, source.schema),
        time_ms=time_ms,
    )
    watched = WatchedItems(requests=moments, interactions=fitted.interactions)
    return pool(
        {
            name: generator.generate(moments, num_candidates=config.num_candidates)
            for name, generator in fitted.generators.items()
        },
        num_candidates=config.num_candidates,
        exclude=watched if config.exclude_watched else None,
    )


def candidate_table(
    lists: CandidateLists, requests: pa.Table, source: FeatureSource, *, time_type: pa.DataType
) -> pa.Table:
    """Candidate lists in the log's own columns, with each source's rank and score."""
    import pyarrow as pa

    from pipelines.requests import raw_columns

    asked = requests.take(pa.array(lists.request))
    rows = raw_columns(asked, source.schema, time_type=time_type)
    rows[source.schema.log.item] = source.encoders.vocabularies["item"].decode(lists.item_index)
    sources = lists.to_arrow()
    for name in lists.rank_by_source:
        rows[f"{name}_rank"] = sources.column(f"{name}_rank")
        rows[f"{name}_score"] = sources.column(f"{name}_score")
    return pa.table(rows)
