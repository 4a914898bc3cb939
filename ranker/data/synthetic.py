"""A small invented video log with known truth: slates, positions, devices, survey, dismissals.

Users have tastes for topics (partly explained by their age group), items have quality and
clickbait. A position is examined with `examination_probability`, which falls fastest on the phone
(compare Zhao et al., RecSys 2019, fig. 6). Clicks follow taste, quality and clickbait, but
satisfaction rises with quality and falls with clickbait, so that clicks alone mislead. The logging
policy ranks by noisy attraction: position and relevance are confounded, as in real logs. The
columns are those of `configs/schema/synthetic.yaml`.

Shapes: U users, I items, T topics, R requests, C candidates, P positions, N = R × P impressions.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.special import expit

NUM_POSITIONS = 6
NUM_CANDIDATES = 12
NUM_TOPICS = 8
MIN_ITEMS = 2 * NUM_CANDIDATES
START_S = 1_709_510_400  # 2024-03-04 00:00 UTC, a Monday
DAY_S = 86_400
SHARE_PRESENT_AT_START = 0.6  # of users and of items; the others appear over the days
REQUESTS_PER_DAY = 0.7
SURVEY_RATE = 0.03
DEVICES = np.array(["phone", "tablet", "tv"])
EXAMINATION_DECAY = np.array([0.9, 0.6, 0.3])  # by device
AGE_GROUPS = np.array(["under_25", "25_to_39", "40_to_59", "60_plus"])
COUNTRIES = np.array(["AT", "BR", "IN", "JP", "US"])  # explain nothing

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticTables:
    """The log's tables, and the truth behind them that no ranker may see.

    Attributes:
        impressions: one row per impression, unsorted.
        users: one row per user.
        items: one row per item.
        truth: in the order of ``impressions``: quality, clickbait and satisfaction (about standard
            normal), and the probabilities examination, attraction (of a click once examined) and
            annoyance (of a dismissal once examined).
    """

    impressions: pa.Table
    users: pa.Table
    items: pa.Table
    truth: pa.Table


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticLog:
    """Where a written log lies: a folder of impressions, one file of users, one of items."""

    log: Path
    users: Path
    items: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class _Users:
    age_index: Ints  # [U]
    taste: Floats  # [U, T]
    device_logits: Floats  # [U, 3]
    joined_s: Ints  # [U] seconds since the start; negative: before it


@dataclass(frozen=True, slots=True, kw_only=True)
class _Items:
    topic: Ints  # [I]
    second_topic: Ints  # [I]
    creator: Ints  # [I]
    quality: Floats  # [I]
    clickbait: Floats  # [I]
    published_s: Ints  # [I] ascending, seconds since the start; negative: before it


@dataclass(frozen=True, slots=True, kw_only=True)
class _Slates:
    user: Ints  # [R]
    time_s: Ints  # [R] ascending, seconds since the start
    device: Ints  # [R]
    item: Ints  # [R, P]


def examination_probability(*, device: Ints, position: Ints) -> Floats:
    """P(the user looks at a position): (1 + position) ** -decay of the device's index."""
    return np.asarray((1.0 + position) ** -EXAMINATION_DECAY[device], dtype=np.float64)


def make_synthetic_log(
    *, num_users: int, num_items: int, num_days: int, seed: int
) -> SyntheticTables:
    """Draw a log: a user has about 1 + 0.56 × ``num_days`` requests of 6 impressions each.

    Raises:
        ValueError: no user or no day, or too few items for the slates.
    """
    least = {"num_users": (num_users, 1), "num_items": (num_items, MIN_ITEMS)}
    for name, (value, low) in (least | {"num_days": (num_days, 1)}).items():
        if value < low:
            raise ValueError(f"synthetic log: {name} must be at least {low}, got {value}")
    rng = np.random.default_rng(seed)
    users = _draw_users(num_users, end_s=num_days * DAY_S, rng=rng)
    items = _draw_items(num_items, end_s=num_days * DAY_S, rng=rng)
    slates = _draw_slates(users, items, end_s=num_days * DAY_S, rng=rng)
    truth = _truth_columns(users, items, slates)
    labels = _draw_labels(truth, rng=rng)
    context = _context_columns(slates, item_ids=_item_ids(num_items))
    order = pa.array(rng.permutation(slates.item.size))
    return SyntheticTables(
        impressions=pa.table(context | labels).take(order),
        users=_user_table(users, rng=rng),
        items=_item_table(items, rng=rng),
        truth=pa.table(truth).take(order),
    )


def write_synthetic_log(
    folder: Path, *, num_users: int, num_items: int, num_days: int, seed: int
) -> SyntheticLog:
    """Write `make_synthetic_log` to ``folder``: the log as three files of several row groups.

    Raises:
        ValueError: as `make_synthetic_log`.
    """
    size = {"num_users": num_users, "num_items": num_items, "num_days": num_days}
    tables = make_synthetic_log(**size, seed=seed)
    users, items = folder / "users.parquet", folder / "items.parquet"
    paths = SyntheticLog(log=folder / "log", users=users, items=items)
    paths.log.mkdir(parents=True, exist_ok=True)
    table_by_path = {users: tables.users, items: tables.items}
    bounds = np.linspace(0, tables.impressions.num_rows, 4).astype(int)
    for part, (start, stop) in enumerate(pairwise(bounds)):
        table_by_path[paths.log / f"part-{part:05d}.parquet"] = tables.impressions[start:stop]
    for path, table in table_by_path.items():
        row_group_size = max(1, table.num_rows // 5)
        pq.write_table(table, path, row_group_size=row_group_size, write_page_checksum=True)
    return paths


def _draw_users(num_users: int, *, end_s: int, rng: np.random.Generator) -> _Users:
    age_index = rng.integers(len(AGE_GROUPS), size=num_users)  # [U]
    age_taste = rng.normal(size=(len(AGE_GROUPS), NUM_TOPICS))
    return _Users(
        age_index=age_index,
        taste=0.6 * age_taste[age_index] + 0.8 * rng.normal(size=(num_users, NUM_TOPICS)),
        device_logits=np.log([0.6, 0.15, 0.25]) + rng.normal(size=(num_users, len(DEVICES))),
        joined_s=_draw_arrivals(num_users, end_s=end_s, past_days=900, rng=rng),
    )


def _draw_items(num_items: int, *, end_s: int, rng: np.random.Generator) -> _Items:
    num_creators = 1 + num_items // 7
    creator = rng.integers(num_creators, size=num_items)  # [I]
    creator_quality = rng.normal(size=num_creators)
    topic = rng.integers(NUM_TOPICS, size=num_items)  # [I]
    return _Items(
        topic=topic,
        second_topic=(topic + rng.integers(NUM_TOPICS, size=num_items)) % NUM_TOPICS,
        creator=creator,
        quality=0.6 * creator_quality[creator] + 0.8 * rng.normal(size=num_items),
        clickbait=rng.normal(size=num_items),
        # Sorted: at any time the items that exist are a prefix.
        published_s=np.sort(_draw_arrivals(num_items, end_s=end_s, past_days=60, rng=rng)),
    )


def _draw_slates(users: _Users, items: _Items, *, end_s: int, rng: np.random.Generator) -> _Slates:
    first_s = np.maximum(users.joined_s, 0)  # [U]
    num_requests = 1 + rng.poisson(REQUESTS_PER_DAY * (end_s - first_s) / DAY_S)  # [U]
    user = np.repeat(np.arange(len(first_s)), num_requests)  # [R]
    time_s = first_s[user] + (rng.random(len(user)) * (end_s - first_s[user])).astype(np.int64)
    order = np.argsort(time_s, kind="stable")
    user, time_s = user[order], time_s[order]
    is_evening = time_s % DAY_S >= 18 * 3600
    device_logits = users.device_logits[user] + np.outer(is_evening, [0.0, 0.2, 1.0])  # [R, 3]
    device = np.argmax(device_logits + rng.gumbel(size=device_logits.shape), axis=1)  # [R]

    # One candidate from each of C slices of the items that exist: distinct without rejection.
    num_existing = np.searchsorted(items.published_s, time_s, side="right")  # [R]
    edges = np.outer(num_existing, np.arange(NUM_CANDIDATES + 1)) // NUM_CANDIDATES  # [R, C + 1]
    width = np.diff(edges, axis=1)  # [R, C]
    candidate = edges[:, :-1] + (rng.random(width.shape) * width).astype(np.int64)
    attraction = _attraction_logit(users, items, user=user[:, None], item=candidate)  # [R, C]
    noisy = attraction + rng.gumbel(size=attraction.shape)
    best = np.argsort(-noisy, axis=1, kind="stable")[:, :NUM_POSITIONS]  # [R, P]
    item = np.take_along_axis(candidate, best, axis=1)
    return _Slates(user=user, time_s=time_s, device=device, item=item)


def _truth_columns(users: _Users, items: _Items, slates: _Slates) -> dict[str, Floats]:
    """The columns of `SyntheticTables.truth`, slate by slate."""  # each [N]
    user, device = np.repeat([slates.user, slates.device], NUM_POSITIONS, axis=1)
    position = np.tile(np.arange(NUM_POSITIONS), len(slates.user))
    item = slates.item.ravel()
    quality, clickbait = items.quality[item], items.clickbait[item]
    affinity = _affinity(users, items, user=user, item=item)
    return {
        "quality": quality,
        "clickbait": clickbait,
        "examination": examination_probability(device=device, position=position),
        "attraction": expit(_attraction_logit(users, items, user=user, item=item)),
        "annoyance": expit(-3.5 + 1.2 * clickbait - 0.6 * affinity),
        "satisfaction": (0.7 * affinity + quality - 0.7 * clickbait) / 1.4,
    }


def _draw_labels(truth: dict[str, Floats], *, rng: np.random.Generator) -> dict[str, pa.Array]:
    examination, satisfaction = truth["examination"], truth["satisfaction"]
    size = len(examination)
    click = rng.random(size) < examination * truth["attraction"]
    like = rng.random(size) < examination * expit(-4.0 + 2.0 * click + 1.2 * satisfaction)
    dismissed = rng.random(size) < examination * truth["annoyance"]
    watch_s = np.exp(3.5 + 0.6 * satisfaction + 0.7 * rng.normal(size=size))
    opinion = np.round(3.2 + satisfaction + 0.6 * rng.normal(size=size))
    surveyed = rng.random(size) < SURVEY_RATE  # at random: the answers are no biased sample
    return {
        "click": pa.array(click.astype(np.int8)),
        "watch_time_s": pa.array(np.where(click, np.round(watch_s, 1), 0.0)),
        "like": pa.array(like.astype(np.int8)),
        "rating": pa.array(np.clip(opinion, 1.0, 5.0), mask=~surveyed),
        "dismissed": pa.array(dismissed.astype(np.int8)),
    }


def _context_columns(slates: _Slates, *, item_ids: pa.Array) -> dict[str, pa.Array]:
    request = np.repeat(np.arange(len(slates.user)), NUM_POSITIONS)  # [N]
    return {
        "request_id": pa.array(np.char.mod("r%07d", request)),
        "user_id": pa.array(slates.user[request]),
        "item_id": item_ids.take(pa.array(slates.item.ravel())),
        "time_s": pa.array(START_S + slates.time_s[request]),
        "position": pa.array(np.tile(np.arange(NUM_POSITIONS), len(slates.user))),
        "device": pa.array(DEVICES[slates.device[request]]),
    }


def _user_table(users: _Users, *, rng: np.random.Generator) -> pa.Table:
    num_users = len(users.age_index)
    return pa.table(
        {
            "user_id": np.arange(num_users),
            "age_group": pa.array(AGE_GROUPS[users.age_index]),
            "country": pa.array(COUNTRIES[rng.integers(len(COUNTRIES), size=num_users)]),
            "tenure_days": np.maximum(-users.joined_s, 0) // DAY_S,  # when the log starts
        }
    )


def _item_table(items: _Items, *, rng: np.random.Generator) -> pa.Table:
    num_items = len(items.topic)
    names = np.char.mod("topic_%d", np.arange(NUM_TOPICS))
    pairs = np.stack([items.topic, items.second_topic], axis=1)  # [I, 2]
    is_given = np.stack([np.full(num_items, True), items.topic != items.second_topic], axis=1)
    offsets = np.concatenate([[0], np.cumsum(is_given.sum(axis=1))]).astype(np.int32)  # [I + 1]
    proxy = np.round(items.quality + 0.5 * rng.normal(size=num_items), 3)
    published = pa.array((START_S + items.published_s) * 1000, pa.timestamp("ms", tz="UTC"))
    return pa.table(
        {
            "item_id": _item_ids(num_items),
            "topic": pa.array(names[items.topic]),
            "topics": pa.ListArray.from_arrays(offsets, pa.array(names[pairs[is_given]])),
            "creator": pa.array(np.char.mod("c%04d", items.creator)),
            "published": published,
            "quality_proxy": pa.array(proxy, mask=rng.random(num_items) < 0.1),
        }
    )


def _affinity(users: _Users, items: _Items, *, user: Ints, item: Ints) -> Floats:
    """About standard normal: the taste for an item's topic, and a little for its second one."""
    second = users.taste[user, items.second_topic[item]]
    return np.asarray(0.85 * users.taste[user, items.topic[item]] + 0.5 * second)


def _attraction_logit(users: _Users, items: _Items, *, user: Ints, item: Ints) -> Floats:
    affinity = _affinity(users, items, user=user, item=item)
    return -1.5 + affinity + 0.3 * items.quality[item] + 0.7 * items.clickbait[item]


def _draw_arrivals(
    count: int, *, end_s: int, past_days: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Seconds since the start; `SHARE_PRESENT_AT_START` of them, rounded up, lie before it."""
    num_before = int(np.ceil(SHARE_PRESENT_AT_START * count))
    before = -rng.integers(1, past_days * DAY_S, size=num_before)
    later = rng.integers(0, end_s, size=count - num_before)
    return rng.permutation(np.concatenate([before, later]))


def _item_ids(num_items: int) -> pa.Array:
    return pa.array(np.char.mod("v%06d", np.arange(num_items)))
