"""`ranker verify --data --log`: the same raw rows on the training and the serving path."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from chain_run import TEST_START, Chain, run_ranker

from pipelines.skew import check_states, window_rows
from ranker.bundle import ModelBundle, load_bundle
from ranker.data.encode import Scale
from ranker.data.features import FeatureSource, OwnerTable
from ranker.data.parquet import DataError
from ranker.data.state import load_state, save_state
from ranker.data.store import EncodedStore
from ranker.scoring.skew import comparable_rows, served_columns, trained_columns


@pytest.fixture(scope="module")
def bundle(chain: Chain) -> ModelBundle:
    return load_bundle(chain.bundle)


@pytest.mark.parametrize("unit", ["s", "us"])
def test_files_may_differ_in_how_they_write_a_value(
    unit: str, chain: Chain, tmp_path: Path
) -> None:
    """As where `join` has added to a log that somebody else had begun."""
    log = pq.read_table(chain.raw.log)
    half, place = log.num_rows // 2, log.column_names.index("time_s")
    stamps = log.column("time_s").cast(pa.timestamp("s")).cast(pa.timestamp(unit, "UTC"))
    (tmp_path / "log").mkdir()
    pq.write_table(log.slice(0, half), tmp_path / "log" / "a.parquet")
    later = log.set_column(place, "time_s", stamps).slice(half)
    for name, kind in (("click", pa.bool_()), ("like", pa.float64())):
        later = later.set_column(log.column_names.index(name), name, later.column(name).cast(kind))
    devices = later.column("device").dictionary_encode()
    later = later.set_column(log.column_names.index("device"), "device", devices)
    pq.write_table(later, tmp_path / "log" / "b.parquet")
    words = ["--data", chain.data, "--log", tmp_path / "log", "--json"]
    ran = run_ranker("verify", chain.bundle, *words)
    assert (ran.code, ran.err) == (0, ""), ran.err
    (check,) = ran.json["skew"].values()
    for one in check["features"]:
        assert one["trained_sha256"] == one["served_sha256"]


def test_texts_may_be_views(chain: Chain, tmp_path: Path) -> None:
    log = pq.read_table(chain.raw.log)
    views = log.column("item_id").cast(pa.string_view())
    log = log.set_column(log.column_names.index("item_id"), "item_id", views)
    pq.write_table(log, tmp_path / "log.parquet")
    words = ["--data", chain.data, "--log", tmp_path / "log.parquet", "--json"]
    ran = run_ranker("verify", chain.bundle, *words)
    assert (ran.code, ran.err) == (0, ""), ran.err


def test_a_log_without_rows_is_a_sentence(chain: Chain, tmp_path: Path) -> None:
    pq.write_table(pq.read_table(chain.raw.log).slice(0, 0), tmp_path / "log.parquet")
    words = ["--data", chain.data, "--log", tmp_path / "log.parquet"]
    ran = run_ranker("verify", chain.bundle, *words)
    assert (ran.code, ran.out) == (3, "")
    assert "log.parquet: holds no rows; give the log that was prepared" in ran.err
    assert "Traceback" not in ran.err


@pytest.fixture
def source(chain: Chain) -> FeatureSource:
    """To be changed."""
    return load_state(chain.state)


def test_an_honest_pair_passes(chain: Chain) -> None:
    ran = run_ranker("verify", chain.bundle, "--data", chain.data, "--log", chain.raw.log, "--json")
    assert (ran.code, ran.err) == (0, "")
    (check,) = ran.json["skew"].values()
    store = EncodedStore(chain.data)
    (window,) = (w for w in store.windows if w.label == TEST_START)
    assert (check["window"], check["rows"]) == (TEST_START, window.num_rows)
    names = [feature.name for feature in store.schema.all_features]
    assert [one["feature"] for one in check["features"]] == names
    rows = {one["feature"]: one["rows"] for one in check["features"]}
    for feature in store.schema.features:
        assert rows[feature.name] == window.num_rows
    assert 0 < rows["item_click_rate"] < rows["topic_count"] < rows["user_count"] <= window.num_rows
    for one in check["features"]:
        assert one["trained_sha256"] == one["served_sha256"]
    # digests of the prepared column itself
    quality = np.asarray(store.column("feature.quality_proxy")[window.start : window.stop])
    digest = hashlib.sha256(np.ascontiguousarray(quality, dtype="<f4").tobytes()).hexdigest()
    assert digest in {one["trained_sha256"] for one in check["features"]}
    ran = run_ranker("verify", chain.bundle, "--data", chain.data, "--log", chain.raw.log)
    assert f"window {TEST_START}, {len(names)} features of {window.num_rows:,} rows" in ran.out
    assert "no difference" in ran.out


def test_the_order_of_the_log_and_duplicates_in_it_do_not_matter(
    chain: Chain, bundle: ModelBundle, tmp_path: Path
) -> None:
    log = pq.read_table(chain.raw.log)
    order = np.random.default_rng(3).permutation(np.repeat(np.arange(log.num_rows), 2))
    pq.write_table(log.take(pa.array(order)), tmp_path / "log.parquet")
    (check,) = check_states(bundle, chain.data, tmp_path / "log.parquet", [chain.state]).values()
    assert check.skewed == ()


def test_without_the_masks_the_window_itself_would_show(
    chain: Chain, bundle: ModelBundle, source: FeatureSource
) -> None:
    """Rows are left out for a reason, and no more of them than need be."""
    store = EncodedStore(chain.data)
    rows = window_rows(store, source, chain.raw.log, chain.state)
    trained = trained_columns(store, rows.start, rows.stop)
    served = served_columns(bundle, source, rows.candidates)
    comparable = comparable_rows(trained, rows.visible_ms, store.schema)
    time_ms, user = np.asarray(trained["time_ms"]), np.asarray(trained["user"])
    for feature in ("user_count", "topic_count", "item_click_rate"):
        name = f"feature.{feature}"
        left_out = ~comparable[feature]
        differs = np.asarray(trained[name]) != np.asarray(served[name], dtype=np.float32)
        assert differs[left_out].any()
        assert not differs[comparable[feature]].any()
    # row by row: has feedback of the user's earlier rows in the window become visible?
    seen = [
        bool(((user == user[row]) & (rows.visible_ms < time_ms[row])).any())
        for row in range(len(user))
    ]
    np.testing.assert_array_equal(comparable["user_count"], ~np.array(seen))
    np.testing.assert_array_equal(comparable["history_item"], ~np.array(seen))


def planted(source: FeatureSource, movers: list[int], folder: Path) -> Path:
    """The state as it would be with a user table in which some users have moved."""
    assert source.users is not None
    table = source.users.table
    country = table.column("feature.country")
    moved = pc.is_in(table.column("id"), pa.array(movers))
    places = pc.if_else(pc.equal(country, "AT"), "JP", "AT")
    assert {"AT", "JP"} <= set(country.to_pylist())
    at = table.column_names.index("feature.country")
    changed = table.set_column(at, "feature.country", pc.if_else(moved, places, country))
    source.users = OwnerTable(changed)
    save_state(folder, source)
    return folder


def test_a_user_table_changed_in_between_is_found(
    chain: Chain, source: FeatureSource, tmp_path: Path
) -> None:
    log = pq.read_table(chain.raw.log, columns=["user_id", "time_s"]).to_pandas()
    first_ms = source.history.as_of_ms
    day = log[(log.time_s * 1000 >= first_ms) & (log.time_s * 1000 < first_ms + 86_400_000)]
    movers = day.user_id.unique()[:2].tolist()
    state = planted(source, movers, tmp_path / "state")
    words = ["--data", chain.data, "--log", chain.raw.log, "--state", state]
    ran = run_ranker("verify", chain.bundle, *words, "--json")
    assert ran.code == 3
    assert ran.json["intact"] is False
    (problem,) = ran.json["problems"]
    assert "training–serving skew" in problem
    assert "feature 'country' differs in" in problem
    assert "trained on" in problem and "served" in problem
    (check,) = ran.json["skew"].values()
    (country,) = (one for one in check["features"] if one["feature"] == "country")
    assert country["differing"] == day.user_id.isin(movers).sum() > 0
    assert int(country["first"]["user"]) in movers
    assert country["first"]["trained"] != country["first"]["served"]
    assert "1 features DIFFER" in run_ranker("verify", chain.bundle, *words).out


def test_another_transform_is_found(
    chain: Chain, bundle: ModelBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A serving path that computes a feature otherwise than `prepare` did."""
    from ranker.data import features

    honest = features.numeric_values

    def careless(values: object, transform: str, time_ms: object) -> object:
        return honest(values, "none" if transform == "log1p" else transform, time_ms)  # type: ignore[arg-type]

    monkeypatch.setattr(features, "numeric_values", careless)
    (check,) = check_states(bundle, chain.data, chain.raw.log, [chain.state]).values()
    (skewed,) = check.skewed
    assert skewed.feature == "tenure_days"
    assert skewed.first is not None and skewed.first.trained != skewed.first.served


def test_counts_that_the_state_lost_are_found(
    chain: Chain, bundle: ModelBundle, source: FeatureSource, tmp_path: Path
) -> None:
    """Features of the past are compared, too."""
    counts = source.history.counts["creator"]
    more = counts.impressions + (counts.impressions > 3)
    source.history.counts["creator"] = replace(counts, impressions=more)
    save_state(tmp_path / "state", source)
    checks = check_states(bundle, chain.data, chain.raw.log, [tmp_path / "state"])
    skewed = {one.feature for check in checks.values() for one in check.skewed}
    assert skewed == {"creator_count"}


@pytest.mark.parametrize("what", ["schema", "scale"])
def test_a_state_of_another_schema_or_scale_is_refused(
    what: str, chain: Chain, bundle: ModelBundle, source: FeatureSource, tmp_path: Path
) -> None:
    if what == "schema":
        features = tuple(
            f.model_copy(update={"transform": "none"}) if f.name == "tenure_days" else f
            for f in source.schema.features
        )
        source.schema = source.schema.model_copy(update={"features": features})
    else:
        source.encoders.standardisers["tenure_days"] = Scale(mean=0.0, scale=2.0)
    save_state(tmp_path / "state", source)
    with pytest.raises(DataError, match=r"another schema|don't continue the bundle's"):
        check_states(bundle, chain.data, chain.raw.log, [tmp_path / "state"])


def test_mistakes_are_named(chain: Chain, tmp_path: Path) -> None:
    verify = ["verify", chain.bundle]
    ran = run_ranker(*verify, "--data", chain.data)
    assert (ran.code, "belong together" in ran.err) == (2, True)
    ran = run_ranker(*verify, "--state", chain.state)
    assert (ran.code, "--state needs --data" in ran.err) == (2, True)
    some = pq.read_table(chain.raw.log)
    pq.write_table(some.slice(0, some.num_rows - 900), tmp_path / "log.parquet")
    words = ["--data", chain.data, "--log", tmp_path / "log.parquet"]
    ran = run_ranker(*verify, *words)
    assert (ran.code, "give the log that was prepared" in ran.err) == (3, True)
    end = ["--state", chain.data / "state"]
    ran = run_ranker(*verify, "--data", chain.data, "--log", chain.raw.log, *end)
    assert (ran.code, "give a snapshot" in ran.err) == (3, True)
    (tmp_path / "none").mkdir()
    ran = run_ranker(*verify, "--data", tmp_path / "none", "--log", chain.raw.log)
    assert ran.code == 3
