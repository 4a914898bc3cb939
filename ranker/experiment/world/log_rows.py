"""Rows of any log in a world's terms: whose, when, where, and the five tasks a world knows.

Shapes: ``N`` rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ranker.data.encode import local_ms
from ranker.experiment.world.days import Drawn
from ranker.experiment.world.log import play_log
from ranker.experiment.world.randomness import FloatArray, IntArray
from ranker.experiment.world.world import World
from ranker.schema import Schema

WORLD_TASKS = ("click", "watch_time_s", "like", "dismissed", "rating")
DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LogRows:
    """Impressions; every array is [N].

    Attributes:
        users, items: ids of any type.
        days: of the log's own time zone, counted from 1970.
        requests: ids, unique within a user's day.
        positions: -1 = not known.
        labels: by world task; NaN = not observed.
    """

    users: NDArray[np.generic]
    items: NDArray[np.generic]
    days: IntArray
    requests: NDArray[np.generic]
    positions: IntArray
    labels: Mapping[str, FloatArray]


def match_tasks(schema: Schema) -> dict[str, str]:
    """World task → the log's first task of that family, kind and direction, where it has one."""
    wanted = {
        "click": ("engagement", "binary", "positive"),
        "watch_time_s": ("engagement", "regression", "positive"),
        "like": ("satisfaction", "binary", "positive"),
        "dismissed": ("satisfaction", "binary", "negative"),
        "rating": ("satisfaction", "regression", "positive"),
    }
    known = {(task.family, task.kind, task.direction): task for task in reversed(schema.tasks)}
    return {task: known[kind].name for task, kind in wanted.items() if kind in known}


def rows_of_tables(tables: Iterable[pa.Table], schema: Schema) -> Iterator[LogRows]:
    """The rows of a log read by `ranker.data.tables.stream_log`.

    A request is what the schema lists by: the log's request, else a user at one time, or all of a
    user's day.
    """
    tasks = match_tasks(schema)
    for table in tables:
        times_ms = table.column("time_ms").to_numpy()
        days = local_ms(times_ms, schema.time_zone) // DAY_MS
        requests: NDArray[np.generic]
        if schema.list_by == "user_window":
            requests = days
        elif schema.log.request is not None:
            requests = _ids(table, "request")
        else:
            requests = times_ms
        labels = {
            world_task: pc.fill_null(table.column(f"label.{task}"), np.nan).to_numpy()
            for world_task, task in tasks.items()
        }
        yield LogRows(
            users=_ids(table, "user"),
            items=_ids(table, "item"),
            days=days,
            requests=requests,
            positions=table.column("position").to_numpy().astype(np.int64),
            labels=labels,
        )


def rows_of_world(world: World, days: range, *, seed: int, jobs: int = 1) -> Iterator[LogRows]:
    """The rows of the log that the world would write."""
    for day, chunks in play_log(world, days, seed=seed, jobs=jobs):
        for drawn in chunks:
            yield _rows_of_drawn(drawn, day=day)


def _rows_of_drawn(drawn: Drawn, *, day: int) -> LogRows:
    items, outcomes = drawn.shown.items, drawn.outcomes
    num_requests, slate_size = items.shape
    rows = np.repeat(np.arange(num_requests), slate_size)
    return LogRows(
        users=drawn.shown.requests.users[rows],
        items=items.ravel(),
        days=np.full(items.size, day),
        requests=drawn.shown.requests.ids[rows],
        positions=np.tile(np.arange(slate_size), num_requests),
        labels={
            "click": outcomes.click.ravel(),
            "watch_time_s": outcomes.watch_time_s.ravel(),
            "like": outcomes.like.ravel(),
            "dismissed": outcomes.dismissed.ravel(),
            "rating": outcomes.rating.ravel(),
        },
    )


def _ids(table: pa.Table, column: str) -> NDArray[np.generic]:
    return np.asarray(table.column(column).to_numpy())
