"""Point-in-time features: what was known of user, item and pair when a row's request was made.

A row's feedback becomes visible at time + watch time + reporting delay (``visible_ms``). A row at
time t sees exactly the feedback with ``visible_ms < t``: rows with equal time stamps never see each
other, and changing any later row leaves every earlier feature bit-identical. Sums are kept as
integers (fixed point), so that no result depends on how the log was cut into chunks.

Everything is a whole-column operation on vocabulary indices: events and queries are sorted
together once for each counter, and running sums are read off at the queries' places.
N queries, M events, L sequence length, T counted tasks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from ranker.schema import EVERY_IMPRESSION, CounterSpec, Schema

UNKNOWN_TIME_MS = np.iinfo(np.int64).min
FIXED_POINT = 2**20  # regression labels are summed as integers of this resolution
KEY_SHIFT = 32
IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Queries:
    """N moments at which features are asked for; ``index`` maps a vocabulary to [N] indices."""

    time_ms: IntArray
    index: Mapping[str, IntArray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """M impressions with their feedback, which becomes visible at ``visible_ms``.

    ``sums`` [M, T] holds fixed-point labels (0 where not observed), ``observed`` [M, T] 0 or 1.
    ``time_ms`` is `UNKNOWN_TIME_MS` for earlier history without times.
    """

    time_ms: IntArray
    visible_ms: IntArray
    index: Mapping[str, IntArray]
    sums: IntArray
    observed: IntArray
    feedback: IntArray
    watched: npt.NDArray[np.bool_]

    @property
    def num_rows(self) -> int:
        """M."""
        return len(self.time_ms)

    def take(self, rows: npt.NDArray[np.integer] | npt.NDArray[np.bool_]) -> Events:
        """The events at ``rows``, in that order."""
        return Events(
            time_ms=self.time_ms[rows],
            visible_ms=self.visible_ms[rows],
            index={name: values[rows] for name, values in self.index.items()},
            sums=self.sums[rows],
            observed=self.observed[rows],
            feedback=self.feedback[rows],
            watched=self.watched[rows],
        )


def concat_events(first: Events, second: Events) -> Events:
    """Both one after the other."""
    columns = {
        name: np.concatenate([getattr(first, name), getattr(second, name)])
        for name in (f.name for f in fields(Events))
        if name != "index"
    }
    index = {n: np.concatenate([first.index[n], second.index[n]]) for n in first.index}
    return Events(index=index, **columns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Impressions, observed labels and label sums by key; ``keys`` ascend."""

    keys: IntArray
    impressions: IntArray
    sums: IntArray
    observed: IntArray

    @classmethod
    def empty(cls, num_tasks: int) -> Counts:
        """No key yet."""
        none = np.zeros(0, dtype=np.int64)
        table = np.zeros((0, num_tasks), dtype=np.int64)
        return cls(keys=none, impressions=none, sums=table, observed=table)

    def add(self, keys: IntArray, sums: IntArray, observed: IntArray) -> Counts:
        """Fold in one event a row; key 0 (unknown) is not counted."""
        known = keys != 0
        ones = np.ones(int(known.sum()), dtype=np.int64)
        all_keys = np.concatenate([self.keys, keys[known]])
        unique, inverse = np.unique(all_keys, return_inverse=True)
        impressions = np.zeros(len(unique), dtype=np.int64)
        np.add.at(impressions, inverse, np.concatenate([self.impressions, ones]))
        return Counts(
            keys=unique,
            impressions=impressions,
            sums=_sum_by(inverse, np.concatenate([self.sums, sums[known]]), len(unique)),
            observed=_sum_by(
                inverse, np.concatenate([self.observed, observed[known]]), len(unique)
            ),
        )


@dataclass(slots=True, kw_only=True)
class HistoryState:
    """All that features may know at ``as_of_ms``: counts, each user's last items, pending rows.

    ``recent`` holds the watched items whose feedback was visible, ordered by user and time of
    visibility; ``pending`` the rows whose feedback was not yet visible.
    """

    as_of_ms: int
    counts: dict[str, Counts]
    overall: Counts
    recent: Events
    pending: Events

    @classmethod
    def empty(cls, schema: Schema) -> HistoryState:
        """Nothing seen yet."""
        num_tasks = len(schema.history.rates)
        return cls(
            as_of_ms=UNKNOWN_TIME_MS,
            counts={counter.name: Counts.empty(num_tasks) for counter in schema.counters},
            overall=Counts.empty(num_tasks),
            recent=empty_events(schema),
            pending=empty_events(schema),
        )


def empty_events(schema: Schema) -> Events:
    """No rows."""
    none = np.zeros(0, dtype=np.int64)
    table = np.zeros((0, len(schema.history.rates)), dtype=np.int64)
    return Events(
        time_ms=none,
        visible_ms=none,
        index=dict.fromkeys(event_vocabularies(schema), none),
        sums=table,
        observed=table,
        feedback=none,
        watched=np.zeros(0, dtype=bool),
    )


def event_vocabularies(schema: Schema) -> tuple[str, ...]:
    """The vocabularies whose indices an event carries."""
    parts = [part for counter in schema.counters for part in counter.parts]
    return tuple(dict.fromkeys(["user", "item", *parts]))


def make_events(
    schema: Schema,
    *,
    time_ms: IntArray,
    visible_ms: IntArray,
    index: Mapping[str, IntArray],
    label_by_task: Mapping[str, FloatArray],
) -> Events:
    """Events from encoded rows; a NaN label is not observed."""
    history = schema.history
    num_rows = len(time_ms)
    sums = np.zeros((num_rows, len(history.rates)), dtype=np.int64)
    observed = np.zeros_like(sums)
    for column, task in enumerate(history.rates):
        label = label_by_task[task]
        known = ~np.isnan(label)
        observed[:, column] = known
        sums[:, column] = np.rint(np.where(known, label, 0.0) * FIXED_POINT).astype(np.int64)
    feedback = np.ones(num_rows, dtype=np.int64)
    for bit, task in enumerate(history.feedback):
        feedback += (label_by_task[task] == 1).astype(np.int64) << bit
    if history.watched == EVERY_IMPRESSION:
        watched = np.ones(num_rows, dtype=bool)
    else:
        watched = label_by_task[history.watched] == 1
    return Events(
        time_ms=time_ms,
        visible_ms=visible_ms,
        index={name: index[name] for name in event_vocabularies(schema)},
        sums=sums,
        observed=observed,
        feedback=feedback,
        watched=watched,
    )


def compute_features(
    state: HistoryState, queries: Queries, new_events: Events | None, schema: Schema
) -> dict[str, FloatArray | IntArray]:
    """Compute every feature of `Schema.history_features` for N queries.

    Args:
        state: what was folded in before; its ``as_of_ms`` must not exceed any query's time.
        queries: moments, users and items. They need not be events themselves.
        new_events: events after the state (usually the queries' own rows), visible by their times.

    Returns:
        Name -> [N] (or [N, L] for sequences). Numeric features are transformed (log1p counts,
        log odds or log1p of smoothed means) but not standardised; NaN = null.
    """
    events = state.pending if new_events is None else concat_events(state.pending, new_events)
    features = _count_features(state, queries, events, schema)
    features |= _recent_features(state, queries, events, schema)
    return features


def advance(state: HistoryState, new_events: Events | None, until_ms: int, schema: Schema) -> None:
    """Fold in all feedback visible before ``until_ms``; the rest stays pending."""
    events = state.pending if new_events is None else concat_events(state.pending, new_events)
    visible = events.visible_ms < until_ms
    folded = events.take(visible)
    for counter in schema.counters:
        keys = _key(folded.index, counter)
        state.counts[counter.name] = state.counts[counter.name].add(
            keys, folded.sums, folded.observed
        )
    everywhere = np.ones(folded.num_rows, dtype=np.int64)
    state.overall = state.overall.add(everywhere, folded.sums, folded.observed)
    watched = folded.take(folded.watched & (folded.index["user"] != 0))
    state.recent = _last_by_user(concat_events(state.recent, watched), schema.history.kept)
    state.pending = events.take(~visible)
    state.as_of_ms = until_ms


def _key(index: Mapping[str, IntArray], counter: CounterSpec) -> IntArray:
    """One int64 for the counter's parts; 0 if any part is unknown."""
    first, *rest = (index[part] for part in counter.parts)
    key, known = first, first != 0
    for part in rest:
        key = (key << KEY_SHIFT) | part
        known = known & (part != 0)
    return np.where(known, key, 0)


def _sum_by(group: IntArray, rows: IntArray, num_groups: int) -> IntArray:
    total = np.zeros((num_groups, rows.shape[1]), dtype=np.int64)
    np.add.at(total, group, rows)
    return total


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
    state: HistoryState, queries: Queries, events: Events, schema: Schema
) -> dict[str, FloatArray | IntArray]:
    ones = np.ones(len(queries.time_ms), dtype=np.int64)
    _, total_sums, total_observed = _counted_at(
        state.overall, ones, queries.time_ms, events, np.ones(events.num_rows, dtype=np.int64)
    )
    overall = _smoothed_mean(total_sums, total_observed, _neutral(schema), 1.0)  # [N, T]
    features: dict[str, FloatArray | IntArray] = {}
    for counter in schema.counters:
        impressions, sums, observed = _counted_at(
            state.counts[counter.name],
            _key(queries.index, counter),
            queries.time_ms,
            events,
            _key(events.index, counter),
        )
        features[f"{counter.name}_count"] = np.log1p(impressions.astype(np.float64))
        mean = _smoothed_mean(sums, observed, overall, schema.history.prior_strength)
        for column, name in enumerate(schema.history.rates):
            features[f"{counter.name}_{name}_rate"] = link(mean[:, column], schema, name)
    return features


def link(mean: FloatArray, schema: Schema, task_name: str) -> FloatArray:
    """A smoothed mean as a feature: log odds (binary), log1p (``squared_log1p``) or as it is."""
    task = schema.task(task_name)
    if task.kind == "binary":
        clipped = np.clip(mean, 1e-6, 1 - 1e-6)
        return np.log(clipped / (1 - clipped))
    return np.log1p(mean) if task.loss == "squared_log1p" else mean


def _neutral(schema: Schema) -> FloatArray:
    """The overall mean before anything was seen: one imagined observation at 1/2 (or minimum)."""
    tasks = [schema.task(name) for name in schema.history.rates]
    return np.array([0.5 if task.kind == "binary" else task.minimum for task in tasks])[None, :]


def _smoothed_mean(
    sums: IntArray, observed: IntArray, prior: FloatArray, strength: float
) -> FloatArray:
    """(Σ labels + strength · prior) / (observed + strength)  # [N, T]."""
    mean: FloatArray = (sums / FIXED_POINT + strength * prior) / (observed + strength)
    return mean


def _recent_features(
    state: HistoryState, queries: Queries, events: Events, schema: Schema
) -> dict[str, FloatArray | IntArray]:
    """Query item, its age and keys, and the user's last L watched items with their feedback."""
    history = schema.history
    watched = events.take(events.watched & (events.index["user"] != 0))
    recent = concat_events(state.recent, watched)
    user = queries.index["user"]
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
        vocabulary = schema.vocabulary_of(schema.feature(name))
        sequence = gather(recent.index[vocabulary])
        features[f"history_{name}"] = sequence
        features[f"query_{name}"] = sequence[:, -1]
        same = (sequence[:, -1] == queries.index[vocabulary]) & (sequence[:, -1] != 0)
        features[f"query_same_{name}"] = same.astype(np.float64)
    return features


def _last_by_user(events: Events, kept: int) -> Events:
    order = np.lexsort((events.visible_ms, events.index["user"]))
    user = events.index["user"][order]
    stop = np.searchsorted(user, user, side="right")
    return events.take(order[stop - np.arange(len(user)) <= kept])
