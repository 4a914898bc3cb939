"""``ranker candidates``: requests become pooled candidate lists."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from pipelines.arguments import add_config, print_config, require_output, resolve
from pipelines.console import Console
from ranker.candidates.build import CandidatesConfig

if TYPE_CHECKING:
    import pyarrow as pa

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
    parser.add_argument("--from", dest="first", metavar="DATE", help="with --log")
    parser.add_argument("--before", metavar="DATE", help="with --log")
    parser.add_argument("--max-requests", type=int, metavar="N", help="a random sample, by --seed")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--output", type=Path, metavar="FILE", help="Parquet")
    add_config(parser)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Generate and pool candidates."""
    config = resolve(CandidatesConfig, arguments)
    if arguments.print_config:
        return print_config(config, console)
    from pipelines.requests import requests_of_log
    from ranker.data.state import load_state
    from ranker.data.tables import read_requests

    output = require_output(arguments)
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
    counts = generate(
        source,
        requests,
        config,
        output,
        max_requests=arguments.max_requests,
        seed=arguments.seed,
    )
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
    *,
    max_requests: int | None,
    seed: int,
) -> CandidateCounts:
    """Write one row per (request, item): the request's columns, the item, sources and ranks."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from pipelines.requests import check_candidates_possible, raw_columns
    from ranker.atomic import replacing_file
    from ranker.candidates.build import build_generators, query_items, read_interactions
    from ranker.candidates.pool import WatchedItems, pool
    from ranker.candidates.protocol import Requests
    from ranker.scoring.predict import check_not_newer

    check_candidates_possible(source.schema)
    check_not_newer(source, requests)
    if max_requests is not None and requests.num_rows > max_requests:
        chosen = np.random.default_rng(seed).choice(
            requests.num_rows, size=max_requests, replace=False
        )
        requests = requests.take(pa.array(np.sort(chosen)))
    interactions = read_interactions(source.history, source.schema, config)
    as_of_ms = source.history.as_of_ms
    generators = build_generators(config, interactions, as_of_ms=as_of_ms)
    vocabularies = source.encoders.vocabularies
    writer: pq.ParquetWriter | None = None
    total = empty = 0
    proposed = dict.fromkeys(generators, 0)
    with replacing_file(output) as temporary:
        for start in range(0, requests.num_rows, CHUNK_REQUESTS):
            chunk = requests.slice(start, CHUNK_REQUESTS)
            user_index = vocabularies["user"].encode(chunk.column("user"))
            moments_ms = np.asarray(chunk.column("time_ms").to_numpy(), dtype=np.int64)
            moments = Requests(
                user_index=user_index,
                query_item_index=query_items(source.history, moments_ms, user_index, source.schema),
                time_ms=moments_ms,
            )
            lists = pool(
                {
                    name: generator.generate(moments, num_candidates=config.num_candidates)
                    for name, generator in generators.items()
                },
                num_candidates=config.num_candidates,
                exclude=WatchedItems(requests=moments, interactions=interactions)
                if config.exclude_watched
                else None,
            )
            rows = raw_columns(chunk.take(pa.array(lists.request)), source.schema)
            rows[source.schema.log.item] = vocabularies["item"].decode(lists.item_index)
            sources = lists.to_arrow()
            for name in generators:
                rows[f"{name}_rank"] = sources.column(f"{name}_rank")
                rows[f"{name}_score"] = sources.column(f"{name}_score")
                proposed[name] += int((lists.rank_by_source[name] > 0).sum())
            table = pa.table(rows)
            total += table.num_rows
            empty += chunk.num_rows - len(np.unique(lists.request))
            if writer is None:
                writer = pq.ParquetWriter(
                    temporary, table.schema, compression="zstd", write_page_checksum=True
                )
            writer.write_table(table)
        assert writer is not None, "requests are never empty here"
        writer.close()
    return {
        "requests": requests.num_rows,
        "requests_without_candidates": empty,
        "candidates": total,
        "mean_candidates": total / requests.num_rows,
        "share_by_source": {name: count / max(total, 1) for name, count in proposed.items()},
    }
