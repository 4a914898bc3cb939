"""The past that point-in-time features are computed from: counts, last items, pending feedback.

A row's feedback becomes visible at time + watch time + reporting delay (``visible_ms``); until then
it is pending. Sums are kept as integers (fixed point), so that no result depends on how the log was
cut into chunks. M events, T counted tasks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from ranker.data.parallel import map_columns
from ranker.schema import EVERY_IMPRESSION, CounterSpec, Schema

UNKNOWN_TIME_MS = np.iinfo(np.int64).min
FIXED_POINT = 2**20  # regression labels are summed as integers of this resolution
KEY_SHIFT = 32
IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


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
        order = np.argsort(keys, kind="stable")
        order = order[np.searchsorted(keys, 1, sorter=order) :]
        if len(order) == 0:
            return self
        ordered = keys[order]
        starts = np.flatnonzero(np.diff(ordered, prepend=0))  # of each key's rows
        added = Counts(
            keys=ordered[starts],
            impressions=np.diff(starts, append=len(order)),
            sums=np.add.reduceat(sums[order], starts, axis=0),
            observed=np.add.reduceat(observed[order], starts, axis=0),
        )
        return self._merge(added)

    def _merge(self, added: Counts) -> Counts:
        place = np.searchsorted(self.keys, added.keys)
        known = np.zeros(len(place), dtype=bool)
        inside = place < len(self.keys)
        known[inside] = self.keys[place[inside]] == added.keys[inside]

        def merged(old: IntArray, new: IntArray) -> IntArray:
            total = old.copy()
            total[place[known]] += new[known]
            return np.insert(total, place[~known], new[~known], axis=0)

        return Counts(
            keys=np.insert(self.keys, place[~known], added.keys[~known]),
            impressions=merged(self.impressions, added.impressions),
            sums=merged(self.sums, added.sums),
            observed=merged(self.observed, added.observed),
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
        num_tasks = len(schema.rates)
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
    table = np.zeros((0, len(schema.rates)), dtype=np.int64)
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
    """Events from encoded rows; a NaN label is not observed. The schema must have a history."""
    history = schema.history
    assert history is not None
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


def advance(state: HistoryState, new_events: Events | None, until_ms: int, schema: Schema) -> None:
    """Fold in all feedback visible before ``until_ms``; the rest stays pending."""
    state.as_of_ms = until_ms
    if schema.history is None:
        return
    events = state.pending if new_events is None else concat_events(state.pending, new_events)
    visible = events.visible_ms < until_ms
    folded = events.take(visible)

    def counted(counter: CounterSpec) -> Counts:
        keys = counter_key(folded.index, counter)
        return state.counts[counter.name].add(keys, folded.sums, folded.observed)

    names = [counter.name for counter in schema.counters]
    state.counts = dict(zip(names, map_columns(counted, schema.counters), strict=True))
    everywhere = np.ones(folded.num_rows, dtype=np.int64)
    state.overall = state.overall.add(everywhere, folded.sums, folded.observed)
    # What is folded in now became visible later than all that was before.
    watched = folded.take(folded.watched & (folded.index["user"] != 0))
    watched = watched.take(np.lexsort((watched.visible_ms, watched.index["user"])))
    state.recent = _last_by_user(concat_events(state.recent, watched), schema.history.kept)
    state.pending = events.take(~visible)


def counter_key(index: Mapping[str, IntArray], counter: CounterSpec) -> IntArray:
    """One int64 for the counter's parts; 0 if any part is unknown."""
    first, *rest = (index[part] for part in counter.parts)
    key, known = first, first != 0
    for part in rest:
        key = (key << KEY_SHIFT) | part
        known = known & (part != 0)
    return np.where(known, key, 0)


def _last_by_user(events: Events, kept: int) -> Events:
    """Each user's last events; ``events`` hold the known ones by user, then all later ones."""
    order = np.argsort(events.index["user"], kind="stable")
    user = events.index["user"][order]
    starts = np.flatnonzero(np.diff(user, prepend=-1))
    num_rows = np.diff(starts, append=len(user))
    from_the_end = np.repeat(starts + num_rows, num_rows) - np.arange(len(user))
    return events.take(order[from_the_end <= kept])
