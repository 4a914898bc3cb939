import json

import make_data
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score
from truth import bayes_auc, draw_zipf

from ranker.schema import load_schema

NUM_ROWS = 40_007


@pytest.fixture(scope="module")
def log_a(tmp_path_factory):
    folder = tmp_path_factory.mktemp("a")
    make_data.write_log(make_data.workload_a(), folder, num_rows=NUM_ROWS, seed=3)
    return folder


def test_rates_and_best_auc_of_the_drawn_labels_are_the_wanted_ones(log_a):
    log, truth = pq.read_table(log_a / "log.parquet"), pq.read_table(log_a / "truth.parquet")
    for task, rate in (("engage", 0.30), ("satisfy", 0.04)):
        labels, known = log.column(task).to_numpy(), truth.column(task).to_numpy()
        # a Bernoulli mean of 40,000 rows; the pilot's and the log's few large ids differ a little
        assert labels.mean() == pytest.approx(rate, abs=4 * np.sqrt(rate / NUM_ROWS) + 0.01)
        positives = labels.sum()
        standard_error = np.sqrt(0.8 * 0.2 / positives)  # an upper bound (Birnbaum and Klose, 1957)
        assert roc_auc_score(labels, known) == pytest.approx(0.80, abs=3 * standard_error + 0.01)
        assert labels.mean() == pytest.approx(known.mean(), abs=4 * np.sqrt(rate / NUM_ROWS))


def test_rows_are_spread_over_ten_days_in_time_order(log_a):
    document = json.loads((log_a / "data.json").read_text())
    time_ms = pq.read_table(log_a / "log.parquet").column("time_ms").to_numpy()
    assert (np.diff(time_ms) > 0).all()
    per_day = np.bincount((time_ms - make_data.START_MS) // make_data.DAY_MS)
    assert len(per_day) == 10
    assert per_day.max() - per_day.min() <= 1
    before_test = (time_ms < document["test_from_ms"]).mean()
    before_validation = (time_ms < document["validation_from_ms"]).mean()
    assert (before_validation, before_test) == pytest.approx((0.8, 0.9), abs=1e-4)


def test_ids_are_whole_numbers_within_their_vocabularies(log_a):
    log = pq.read_table(log_a / "log.parquet")
    sizes = make_data.workload_a().vocabularies
    assert len(sizes) == 20
    assert (min(sizes.values()), max(sizes.values())) == (10, 200_000)
    for name, size in sizes.items():
        assert log.schema.field(name).type == pa.int64()
        ids = log.column(name).to_numpy()
        assert ids.min() >= 1
        assert ids.max() <= size


def test_the_truth_is_not_in_the_log_and_the_schema_names_its_columns(log_a):
    schema = load_schema(log_a / "schema.yaml")
    columns = set(pq.read_schema(log_a / "log.parquet").names)
    tasks = {task.label for task in schema.tasks}
    assert columns == {feature.column for feature in schema.features} | tasks | {"time_ms"}
    assert schema.history is None
    assert [feature.kind for feature in schema.features].count("numeric") == 10


def test_a_log_is_a_function_of_its_seed(tmp_path, monkeypatch):
    monkeypatch.setattr(make_data, "PILOT_ROWS", 3_001)
    logs = []
    for name, seed in (("first", 3), ("same", 3), ("other", 4)):
        folder = tmp_path / name
        make_data.write_log(make_data.workload_b(211), folder, num_rows=409, seed=seed)
        logs.append(pq.read_table(folder / "log.parquet"))
    assert logs[1].equals(logs[0])
    assert not logs[2].equals(logs[0])


def test_every_id_of_the_large_vocabulary_occurs_in_the_train_days(tmp_path, monkeypatch):
    monkeypatch.setattr(make_data, "PILOT_ROWS", 3_001)
    num_ids, num_rows = 1_301, 2_003
    workload = make_data.workload_b(num_ids)
    make_data.write_log(workload, tmp_path, num_rows=num_rows, seed=0)
    document = json.loads((tmp_path / "data.json").read_text())
    log = pq.read_table(tmp_path / "log.parquet")
    train = log.column("time_ms").to_numpy() < document["validation_from_ms"]
    users = log.column("user_id").to_numpy()
    assert set(users[train]) == set(range(1, num_ids + 1))


def test_too_few_rows_for_every_id_are_refused(tmp_path):
    with pytest.raises(ValueError, match="needs at least 1,627, got 1,500"):
        make_data.write_log(make_data.workload_b(1_301), tmp_path, num_rows=1_500, seed=0)


def test_bayes_auc_is_the_mean_auc_over_draws_of_labels():
    rng = np.random.default_rng(5)
    probabilities = rng.uniform(0.02, 0.7, size=311)
    drawn = rng.random((500, 311)) < probabilities
    aucs = [roc_auc_score(labels, probabilities) for labels in drawn]
    # a ratio of expectations, not the expectation of a ratio: equal to about 1 / rows
    assert bayes_auc(probabilities) == pytest.approx(np.mean(aucs), abs=0.006)


def test_zipf_ranks_fall_off_like_zipf_s_law():
    num_ids = 5_003
    ranks = draw_zipf(400_000, num_ids, rng=np.random.default_rng(0))
    assert ranks.min() == 0
    assert ranks.max() < num_ids
    edges = [0, 10, 100, 1_000, num_ids]
    counts, _ = np.histogram(ranks, bins=edges)
    exact = np.diff(stats.zipfian(1.05, num_ids).cdf(edges))
    # the continuous law gives the first few ranks less than the discrete one, the others alike
    assert counts / 400_000 == pytest.approx(exact, abs=0.05)
    inner = counts[1:] / counts[1:].sum()
    assert inner == pytest.approx(exact[1:] / exact[1:].sum(), rel=0.02)
