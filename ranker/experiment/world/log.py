"""The log that a world leaves behind under its logging policy, with exact propensities.

The columns are those of ``configs/schema/world.yaml``. Days are files of their own, sorted by time,
and no more than one day is held in memory.

Shapes: ``R`` requests, ``K`` shown, ``C`` candidates, ``N`` rows, ``I`` items.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ranker.experiment.world.behaviour import Outcomes
from ranker.experiment.world.counterfactual import quiet_catalogue
from ranker.experiment.world.days import (
    Arm,
    Drawn,
    PlayedChunk,
    Treatment,
    active_at_start,
    draw_chunk,
    play_days,
)
from ranker.experiment.world.items import Catalogue
from ranker.experiment.world.policies import logging_policy
from ranker.experiment.world.randomness import FloatArray, IntArray, Source, generator
from ranker.experiment.world.sessions import (
    DAY_S,
    Requests,
    draw_candidates,
    draw_requests,
    num_chunks,
)
from ranker.experiment.world.users import AGE_GROUPS
from ranker.experiment.world.world import World

PROXY_NOISE = 0.5  # of what is known of an item's quality and clickbait
ORDER_OF_LOG = [("time_ms", "ascending"), ("request_id", "ascending"), ("position", "ascending")]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldLog:
    """Where a written log lies: folders of one file a day, one file of users, one of items."""

    log: Path
    candidates: Path
    users: Path
    items: Path


def write_log(
    world: World, folder: Path, *, days: range, candidate_days: range, seed: int, jobs: int = 1
) -> WorldLog:
    """Write impressions of ``days``, candidate lists of ``candidate_days``, users and items.

    Candidate lists hold all requests of a day, also those of users who turn out not to be active:
    whoever scores them can be an arm of any experiment on these days (`file_policy`).

    Args:
        world: what to log.
        folder: exists; files of the same names are replaced.
        days, candidate_days: of the world.
        seed: of what users happen to do.
        jobs: changes nothing but the speed.

    Raises:
        ValueError: days that the world lacks.
    """
    paths = WorldLog(
        log=folder / "log",
        candidates=folder / "candidates",
        users=folder / "users.parquet",
        items=folder / "items.parquet",
    )
    for part in (paths.log, paths.candidates):
        part.mkdir(exist_ok=True)
    _write(user_table(world), paths.users)
    _write(item_table(world), paths.items)
    for day, chunks in play_log(world, days, seed=seed, jobs=jobs):
        rows = pa.concat_tables(_impressions(world, day, drawn) for drawn in chunks)
        _write(rows.sort_by(ORDER_OF_LOG), paths.log / f"day-{day:03d}.parquet")
    for day in candidate_days:
        _write(candidate_table(world, day=day), paths.candidates / f"day-{day:03d}.parquet")
    return paths


def play_log(
    world: World, days: range, *, seed: int, jobs: int
) -> Iterator[tuple[int, list[Drawn]]]:
    """Draw the days of a log: the day, and the impressions of each chunk of users."""
    everyone = Treatment(
        arms=[Arm(policy=logging_policy(world))],
        arm_of_user=np.zeros(world.settings.num_users, dtype=np.int64),
        novelty=[0.0],
    )

    def play_chunk(catalogue: Catalogue, chunk: int, active: FloatArray) -> PlayedChunk[Drawn]:
        return draw_chunk(
            world, catalogue, chunk=chunk, active=active, treatment=everyone, seed=seed
        )

    start = active_at_start(world, seed=seed)
    for day, _, chunks in play_days(world, days, active=start, play_chunk=play_chunk, jobs=jobs):
        yield day, chunks


def candidate_table(world: World, *, day: int) -> pa.Table:
    """One row a candidate, lists in order of time.

    Raises:
        ValueError: the world has no such day.
    """
    catalogue = quiet_catalogue(world, day=day)
    tables = []
    for chunk in range(num_chunks(world)):
        requests = draw_requests(world, catalogue, chunk=chunk)
        candidates = draw_candidates(world, catalogue, requests)
        rows = np.repeat(np.arange(len(candidates)), candidates.shape[1])
        columns = _request_columns(world, day, requests, rows)
        tables.append(pa.table(columns | {"item_id": pa.array(candidates.ravel())}))
    return pa.concat_tables(tables).sort_by([*ORDER_OF_LOG[:2], ("item_id", "ascending")])


def request_table(world: World, *, day: int) -> pa.Table:
    """One row a request that could come on a day, in order of time: what a nightly job is given.

    Raises:
        ValueError: the world has no such day.
    """
    catalogue = quiet_catalogue(world, day=day)
    tables = []
    for chunk in range(num_chunks(world)):
        requests = draw_requests(world, catalogue, chunk=chunk)
        tables.append(
            pa.table(_request_columns(world, day, requests, np.arange(len(requests.ids))))
        )
    return pa.concat_tables(tables).sort_by(ORDER_OF_LOG[:2])


def user_table(world: World) -> pa.Table:
    """One row a user."""
    users = world.users
    return pa.table(
        {
            "user_id": np.arange(len(users.age_group)),
            "age_group": pa.array(AGE_GROUPS[users.age_group]),
            "tenure_days": users.tenure_days,
        }
    )


def item_table(world: World) -> pa.Table:
    """One row an item; quality and clickbait are known only roughly."""
    items, settings = world.items, world.settings
    rng = generator(settings.seed, Source.TABLES)
    noise = PROXY_NOISE * rng.normal(size=(2, settings.num_items))
    names = _topic_names(settings.num_topics)
    pairs = np.stack([items.topic, items.second_topic], axis=1)  # [I, 2]
    offsets = 2 * np.arange(settings.num_items + 1, dtype=np.int32)
    published = midnight_ms(world, 0) + 1000 * DAY_S * items.published_day
    return pa.table(
        {
            "item_id": np.arange(settings.num_items),
            "topic": pa.array(names[items.topic]),
            "topics": pa.ListArray.from_arrays(offsets, pa.array(names[pairs.ravel()])),
            "published": pa.array(published, pa.timestamp("ms", tz="UTC")),
            "quality_proxy": np.round(items.quality + noise[0], 3),
            "clickbait_proxy": np.round(items.clickbait + noise[1], 3),
        }
    )


def _impressions(world: World, day: int, drawn: Drawn) -> pa.Table:
    shown = drawn.shown
    num_requests, slate_size = shown.items.shape
    rows = np.repeat(np.arange(num_requests), slate_size)  # [N]
    columns = _request_columns(world, day, shown.requests, rows) | {
        "item_id": pa.array(shown.items.ravel()),
        "position": pa.array(np.tile(np.arange(slate_size, dtype=np.int32), num_requests)),
        "propensity": pa.array(shown.propensities.ravel()),
    }
    return pa.table(columns | label_columns(drawn.outcomes))


def label_columns(outcomes: Outcomes) -> dict[str, pa.Array]:
    """The labels of impressions as the log has them, request by request."""
    return {
        "click": pa.array(outcomes.click.ravel().astype(np.int8)),
        "watch_time_s": pa.array(np.round(outcomes.watch_time_s.ravel(), 3)),
        "like": pa.array(outcomes.like.ravel().astype(np.int8)),
        "rating": pa.array(outcomes.rating.ravel(), mask=outcomes.surveyed.ravel() == 0),
        "dismissed": pa.array(outcomes.dismissed.ravel().astype(np.int8)),
    }


def _request_columns(
    world: World, day: int, requests: Requests, rows: IntArray
) -> dict[str, pa.Array]:
    """What is known when the request is made, for each of ``rows`` [N] of the requests."""
    devices = np.array([device.name for device in world.settings.devices])
    topics = _topic_names(world.settings.num_topics)
    times_ms = midnight_ms(world, day) + 1000 * requests.times_s
    return {
        "request_id": pa.array(requests.ids[rows]),
        "user_id": pa.array(requests.users[rows]),
        "time_ms": pa.array(times_ms[rows]),
        "device": pa.array(devices[requests.devices]).take(pa.array(rows)),
        "query_item_id": pa.array(requests.query_items[rows]),
        "query_topic": pa.array(topics[world.items.topic[requests.query_items]]).take(
            pa.array(rows)
        ),
    }


def midnight_ms(world: World, day: int) -> int:
    """When a day of the world begins, UTC."""
    date = world.settings.first_date + datetime.timedelta(days=day)
    midnight = datetime.datetime.combine(date, datetime.time(), tzinfo=datetime.UTC)
    return round(midnight.timestamp() * 1000)


def _topic_names(num_topics: int) -> np.ndarray[tuple[int], np.dtype[np.str_]]:
    return np.array([f"topic_{number:02d}" for number in range(num_topics)])


def _write(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, write_page_checksum=True)
