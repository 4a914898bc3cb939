"""What a log looks like, in a few statistics: what a world can be fitted to (`calibrate`).

Read in one pass; kept are sums by task, position and item, and who came when.

Shapes: ``N`` rows of a part, ``P`` positions, ``W`` bins of watch time.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ranker.config import Config
from ranker.experiment.world.log_rows import WORLD_TASKS, LogRows
from ranker.experiment.world.randomness import FloatArray

MAX_POSITIONS = 100
MIN_ITEM_CLICKS = 5
WATCH_QUANTILES = (0.1, 0.5, 0.9)
# Bins 1.6 % wide, from 10 ms to a day and more.
_WATCH_EDGES = np.logspace(-2, 5, 1_001)


class VisitSummary(Config):
    """Who comes, and how often; None: the log is too short to tell.

    Attributes:
        requests_per_active_day: of users on days on which they came.
        request_variance: of that between users, the chance of single days taken off.
        active_share: of the days of users who came at all.
        return_rate: share of active days followed by another.
        comeback_rate: share of users' days away followed by an active one.
    """

    requests_per_active_day: float
    request_variance: float | None
    active_share: float
    return_rate: float | None
    comeback_rate: float | None


class ItemSummary(Config):
    """How items differ, chance taken off; None: too few clicks or likes to tell.

    Attributes:
        click_spread: deviation of click rates between items, over their mean.
        correlation: over items, between click rate and likes per click.
    """

    click_spread: float | None
    correlation: float | None


class LogSummary(Config):
    """Statistics of a log; tasks that the log lacks are left out.

    Attributes:
        rates: mean label by task, over the rows where it is observed.
        observed: share of rows where it is.
        correlations: between the labels of two tasks ("click, like"), where both are observed.
        ctr_by_position: from the top; None without positions or clicks.
        watch_quantiles_s: at `WATCH_QUANTILES`, of the times above 0; None where there are none.
    """

    num_impressions: int
    num_users: int
    num_items: int
    num_days: int
    impressions_per_request: float
    visits: VisitSummary
    items: ItemSummary
    rates: dict[str, float]
    observed: dict[str, float]
    correlations: dict[str, float]
    ctr_by_position: tuple[float, ...] | None
    watch_quantiles_s: tuple[float, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Moments:
    """Sums over the rows where two labels are observed."""

    count: float
    first: float
    second: float
    first_squared: float
    second_squared: float
    product: float

    def plus(self, other: _Moments) -> _Moments:
        return _Moments(
            count=self.count + other.count,
            first=self.first + other.first,
            second=self.second + other.second,
            first_squared=self.first_squared + other.first_squared,
            second_squared=self.second_squared + other.second_squared,
            product=self.product + other.product,
        )

    def correlation(self) -> float | None:
        covariance = self.product * self.count - self.first * self.second
        first = self.first_squared * self.count - self.first**2
        second = self.second_squared * self.count - self.second**2
        return covariance / float(np.sqrt(first * second)) if min(first, second) > 0 else None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Part:
    """Sums over some rows.

    Attributes:
        visits: columns user, day, request; each once.
        items: by item: shown, clicks, likes.
        positions: rows, and clicks, by position, [2, MAX_POSITIONS].
        watch: times above 0 by bin, [W].
    """

    num_rows: int
    visits: pd.DataFrame
    items: pd.DataFrame
    positions: FloatArray
    moments: Mapping[tuple[str, str], _Moments]
    watch: FloatArray


def summarise(parts: Iterable[LogRows]) -> LogSummary:
    """Summarise a log given in parts of any size, all with the same labels.

    Raises:
        ValueError: no rows.
    """
    sums = [_reduce(rows) for rows in parts if len(rows.users)]
    if not sums:
        raise ValueError("log summary: expected at least one impression, got none")
    visits = pd.concat([part.visits for part in sums], ignore_index=True).drop_duplicates()
    items = pd.concat([part.items for part in sums]).groupby(level=0).sum()
    moments = dict(sums[0].moments)
    for part in sums[1:]:
        moments = {pair: moments[pair].plus(part.moments[pair]) for pair in moments}
    num_rows = sum(part.num_rows for part in sums)
    alone = {first: one for (first, second), one in moments.items() if first == second}
    pairs = {f"{a}, {b}": one.correlation() for (a, b), one in moments.items() if a != b}
    return LogSummary(
        num_impressions=num_rows,
        num_users=visits["user"].nunique(),
        num_items=len(items),
        num_days=int(visits["day"].max() - visits["day"].min()) + 1,
        impressions_per_request=num_rows / len(visits),
        visits=_summarise_visits(visits),
        items=_summarise_items(items),
        rates={task: one.first / one.count for task, one in alone.items() if one.count},
        observed={task: one.count / num_rows for task, one in alone.items()},
        correlations={pair: value for pair, value in pairs.items() if value is not None},
        ctr_by_position=_ctr_by_position(np.sum([part.positions for part in sums], axis=0)),
        watch_quantiles_s=_watch_quantiles(np.sum([part.watch for part in sums], axis=0)),
    )


def _reduce(rows: LogRows) -> _Part:
    visits = pd.DataFrame({"user": rows.users, "day": rows.days, "request": rows.requests})
    num_rows = len(rows.users)
    click = np.nan_to_num(rows.labels.get("click", np.zeros(num_rows)))
    like = np.nan_to_num(rows.labels.get("like", np.zeros(num_rows)))
    by_item = pd.DataFrame({"shown": 1.0, "clicks": click, "likes": click * like}, index=rows.items)
    known = (rows.positions >= 0) & (rows.positions < MAX_POSITIONS)
    places = rows.positions[known]
    watch = rows.labels.get("watch_time_s", np.empty(0))
    tasks = [task for task in WORLD_TASKS if task in rows.labels]
    shown_and_clicked = [
        np.bincount(places, weights=weights, minlength=MAX_POSITIONS)
        for weights in (np.ones(len(places)), click[known])
    ]
    return _Part(
        num_rows=num_rows,
        visits=visits.drop_duplicates(),
        items=by_item.groupby(level=0).sum(),
        positions=np.stack(shown_and_clicked),
        moments={
            (first, second): _moments(rows.labels[first], rows.labels[second])
            for first, second in itertools.combinations_with_replacement(tasks, 2)
        },
        watch=np.histogram(watch[watch > 0], bins=_WATCH_EDGES)[0].astype(np.float64),
    )


def _moments(first: FloatArray, second: FloatArray) -> _Moments:
    both = np.isfinite(first) & np.isfinite(second)
    first, second = first[both], second[both]
    return _Moments(
        count=float(len(first)),
        first=float(first.sum()),
        second=float(second.sum()),
        first_squared=float(first @ first),
        second_squared=float(second @ second),
        product=float(first @ second),
    )


def _summarise_visits(visits: pd.DataFrame) -> VisitSummary:
    """Rates of a two-state chain, and a variance between users.

    For counts n of two days of one user, E[n n'] is the mean square of users' own means: over all
    pairs of days, Σ_u (total² − Σ n²) / Σ_u d (d − 1).
    """
    counts = visits.groupby(["user", "day"]).size()
    by_user = counts.groupby(level="user").agg(["size", "sum"])
    days, totals = by_user["size"].to_numpy(), by_user["sum"].to_numpy()
    pairs = float((days * (days - 1)).sum())
    squares = float((totals**2).sum() - (counts.to_numpy() ** 2).sum())
    mean = float(counts.mean())
    # The mean with the weights of the pairs: who comes often counts more in both.
    pair_mean = float(((days - 1) * totals).sum()) / pairs if pairs else mean

    day = counts.index.get_level_values("day").to_numpy()
    first, last = int(day.min()), int(day.max())
    follow = counts.index.isin(
        pd.MultiIndex.from_arrays([counts.index.get_level_values("user"), day - 1])
    ).sum()
    leaving, arriving = int((day < last).sum()), int((day > first).sum())
    away = len(by_user) * (last - first) - leaving
    return VisitSummary(
        requests_per_active_day=mean,
        request_variance=max(squares / pairs - pair_mean**2, 0.0) if pairs else None,
        active_share=len(counts) / (len(by_user) * (last - first + 1)),
        return_rate=float(follow) / leaving if leaving else None,
        comeback_rate=(arriving - float(follow)) / away if away else None,
    )


def _summarise_items(items: pd.DataFrame) -> ItemSummary:
    """Spread and correlation between items, weighted by clicks.

    From each variance between items what chance alone makes is taken off: p (1 − p) / n of a rate
    p of n trials.
    """
    enough = items[items["clicks"] >= MIN_ITEM_CLICKS]
    shown, clicks, likes = (enough[name].to_numpy() for name in ("shown", "clicks", "likes"))
    if len(enough) < 2:
        return ItemSummary(click_spread=None, correlation=None)
    click_rate, like_rate = clicks / shown, likes / clicks
    mean_click, mean_like = np.average(click_rate, weights=clicks), likes.sum() / clicks.sum()
    click_error, like_error = click_rate - mean_click, like_rate - mean_like
    click_variance = np.average(
        click_error**2 - click_rate * (1 - click_rate) / shown, weights=clicks
    )
    like_variance = np.average(like_error**2 - mean_like * (1 - mean_like) / clicks, weights=clicks)
    if click_variance <= 0:
        return ItemSummary(click_spread=None, correlation=None)
    correlation = None
    if like_variance > 0:
        covariance = np.average(click_error * like_error, weights=clicks)
        correlation = float(np.clip(covariance / np.sqrt(click_variance * like_variance), -1, 1))
    return ItemSummary(
        click_spread=float(np.sqrt(click_variance) / mean_click), correlation=correlation
    )


def _ctr_by_position(sums: FloatArray) -> tuple[float, ...] | None:
    shown, clicks = sums
    num_positions = int(np.argmin(np.append(shown, 0.0) > 0))  # up to the first that never occurs
    if num_positions == 0 or clicks.sum() == 0:
        return None
    return tuple((clicks[:num_positions] / shown[:num_positions]).tolist())


def _watch_quantiles(counts: FloatArray) -> tuple[float, ...] | None:
    total = counts.sum()
    if total == 0:
        return None
    shares = np.concatenate([[0.0], np.cumsum(counts) / total])
    logs = np.interp(WATCH_QUANTILES, shares, np.log(_WATCH_EDGES))
    return tuple(np.exp(logs).tolist())
