"""Point-in-time features against a slow, obvious implementation that loops over rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranker.data.history import Queries, compute_features
from ranker.data.history_state import (
    UNKNOWN_TIME_MS,
    Events,
    HistoryState,
    advance,
    make_events,
)
from ranker.schema import Schema

VOCABULARIES = ("user", "item", "topic", "place")
LABELS = ("click", "watch_time_s", "rating")
COUNTERS = {
    "user": ("user",),
    "item": ("item",),
    "topic": ("topic",),
    "place": ("place",),
    "user_x_topic": ("user", "topic"),
    "user_x_place": ("user", "place"),
}
Features = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Row:
    time_ms: int
    delay_ms: int
    index: tuple[int, int, int, int]  # user, item, topic, place; 0 = unknown
    labels: tuple[float | None, float | None, float | None]

    def of(self, vocabulary: str) -> int:
        return self.index[VOCABULARIES.index(vocabulary)]

    def label(self, task: str) -> float | None:
        return self.labels[LABELS.index(task)]


ROWS = st.lists(
    st.builds(
        Row,
        time_ms=st.integers(100, 112),
        delay_ms=st.sampled_from([0, 1, 4, 50]),
        index=st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 2), st.integers(0, 2)),
        labels=st.tuples(
            st.sampled_from([None, 0.0, 1.0, 1.0]),
            st.sampled_from([None, 0.0, 0.3, 7.1]),
            st.sampled_from([None, 1.0, 4.5]),
        ),
    ),
    min_size=1,
    max_size=14,
).map(lambda rows: sorted(rows, key=lambda row: row.time_ms))


def events_of(rows: Sequence[Row], schema: Schema) -> Events:
    return make_events(
        schema,
        time_ms=np.array([r.time_ms for r in rows], dtype=np.int64),
        visible_ms=np.array([r.time_ms + r.delay_ms for r in rows], dtype=np.int64),
        index=index_of(rows),
        label_by_task={t: np.array([r.label(t) for r in rows], dtype=np.float64) for t in LABELS},
    )


def index_of(rows: Sequence[Row]) -> dict[str, np.ndarray]:
    return {n: np.array([r.of(n) for r in rows], dtype=np.int64) for n in VOCABULARIES}


def queries_of(rows: Sequence[Row]) -> Queries:
    times = np.array([r.time_ms for r in rows], dtype=np.int64)
    return Queries(time_ms=times, index=index_of(rows))


def earlier_events(rows: Sequence[Row], schema: Schema) -> Events:
    """Without times, in the order of ``rows``."""
    events = events_of(rows, schema)
    return Events(
        time_ms=np.full(len(rows), UNKNOWN_TIME_MS),
        visible_ms=UNKNOWN_TIME_MS + 1 + np.arange(len(rows)),
        index=events.index,
        sums=events.sums,
        observed=events.observed,
        feedback=events.feedback,
        watched=events.watched,
    )


def in_chunks(rows: Sequence[Row], chunk_rows: int) -> list[list[Row]]:
    """Chunks of at least ``chunk_rows``, never parting rows with equal times."""
    chunks: list[list[Row]] = [[]]
    for row in rows:
        if len(chunks[-1]) >= chunk_rows and row.time_ms != chunks[-1][-1].time_ms:
            chunks.append([])
        chunks[-1].append(row)
    return chunks


def computed(
    rows: Sequence[Row], earlier: Sequence[Row], schema: Schema, chunk_rows: int
) -> Features:
    state = HistoryState.empty(schema)
    if earlier:
        advance(state, earlier_events(earlier, schema), 0, schema)
    parts = []
    for chunk in in_chunks(rows, chunk_rows):
        events = events_of(chunk, schema)
        parts.append(compute_features(state, queries_of(chunk), events, schema))
        advance(state, events, chunk[-1].time_ms + 1, schema)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def reference(
    row: Row, rows: Sequence[Row], earlier: Sequence[Row], *, length: int, watched_click: bool
) -> dict[str, object]:
    """The features of one row, written down from their definition."""
    seen = [r for r in rows if r.time_ms + r.delay_ms < row.time_ms]
    seen = [*earlier, *sorted(seen, key=lambda r: r.time_ms + r.delay_ms)]
    features: dict[str, object] = {}
    for name, parts in COUNTERS.items():
        known = all(row.of(p) for p in parts)
        same = [r for r in seen if known and all(r.of(p) == row.of(p) for p in parts)]
        features[f"{name}_count"] = math.log1p(len(same))
        for task, neutral in zip(LABELS, (0.5, 0.0, 1.0), strict=True):
            everywhere = [y for r in seen if (y := r.label(task)) is not None]
            overall = (sum(everywhere) + neutral) / (len(everywhere) + 1)
            labels = [y for r in same if (y := r.label(task)) is not None]
            mean = (sum(labels) + 20 * overall) / (len(labels) + 20)
            if task == "click":
                mean = min(max(mean, 1e-6), 1 - 1e-6)
                mean = math.log(mean / (1 - mean))
            elif task == "watch_time_s":
                mean = math.log1p(mean)
            features[f"{name}_{task}_rate"] = mean
    mine = [r for r in seen if row.of("user") and r.of("user") == row.of("user")]
    mine = [r for r in mine if not watched_click or r.label("click") == 1][-length:]
    empty = [0] * (length - len(mine))
    features["history_item"] = empty + [r.of("item") for r in mine]
    features["history_topic"] = empty + [r.of("topic") for r in mine]
    features["history_feedback"] = empty + [2 if r.label("click") == 1 else 1 for r in mine]
    last = mine[-1] if mine else None
    features["query_item"] = last.of("item") if last else 0
    features["query_topic"] = last.of("topic") if last else 0
    has_time = last is not None and not any(last is r for r in earlier)
    features["query_item_age_s"] = (
        math.log1p((row.time_ms - last.time_ms) / 1000) if last and has_time else math.nan
    )
    same_topic = last is not None and last.of("topic") == row.of("topic") != 0
    features["query_same_topic"] = float(same_topic)
    return features


@pytest.mark.parametrize("watched", ["every_impression", "click"])
@settings(max_examples=40, deadline=None)
@given(rows=ROWS, earlier=st.lists(ROWS.map(lambda r: r[0]), max_size=5))
def test_features_are_those_of_the_definition(
    watched: str, log_schema: Schema, rows: list[Row], earlier: list[Row]
) -> None:
    history = log_schema.history.model_copy(update={"watched": watched, "kept": 4})
    schema = Schema.model_validate(log_schema.model_dump() | {"history": history.model_dump()})
    whole = computed(rows, earlier, schema, len(rows))
    assert set(whole) == {f.name for f in schema.history_features}
    for place, row in enumerate(rows):
        expected = reference(row, rows, earlier, length=3, watched_click=watched == "click")
        assert set(expected) == set(whole)
        for name, value in expected.items():
            # labels are summed in units of 2 ** -20
            np.testing.assert_allclose(
                whole[name][place], value, rtol=1e-5, atol=1e-5, err_msg=name
            )
    for chunk_rows in (1, 2, 7):
        parts = computed(rows, earlier, schema, chunk_rows)
        for name, values in whole.items():
            assert parts[name].tobytes() == values.tobytes(), (name, chunk_rows)


def test_feedback_is_visible_after_watch_time_and_delay(log_schema: Schema) -> None:
    """Watched at 1,000 for 400 ms, reported 1,500 ms later: visible at 2,900, seen after it."""
    event = Row(time_ms=1000, delay_ms=400 + 1500, index=(5, 7, 2, 1), labels=(1.0, 0.4, None))
    moments = [1000, 1001, 2899, 2900, 2901]
    asked = [Row(time_ms=t, delay_ms=0, index=(5, 9, 2, 0), labels=(None,) * 3) for t in moments]
    state = HistoryState.empty(log_schema)
    features = compute_features(
        state, queries_of(asked), events_of([event], log_schema), log_schema
    )
    assert features["query_item"].tolist() == [0, 0, 0, 0, 7]
    np.testing.assert_allclose(features["user_count"], np.log1p([0, 0, 0, 0, 1]))
    np.testing.assert_allclose(features["query_item_age_s"][4], np.log1p(1.901))
    # (1 + 20 · overall) / 21 with overall = (1 + 1/2) / 2, as log odds
    mean = (1 + 20 * 0.75) / 21
    np.testing.assert_allclose(features["user_click_rate"][4], np.log(mean / (1 - mean)))


def test_unknown_ids_are_never_counted(log_schema: Schema) -> None:
    unknown = Row(time_ms=1000, delay_ms=0, index=(0, 0, 0, 0), labels=(1.0, 3.0, 5.0))
    state = HistoryState.empty(log_schema)
    advance(state, events_of([unknown] * 3, log_schema), 2000, log_schema)
    assert all(len(counts.keys) == 0 for counts in state.counts.values())
    assert state.recent.num_rows == 0
    assert state.overall.impressions.tolist() == [3]
    later = Row(time_ms=3000, delay_ms=0, index=(0, 0, 0, 0), labels=(None,) * 3)
    features = compute_features(state, queries_of([later]), None, log_schema)
    counts = [features[f"{name}_count"][0] for name in COUNTERS]
    assert counts == [0.0] * 6
    assert features["query_item"][0] == 0 and math.isnan(features["query_item_age_s"][0])


def test_state_keeps_so_many_items_of_each_user(log_schema: Schema) -> None:
    rows = [
        Row(time_ms=100 + k, delay_ms=0, index=(1 + k % 2, k + 1, 1, 1), labels=(1.0, 0.0, None))
        for k in range(22)
    ]
    state = HistoryState.empty(log_schema)
    advance(state, events_of(rows, log_schema), 500, log_schema)
    kept = log_schema.history.kept
    for user in (1, 2):
        items = state.recent.index["item"][state.recent.index["user"] == user]
        assert items.tolist() == [k + 1 for k in range(22) if 1 + k % 2 == user][-kept:]


def test_no_queries(log_schema: Schema) -> None:
    none = compute_features(HistoryState.empty(log_schema), queries_of([]), None, log_schema)
    assert none["history_item"].shape == (0, 3) and none["user_count"].shape == (0,)
