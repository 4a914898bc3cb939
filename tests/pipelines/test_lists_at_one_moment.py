"""A user's day as a list: it is ordered by one request, whatever happened to the user in it."""

from pathlib import Path

import numpy as np
import pytest
from chain_run import run_ranker

from pipelines.predicted_rows import predict_impressions, predict_lists
from ranker.bundle import load_bundle
from ranker.data.loader import read_batch
from ranker.data.prepare import Inputs, PrepareSettings, prepare
from ranker.data.store import EncodedStore
from ranker.data.synthetic import SyntheticLog
from ranker.evaluation.baseline_predictions import ITEM_RATE, USER_ITEM_RATE
from ranker.evaluation.list_moment import request_rows
from ranker.evaluation.rows import EvaluationRows, read_rows
from ranker.schema import Schema
from ranker.training.fit import train
from ranker.training.settings import TrainConfig

FIRST = "2024-03-14"


@pytest.fixture(scope="module")
def prepared_days(
    tmp_path_factory: pytest.TempPathFactory, synthetic_log: SyntheticLog, synthetic_schema: Schema
) -> Path:
    """The synthetic log, a list being a user's day."""
    folder = tmp_path_factory.mktemp("prepared-days")
    inputs = Inputs(log=synthetic_log.log, users=synthetic_log.users, items=synthetic_log.items)
    schema = synthetic_schema.model_copy(update={"list_by": "user_window"})
    prepare(inputs, schema, PrepareSettings(), folder)
    return folder


@pytest.fixture(scope="module")
def bundle_of_days(
    tmp_path_factory: pytest.TempPathFactory, prepared_days: Path, small_train_config: TrainConfig
) -> Path:
    folder = tmp_path_factory.mktemp("trained-days")
    config = small_train_config.model_copy(update={"before_window": FIRST})
    train(EncodedStore(prepared_days), config, folder)
    return folder / "bundle"


def judged(store: EncodedStore) -> EvaluationRows:
    return read_rows(store, store.windows_between(FIRST, None))


def test_the_request_is_that_of_the_users_first_impression_of_the_day(prepared_days: Path) -> None:
    store = EncodedStore(prepared_days)
    rows, found = judged(store), request_rows(store, judged(store))
    assert found is not None
    users, time_ms = store.column("user"), store.column("time_ms")
    windows = store.windows_between(FIRST, None)
    moved = 0
    for row in range(rows.start, rows.stop):
        start = next(window.start for window in windows if window.start <= row < window.stop)
        first = next(other for other in range(start, row + 1) if users[other] == users[row])
        same_moment = time_ms[first] == time_ms[row]
        assert found[row - rows.start] == (row if same_moment else first)
        moved += not same_moment
    assert moved > 100


def test_requests_have_one_moment(prepared_synthetic: Path, trained_synthetic: Path) -> None:
    store = EncodedStore(prepared_synthetic)
    assert request_rows(store, judged(store)) is None
    bundle = load_bundle(trained_synthetic / "bundle")
    of_lists = predict_lists(bundle, store, judged(store))
    for task, values in predict_impressions(bundle, store, judged(store)).items():
        np.testing.assert_array_equal(of_lists[task], values)


def test_what_a_list_is_ordered_by_knows_nothing_of_its_own_outcomes(
    prepared_days: Path, bundle_of_days: Path
) -> None:
    store, bundle = EncodedStore(prepared_days), load_bundle(bundle_of_days)
    rows = judged(store)
    requests = request_rows(store, rows)
    assert requests is not None
    of_lists, own = predict_lists(bundle, store, rows), predict_impressions(bundle, store, rows)
    at_the_start = requests == np.arange(rows.start, rows.stop)
    some = int(np.flatnonzero(~at_the_start)[0])
    candidate = read_batch(store, np.array([rows.start + some]), bundle.encoders.sizes)
    asked = read_batch(store, requests[[some]], bundle.encoders.sizes)
    owners = {feature.name: feature.owner for feature in store.schema.all_features}
    features = {
        name: (candidate if owners[name] in ("item", "pair") else asked).features[name]
        for name in owners
    }
    by_hand = bundle.model.predict(
        type(asked)(features=features, labels={}, position=asked.position)
    )
    raw = {task: values.detach().double().numpy() for task, values in by_hand.items()}
    for task, values in bundle.calibrators.apply_in_log_unit(raw).items():
        np.testing.assert_allclose(of_lists[task][some], values[0], rtol=1e-5)
        np.testing.assert_allclose(of_lists[task][at_the_start], own[task][at_the_start], rtol=1e-5)
        assert (of_lists[task][~at_the_start] != own[task][~at_the_start]).mean() > 0.9


def test_a_users_own_rate_orders_no_list(
    prepared_days: Path, bundle_of_days: Path, tmp_path: Path
) -> None:
    ran = run_ranker(
        *("evaluate", "--bundle", bundle_of_days, "--data", prepared_days),
        *("--from", FIRST, "--set", "num_replicates=20", "--output", tmp_path, "--json"),
        *("--run", bundle_of_days.parent),
    )
    assert ran.code == 0, ran.err
    for window in ran.json["progressive"]["click"].values():
        for metric in ("gauc", "ndcg@5"):
            assert window[metric]["value"] is None
            assert "not as one request" in window[metric]["reason"]
        assert window["auc"]["value"] is not None
    by_name = ran.json["baselines"]
    for task in ("click", "like"):
        both, item = by_name[USER_ITEM_RATE][task], by_name[ITEM_RATE][task]
        for metric in ("gauc", "ndcg@5"):
            assert both[metric]["value"] == pytest.approx(item[metric]["value"], abs=1e-12)
        assert both["auc"]["value"] != item["auc"]["value"]
