"""Ages and capped values of candidates, against the raw item table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from ranker.config import ConfigError, parse_config
from ranker.data.features import FeatureSource
from ranker.data.state import load_state
from ranker.data.synthetic import SyntheticLog
from ranker.scoring.slates.candidate_lists import SlateCandidates
from ranker.scoring.slates.slate_candidates import item_hashes, request_hashes, slate_candidates
from ranker.scoring.slates.slate_config import SlateConfig

TIME_MS = 1_710_720_000_000  # 2024-03-18
HOUR_MS = 3_600_000


@pytest.fixture(scope="module")
def source(prepared_synthetic: Path) -> FeatureSource:
    return load_state(prepared_synthetic / "state")


def candidates(
    source: FeatureSource, items: list[Any], extra: dict[str, pa.Array] | None = None, **config: Any
) -> SlateCandidates:
    count = len(items)
    canonical = pa.table(
        {
            "user": pa.array([4] * count),
            "item": pa.array(items),
            "request": pa.array([f"r{place // 3}" for place in range(count)]),
            "time_ms": pa.array([TIME_MS] * count),
        }
    )
    raw = pa.table({"item_id": pa.array(items), **(extra or {})})
    codes = np.arange(count) // 3
    chosen = parse_config(SlateConfig, config, source="test")
    return slate_candidates(raw, canonical, codes, source=source, config=chosen)


def test_equal_creators_have_equal_codes(
    source: FeatureSource, synthetic_log: SyntheticLog
) -> None:
    table = pd.read_parquet(synthetic_log.items).set_index("item_id")["creator"]
    items = [*table.index[:31].tolist(), "v999999"]  # the last has no row in the item table
    found = candidates(source, items, max_per={"creator": 2})
    creator = table.reindex(items)
    codes = found.cap_codes["creator"]
    assert codes[-1] == -1
    pairs = set(zip(creator[:-1], codes[:-1].tolist(), strict=True))
    assert len(pairs) == creator[:-1].nunique() == len(set(codes[:-1].tolist())) > 3
    assert found.may_be_shown is None
    assert found.request_hash is None


def test_a_column_of_the_candidates_can_be_capped(source: FeatureSource) -> None:
    brand = pa.array(["x", None, "y", "x", "y"])
    price = pa.array([1.5, np.nan, 1.5, 2.5, None])
    found = candidates(
        source, [*range(5)], {"brand": brand, "price": price}, max_per={"brand": 1, "price": 1}
    )
    assert found.cap_codes["brand"].tolist() == [0, -1, 1, 0, 1]
    assert found.cap_codes["price"].tolist() == [0, -1, 0, 1, -1]


@pytest.mark.parametrize(("unknown", "last"), [("hide", False), ("show", True)])
def test_freshness_of_the_item_table(
    source: FeatureSource, synthetic_log: SyntheticLog, unknown: str, last: bool
) -> None:
    table = pd.read_parquet(synthetic_log.items).set_index("item_id")["published"]
    items = [*table.index[:40].tolist(), "v999999"]
    published = pd.to_datetime(table.reindex(items[:-1]), utc=True)
    age = pd.Timestamp(TIME_MS, unit="ms", tz="UTC") - published
    limit_h = float(age.median() / pd.Timedelta("1h"))
    for name in ("published_age_days", "published"):
        freshness = {"column": name, "max_age_hours": limit_h, "unknown": unknown}
        found = candidates(source, items, freshness=freshness)
        assert found.may_be_shown is not None
        expected = (age <= pd.Timedelta(hours=limit_h)).tolist()
        assert 5 < sum(expected) < 35
        assert found.may_be_shown.tolist() == [*expected, last]


def test_freshness_of_a_column_by_hand(source: FeatureSource) -> None:
    """Exactly as old as allowed, a millisecond more, not published yet, unknown."""
    ages_ms = [2 * HOUR_MS, 2 * HOUR_MS + 1, -HOUR_MS, None]
    stamps = [None if age is None else TIME_MS - age for age in ages_ms]
    freshness = {"column": "born", "max_age_hours": 2.0}
    times = pa.array(stamps, pa.timestamp("ms"))
    found = candidates(source, [1, 2, 3, 4], {"born": times}, freshness=freshness)
    assert found.may_be_shown is not None
    assert found.may_be_shown.tolist() == [True, False, True, False]
    # integers are in the log's unit, which is seconds here
    seconds = pa.array([TIME_MS // 1000 - 7200, TIME_MS // 1000 - 7201, 5, None], pa.int64())
    found = candidates(source, [1, 2, 3, 4], {"born": seconds}, freshness=freshness)
    assert found.may_be_shown is not None
    assert found.may_be_shown.tolist() == [True, False, False, False]
    dates = pa.array([19_800, 19_799, None, 1], pa.date32())  # 2024-03-18 is day 19,800
    found = candidates(source, [1, 2, 3, 4], {"born": dates}, freshness=freshness)
    assert found.may_be_shown is not None
    assert found.may_be_shown.tolist() == [True, False, False, False]


def test_hashes_follow_request_and_item(source: FeatureSource) -> None:
    found = candidates(source, [7, 8, 9, 7], exploration={"kind": "epsilon", "epsilon": 0.2})
    assert found.request_hash is not None and found.item_hash is not None
    assert len(set(found.request_hash[:3].tolist())) == 1
    assert found.request_hash[3] != found.request_hash[0]
    assert found.item_hash[0] == found.item_hash[3]
    assert len(set(found.item_hash.tolist())) == 3
    without = source.schema.model_copy(
        update={"log": source.schema.log.model_copy(update={"request": None})}
    )
    rows = pa.table({"user": [1, 1, 2], "time_ms": [5, 6, 5], "item": ["a", "b", "a"]})
    assert len(set(request_hashes(rows, without).tolist())) == 3
    assert item_hashes(rows)[0] == item_hashes(rows)[2]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"max_per": {"creatr": 1}}, r"'creatr' is no feature .* did you mean 'creator'"),
        ({"max_per": {"topics": 1}}, "'topics' is a sequence feature; a cap needs one value"),
        ({"max_per": {"item_id": 1}}, "is the item itself"),
        ({"max_per": {"tags": 1}}, r"column 'tags' holds list"),
        ({"freshness": {"column": "creator", "max_age_hours": 1}}, "'creator' is no time"),
        ({"freshness": {"column": "born", "max_age_hours": 1}}, "'born' is no feature"),
        ({"freshness": {"column": "name", "max_age_hours": 1}}, "holds string; it must hold"),
    ],
)
def test_what_cannot_be_constrained_is_refused(
    source: FeatureSource, config: dict[str, Any], message: str
) -> None:
    extra = {"tags": pa.array([[1], [2]]), "name": pa.array(["a", "b"])}
    with pytest.raises(ConfigError, match=message):
        candidates(source, [1, 2], extra, **config)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_per": {"creator": 0}}, "max_per.creator"),
        ({"exploration": {"kind": "plackett_luce"}}, "temperature"),
        ({"exploration": {"kind": "plackett_luce", "temperature": 0}}, "temperature"),
        ({"exploration": {"kind": "epsilon", "epsilon": 1.5}}, "epsilon"),
        ({"exploration": {"kind": "softmax"}}, "kind"),
        ({"freshness": {"column": "x", "max_age_hours": -1}}, "max_age_hours"),
        ({"size": 0}, "size"),
    ],
)
def test_wrong_configs_name_the_key(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(SlateConfig, values, source="test")
