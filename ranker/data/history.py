"""Point-in-time features: what was known of user, item and pair when a row's request was made.

A row at time t sees exactly the feedback with ``visible_ms < t``: rows with equal time stamps never
see each other, and changing any later row leaves every earlier feature bit-identical.

Everything is a whole-column operation on vocabulary indices: events and queries are sorted
together once for each counter, and running sums are read off at the queries' places.
N queries, M events, L sequence length, T counted tasks.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from ranker.data.history_state import (
    FIXED_POINT,
    UNKNOWN_TIME_MS,
    Counts,
    Events,
    FloatArray,
    HistoryState,
    IntArray,
    concat_events,
    counter_key,
)
from ranker.data.parallel import map_columns
from ranker.schema import CounterSpec, HistorySpec, Schema

_RECENT = ("history_", "query_")  # how the features of the last watched items are called


@dataclass(frozen=True, slots=True, kw_only=True)
class Queries:
    """N moments at which features are asked for; ``index`` maps a vocabulary to [N] indices."""

    time_ms: IntArray
    index: Mapping[str, IntArray]


def compute_features(
    state: HistoryState,
    queries: Queries,
    new_events: Events | None,
    schema: Schema,
    *,
    only: Collection[str] | None = None,
) -> dict[str, FloatArray | IntArray]:
    """Compute every feature of `Schema.history_features` for N queries (none without a history).

    Args:
        state: what was folded in before; its ``as_of_ms`` must not exceed any query's time.
        queries: moments, users and items. They need not be events themselves.
        new_events: events after the state (usually the queries' own rows), visible by their times.
        only: just these features; ``queries`` then needs the indices that `counted_features` names.

    Returns:
        Name -> [N] (or [N, L] for sequences). Numeric features are transformed (log1p counts,
        log odds or log1p of smoothed means) but not standardised; NaN = null.
    """
    if schema.history is None:
        return {}
    events = state.pending if new_events is None else concat_events(state.pending, new_events)
    wanted = {f.name for f in schema.history_features}
    wanted = wanted if only is None else wanted.intersection(only)
    features = _count_features(state, queries, events, schema, wanted)
    if any(name.startswith(_RECENT) for name in wanted):
        features |= _recent_features(state, queries, events, schema, wanted)
    return {name: values for name, values in features.items() if name in wanted}


def counter_features(counter: CounterSpec, history: HistorySpec) -> list[str]:
    """The features that a counter gives: how many impressions, and the smoothed means."""
    return [f"{counter.name}_count", *(f"{counter.name}_{task}_rate" for task in history.rates)]


def counted_features(names: Collection[str], schema: Schema) -> set[str]:
    """The declared features whose indices computing the features in ``names`` takes."""
    if schema.history is None:
        return set()
    read = {name for name in schema.history.keys if f"query_same_{name}" in names}
    for counter in schema.counters:
        if not set(names).isdisjoint(counter_features(counter, schema.history)):
            read |= {n for n, v in schema.counted_vocabularies.items() if v in counter.parts}
    return read


@dataclass(frozen=True, slots=True, kw_only=True)
class _Visible:
    """For each query, the span ``start:stop`` of its key's visible events in ``order``."""

    order: IntArray
    start: IntArray
    stop: IntArray


def _visible_spans(
    query_key: IntArray, query_ms: IntArray, event_key: IntArray, event_ms: IntArray
) -> _Visible:
    """Events sorted by (key, visibility), and how far each query can see in its key."""
    num_queries, num_events = len(query_key), len(event_key)
    key = np.concatenate([query_key, event_key])
    moment = np.concatenate([query_ms, event_ms])
    is_event = np.concatenate([np.zeros(num_queries, np.int8), np.ones(num_events, np.int8)])
    # At equal moments the query comes first: it does not see the event. Sorting is stable.
    merged = np.lexsort((is_event, moment, key))
    event_flag = is_event[merged]
    events_before = np.cumsum(event_flag) - event_flag
    stop = np.empty(num_queries, dtype=np.int64)
    at_query = merged < num_queries
    stop[merged[at_query]] = events_before[at_query]
    order = merged[~at_query] - num_queries
    start = np.searchsorted(event_key[order], query_key, side="left")
    return _Visible(order=order, start=start.astype(np.int64), stop=stop)


def _counted_at(
    counts: Counts, query_key: IntArray, query_ms: IntArray, events: Events, event_key: IntArray
) -> tuple[IntArray, IntArray, IntArray]:
    """Impressions [N], label sums [N, T] and observed labels [N, T] visible to each query."""
    spans = _visible_spans(query_key, query_ms, event_key, events.visible_ms)
    impressions = spans.stop - spans.start
    sums = _span_sums(events.sums, spans)
    observed = _span_sums(events.observed, spans)
    if len(counts.keys):
        slot = np.minimum(np.searchsorted(counts.keys, query_key), len(counts.keys) - 1)
        found = counts.keys[slot] == query_key
        impressions = impressions + np.where(found, counts.impressions[slot], 0)
        sums = sums + np.where(found[:, None], counts.sums[slot], 0)
        observed = observed + np.where(found[:, None], counts.observed[slot], 0)
    unknown = query_key == 0
    impressions[unknown] = 0
    sums[unknown] = 0
    observed[unknown] = 0
    return impressions, sums, observed


def _span_sums(rows: IntArray, spans: _Visible) -> IntArray:
    running = np.zeros((len(rows) + 1, rows.shape[1]), dtype=np.int64)
    np.cumsum(rows[spans.order], axis=0, out=running[1:])
    return running[spans.stop] - running[spans.start]


def _count_features(
    state: HistoryState, queries: Queries, events: Events, schema: Schema, wanted: set[str]
) -> dict[str, FloatArray | IntArray]:
    history = schema.history
    assert history is not None
    counters = [c for c in schema.counters if not wanted.isdisjoint(counter_features(c, history))]
    if not counters:
        return {}
    ones = np.ones(len(queries.time_ms), dtype=np.int64)
    _, total_sums, total_observed = _counted_at(
        state.overall, ones, queries.time_ms, events, np.ones(events.num_rows, dtype=np.int64)
    )
    overall = _smoothed_mean(total_sums, total_observed, _neutral(schema), 1.0)  # [N, T]

    def of_counter(counter: CounterSpec) -> dict[str, FloatArray | IntArray]:
        impressions, sums, observed = _counted_at(
            state.counts[counter.name],
            counter_key(queries.index, counter),
            queries.time_ms,
            events,
            counter_key(events.index, counter),
        )
        mean = _smoothed_mean(sums, observed, overall, history.prior_strength)
        values = [np.log1p(impressions.astype(np.float64))]
        values += [link(mean[:, j], schema, name) for j, name in enumerate(history.rates)]
        return dict(zip(counter_features(counter, history), values, strict=True))

    by_counter = map_columns(of_counter, counters)
    return {name: values for features in by_counter for name, values in features.items()}


def link(mean: FloatArray, schema: Schema, task_name: str) -> FloatArray:
    """A smoothed mean as a feature: log odds (binary), log1p (``squared_log1p``) or as it is."""
    task = schema.task(task_name)
    if task.kind == "binary":
        clipped = np.clip(mean, 1e-6, 1 - 1e-6)
        return np.log(clipped / (1 - clipped))
    return np.log1p(mean) if task.loss == "squared_log1p" else mean


def _neutral(schema: Schema) -> FloatArray:
    """The overall mean before anything was seen: one imagined observation at 1/2 (or minimum)."""
    tasks = [schema.task(name) for name in schema.rates]
    return np.array([0.5 if task.kind == "binary" else task.minimum for task in tasks])[None, :]


def _smoothed_mean(
    sums: IntArray, observed: IntArray, prior: FloatArray, strength: float
) -> FloatArray:
    """(Σ labels + strength · prior) / (observed + strength)  # [N, T]."""
    mean: FloatArray = (sums / FIXED_POINT + strength * prior) / (observed + strength)
    return mean


def _recent_features(
    state: HistoryState, queries: Queries, events: Events, schema: Schema, wanted: set[str]
) -> dict[str, FloatArray | IntArray]:
    """Query item, its age and keys, and the user's last L watched items with their feedback.

    All of them but ``query_same_<key>``, which is made where it is wanted.
    """
    history = schema.history
    assert history is not None
    user = queries.index["user"]
    watched = events.take(events.watched & (events.index["user"] != 0))
    recent = concat_events(_of_users(state.recent, user), watched)
    spans = _visible_spans(user, queries.time_ms, recent.index["user"], recent.visible_ms)
    slots = spans.stop[:, None] - np.arange(history.length, 0, -1)[None, :]  # [N, L]
    inside = (slots >= spans.start[:, None]) & (user != 0)[:, None]
    safe = np.where(inside, slots, 0)

    def gather(values: IntArray) -> IntArray:
        if len(values) == 0:
            return np.zeros(safe.shape, dtype=np.int64)
        return np.where(inside, values[spans.order][safe], 0)

    items = gather(recent.index["item"])
    times = gather(recent.time_ms)[:, -1]
    has_query = inside[:, -1]
    known_age = has_query & (times != UNKNOWN_TIME_MS)
    age_s = np.where(known_age, (queries.time_ms - np.where(known_age, times, 0)) / 1000, np.nan)
    features: dict[str, FloatArray | IntArray] = {
        "history_item": items,
        "history_feedback": gather(recent.feedback),
        "query_item": items[:, -1],
        "query_item_age_s": np.log1p(age_s),
    }
    for name in history.keys:
        vocabulary = schema.counted_vocabularies[name]
        sequence = gather(recent.index[vocabulary])
        features[f"history_{name}"] = sequence
        features[f"query_{name}"] = sequence[:, -1]
        if f"query_same_{name}" in wanted:
            same = same_as_query(queries.index[vocabulary], sequence[:, -1])
            features[f"query_same_{name}"] = same
    return features


def same_as_query(candidate: IntArray, query: IntArray) -> FloatArray:
    """1 where an item has the query item's (known) key, as indices of one vocabulary [N]."""
    same: FloatArray = ((query == candidate) & (query != 0)).astype(np.float64)
    return same


def _of_users(recent: Events, users: IntArray) -> Events:
    """The events of ``users``; ``recent`` is ordered by user."""
    wanted = np.unique(users)
    first = np.searchsorted(recent.index["user"], wanted, side="left")
    num_rows = np.searchsorted(recent.index["user"], wanted, side="right") - first
    if int(num_rows.sum()) == recent.num_rows:
        return recent
    before = np.cumsum(num_rows) - num_rows
    rows = np.arange(int(num_rows.sum())) + np.repeat(first - before, num_rows)
    return recent.take(rows)
