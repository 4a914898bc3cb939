"""From a raw log to a report; what comes out is computed anew from the raw files."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pandas as pd
import pytest
from chain_run import NUM_CANDIDATES, TEST_START, Chain
from sklearn.metrics import roc_auc_score, root_mean_squared_error

from ranker.schema import Schema

KEYS = ["user_id", "item_id", "time_s"]
START_S = pd.Timestamp(TEST_START, tz="UTC").timestamp()


@pytest.fixture(scope="module")
def log(chain: Chain) -> pd.DataFrame:
    """The raw log, all of it."""
    return pd.read_parquet(chain.raw.log)


def test_every_command_prints_one_object(chain: Chain) -> None:
    assert list(chain.ran) == list(chain.commands)
    for name, ran in chain.ran.items():
        assert ran.json, name


def test_nothing_is_lost_on_the_way_in(chain: Chain, log: pd.DataFrame) -> None:
    by_day = pd.to_datetime(log["time_s"], unit="s").dt.strftime("%Y-%m-%d").value_counts()
    prepared = chain.ran["prepare"].json
    assert chain.ran["validate"].json["verdict"] == "clean"
    assert prepared["rows_read"] == prepared["rows_kept"] == len(log)
    assert prepared["rows_by_window"] == by_day.to_dict()
    trained = chain.ran["train"].json
    assert trained["rows_trained"] == int((log["time_s"] < START_S).sum())


def test_metrics_are_those_of_scikit_learn(chain: Chain, log: pd.DataFrame) -> None:
    metrics = json.loads((chain.run / "metrics.json").read_text())
    assert metrics == chain.ran["evaluate"].json
    test = log[log["time_s"] >= START_S]
    assert metrics["split"] == {"first": TEST_START, "last": "2024-03-17", "rows": len(test)}
    joined = test.merge(
        pd.read_parquet(chain.predictions), on=KEYS, suffixes=("", "_predicted"), validate="1:1"
    )
    assert len(joined) == len(test)
    for task, found in metrics["tasks"].items():
        label = joined[task].clip(upper=600 if task == "watch_time_s" else None)
        seen = label.notna()
        predicted = joined[f"{task}_predicted"]
        assert found["rows"] == int(seen.sum())
        if found["kind"] == "binary":
            assert found["positives"] == int(label.sum())
            expected = roc_auc_score(label[seen], predicted[seen])
            assert found["auc"]["value"] == pytest.approx(expected, abs=1e-9)
        else:
            expected = root_mean_squared_error(label[seen], predicted[seen])
            assert found["rmse"]["value"] == pytest.approx(expected, rel=1e-5)
    assert metrics["tasks"]["rating"]["rows"] < len(test) / 10, "a survey is rarely shown"


def test_metrics_have_the_promised_form(chain: Chain, synthetic_schema: Schema) -> None:
    metrics = chain.ran["evaluate"].json
    assert {"split", "seed", "tasks", "model", "train"} <= metrics.keys()
    assert list(metrics["tasks"]) == [task.name for task in synthetic_schema.tasks]
    for task in synthetic_schema.tasks:
        found = metrics["tasks"][task.name]
        assert (found["kind"], found["family"]) == (task.kind, task.family)
        for name, metric in found.items():
            if name in ("kind", "family", "rows", "positives"):
                continue
            assert {"value", "ci_low", "ci_high"} <= metric.keys(), name
            if metric["value"] is not None:
                assert metric["ci_low"] <= metric["value"] <= metric["ci_high"], (task.name, name)
    assert metrics["model"]["parameters"] > 0
    assert metrics["model"]["multiplications_per_example"] > 0
    assert metrics["train"]["rows"] == chain.ran["train"].json["rows_trained"]
    linear = metrics["differences"]["linear model"]["click"]["auc"]
    ours, theirs = metrics["tasks"]["click"], metrics["baselines"]["linear model"]["click"]
    assert linear["value"] == pytest.approx(ours["auc"]["value"] - theirs["auc"]["value"])
    assert sorted(metrics["progressive"]["click"]) == [f"2024-03-{d:02d}" for d in range(5, 14)]


def test_a_bundle_is_no_better_than_its_own_predictions(chain: Chain) -> None:
    compared = chain.ran["compare"].json
    assert compared["worse"] is False
    assert {c["task"] for c in compared["comparisons"]} == set(chain.ran["evaluate"].json["tasks"])
    for comparison in compared["comparisons"]:
        assert comparison["difference"]["value"] == 0
        assert comparison["verdict"] == "cannot tell"


def test_candidates_are_lists_of_known_items(chain: Chain, log: pd.DataFrame) -> None:
    candidates = pd.read_parquet(chain.candidates)
    test = log[log["time_s"] >= START_S].sort_values("time_s", kind="stable")
    day = test["time_s"] // 86_400
    first = test[~pd.DataFrame({"user": test["user_id"], "day": day}).duplicated()]
    summary = chain.ran["candidates"].json
    assert summary["requests"] == len(first)
    assert summary["requests_without_candidates"] == len(first) - candidates["request_id"].nunique()
    assert summary["candidates"] == len(candidates)
    # the request's own columns came along
    known = set(map(tuple, first[["request_id", "user_id", "time_s", "device"]].to_numpy()))
    got = candidates[["request_id", "user_id", "time_s", "device"]].drop_duplicates()
    assert set(map(tuple, got.to_numpy())) <= known
    assert not candidates.duplicated(["request_id", "item_id"]).any()
    assert candidates.groupby("request_id").size().max() == NUM_CANDIDATES
    seen_before = set(log.loc[log["time_s"] < START_S, "item_id"])
    assert set(candidates["item_id"]) <= seen_before
    proposed = candidates[["covisitation_rank", "popularity_rank"]].notna()
    assert proposed.any(axis=1).all()


def test_slates_are_the_best_candidates(chain: Chain, synthetic_schema: Schema) -> None:
    slates, candidates = pd.read_parquet(chain.slates), pd.read_parquet(chain.candidates)
    log_score = pd.Series(0.0, index=slates.index)
    for task in synthetic_schema.tasks:
        p = slates[f"prediction.{task.name}"]
        if task.kind == "binary":
            gain = (p if task.direction == "positive" else 1 - p) + 1e-6
        else:
            gain = 1 + p.clip(lower=0)
        log_score += task.score_weight * np.log(gain)
    assert np.allclose(slates["score"], np.exp(log_score), rtol=1e-9)
    sizes = candidates.groupby("request_id").size()
    assert (slates.groupby("request_id").size() == sizes.clip(upper=10)).all()
    for _, slate in slates.groupby("request_id"):
        assert slate["rank"].tolist() == list(range(1, len(slate) + 1))
        assert slate["score"].is_monotonic_decreasing
    pairs = slates[["request_id", "item_id"]].merge(candidates, how="left", indicator=True)
    assert (pairs["_merge"] == "both").all()


def test_slates_say_what_made_them(chain: Chain) -> None:
    manifest = json.loads((chain.slates / "_manifest.json").read_text())
    bundle = json.loads((chain.bundle / "manifest.json").read_text())
    (part,) = manifest["parts"]
    assert part["sha256"] == hashlib.sha256((chain.slates / part["name"]).read_bytes()).hexdigest()
    assert part["rows"] == len(pd.read_parquet(chain.slates))
    assert {file.name for file in chain.slates.iterdir()} == {"_manifest.json", part["name"]}
    assert manifest["bundle"] == bundle["files"]["weights.safetensors"]
    assert manifest["state_as_of_ms"] == START_S * 1000
    printed = chain.ran["score"].json
    assert printed.pop("run")["shards"] == 1
    assert manifest["summary"] == printed
    users = pd.read_parquet(chain.candidates)["user_id"]
    trained = pd.read_parquet(chain.raw.log).query("time_s < @START_S")["user_id"]
    unknown = chain.ran["score"].json["unknown_or_null_ids"]
    assert unknown["user_id"] == int((~users.isin(trained)).sum())


def test_the_simulation_splits_all_users(chain: Chain) -> None:
    found = chain.ran["simulate"].json
    assert found == json.loads((chain.run / "simulation.json").read_text())
    users = pd.read_parquet(chain.candidates)["user_id"].unique()
    units = [hashlib.sha256(f"simulate:{user}".encode()).digest()[:8] for user in users]
    treated = sum(int.from_bytes(unit, "big") < 2**63 for unit in units)
    assert [lift["metric"] for lift in found["lifts"]] == ["click", "rating"]
    for lift in found["lifts"]:
        assert lift["num_users_treatment"] == treated
        assert lift["num_users_control"] == len(users) - treated
    # the treatment's slates are the control's own
    assert found["slate_overlap"] == 1
    for lift in found["expected_lifts"]:
        assert lift["lift"] == pytest.approx(0, abs=1e-12)


def test_the_report_shows_the_run(chain: Chain) -> None:
    page = (chain.run / "report.html").read_text(encoding="utf-8")
    assert "the chain" in page
    assert "semi-synthetic" in page.lower()
    item = pd.read_parquet(chain.slates)["item_id"].iloc[0]
    assert item in page


def test_the_bundle_is_intact(chain: Chain) -> None:
    verified = chain.ran["verify"].json
    assert verified["intact"] is True
    assert set(verified["golden_difference"]["plain"]) == set(chain.ran["evaluate"].json["tasks"])
    assert verified["golden_rows"] > 0
