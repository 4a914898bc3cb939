"""`ranker tune-weights` on the synthetic log, which has requests, a survey and dismissals."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from chain_run import Ran, run_ranker

from pipelines.cli import COMMANDS
from pipelines.tune_weights import item_order, read_titles
from ranker.bundle import load_bundle
from ranker.config import load_config
from ranker.data.parquet import DataError
from ranker.data.store import EncodedStore
from ranker.evaluation.rows import EvaluationRows, read_rows
from ranker.score_weights import ScoreWeights, check_score_weights
from ranker.scoring.tuning.tuning_settings import TuneConfig

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs" / "tune").glob("*.yaml"))
FIRST = ["--from", "2024-03-14"]
FEW = [
    *("--set", "num_candidates=83"),
    *("--set", "num_replicates=60"),
]


@pytest.fixture(scope="module")
def tuned(
    tmp_path_factory: pytest.TempPathFactory, prepared_synthetic: Path, trained_synthetic: Path
) -> tuple[Path, Ran]:
    output = tmp_path_factory.mktemp("tuned")
    ran = run_ranker(
        *("tune-weights", "--bundle", trained_synthetic / "bundle", "--data", prepared_synthetic),
        *(*FIRST, "--subject-to", "satisfaction >= -5%", *FEW, "--output", output, "--json"),
    )
    return output, ran


def tune(data: Path, run: Path, output: Path, *words: str | Path) -> Ran:
    given = ["--bundle", run / "bundle", "--data", data, *FIRST, *FEW, "--output", output]
    return run_ranker("tune-weights", *given, *words)


def test_everything_is_written(tuned: tuple[Path, Ran], trained_synthetic: Path) -> None:
    output, ran = tuned
    assert ran.code == 0, ran.err
    assert sorted(path.name for path in output.iterdir()) == [
        "tuning.html",
        "tuning.json",
        "weights.yaml",
    ]
    found = json.loads((output / "tuning.json").read_text())
    assert ran.json == found
    weights = load_config(ScoreWeights, output / "weights.yaml")
    bundle = load_bundle(trained_synthetic / "bundle")
    check_score_weights(weights, tasks=bundle.schema.tasks)
    assert weights.weights == found["chosen"]["weights"]
    assert found["today"]["weights"] == bundle.score_weights.weights
    assert found["split"] == {"first": "2024-03-14", "last": "2024-03-17"}
    # the survey is shown with 3 % of the impressions: the other ratings are no zeros
    assert 1 < found["today"]["values"]["rating"]["ci_low"] < 5
    assert found["left_out"] == {}
    chosen = found["chosen"]["changes"]
    tasks = [task.name for task in bundle.schema.tasks]
    assert [*chosen] == [*tasks, "engagement", "satisfaction"]
    for change in chosen.values():
        assert change["ci_low"] <= change["ci_high"]
    assert [one["constraint"] for one in found["constraints"]] == ["satisfaction >= -0.05"]


def test_a_table_for_people(
    prepared_synthetic: Path, trained_synthetic: Path, tmp_path: Path
) -> None:
    words = ["--maximize", "watch_time_s", "--subject-to", "like >= -20%"]
    ran = tune(prepared_synthetic, trained_synthetic, tmp_path, *words)
    assert ran.code == 0, ran.err
    assert "windows 2024-03-14 .. 2024-03-17; 84 weights tried" in ran.out
    header = next(line for line in ran.out.splitlines() if line.startswith("weights"))
    assert header.split("  ")[0] == "weights"
    assert "watch_time_s" in header
    for row in ("today", "chosen", "most engagement", "most satisfaction"):
        assert f"\n{row} " in ran.out
    assert "constraint like >= -0.2: " in ran.out
    assert str(tmp_path / "weights.yaml") in ran.out


def test_predictions_of_a_file_count_as_the_bundles_own(
    tuned: tuple[Path, Ran], prepared_synthetic: Path, trained_synthetic: Path, tmp_path: Path
) -> None:
    bundle = trained_synthetic / "bundle"
    evaluated = run_ranker(
        *("evaluate", "--bundle", bundle, "--data", prepared_synthetic, *FIRST),
        *("--output", tmp_path / "evaluated", "--set", "num_replicates=40"),
    )
    assert evaluated.code == 0, evaluated.err
    ran = run_ranker(
        *("tune-weights", "--predictions", tmp_path / "evaluated" / "predictions.parquet"),
        *("--data", prepared_synthetic, *FIRST, "--subject-to", "satisfaction >= -5%", *FEW),
        *("--score-weights", bundle / "score_weights.yaml"),
        *("--output", tmp_path / "tuned", "--json"),
    )
    assert ran.code == 0, ran.err
    assert ran.json["chosen"] == tuned[1].json["chosen"]


def test_an_infeasible_constraint_is_said_and_leaves_no_weights(
    tuned: tuple[Path, Ran], prepared_synthetic: Path, trained_synthetic: Path, tmp_path: Path
) -> None:
    shutil.copytree(tuned[0], tmp_path, dirs_exist_ok=True)
    words = ["--subject-to", "like >= 500%"]
    ran = tune(prepared_synthetic, trained_synthetic, tmp_path, *words)
    assert ran.code == 4
    assert "infeasible: none of the 84 weights tried keeps like >= 5" in ran.out
    # an earlier run's choice would be taken for this one's
    assert not (tmp_path / "weights.yaml").exists()
    assert json.loads((tmp_path / "tuning.json").read_text())["chosen"] is None
    assert "infeasible" in (tmp_path / "tuning.html").read_text().lower()


def test_titles_are_shown_and_harmless(
    prepared_synthetic: Path, trained_synthetic: Path, tmp_path: Path
) -> None:
    hostile = "</script><script>alert(1)</script><!-- \u2028 &amp;"
    items = EncodedStore(prepared_synthetic).encoders.vocabularies["item"].ids.tolist()
    titles = tmp_path / "titles.parquet"
    pq.write_table(pa.table({"item_id": items, "title": [hostile] * len(items)}), titles)
    ran = tune(prepared_synthetic, trained_synthetic, tmp_path / "out", "--titles", titles)
    assert ran.code in (0, 4), ran.err
    html = (tmp_path / "out" / "tuning.html").read_text(encoding="utf-8")
    assert "alert(1)" in html
    assert "<script>alert" not in html
    assert "<!-- " not in html.split('id="tuning-data"')[1].split("</script>")[0]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--subject-to", "likes >= 0"], 2, "'likes' is not one of"),
        (["--before", "2024-03-15"], 3, "no satisfaction task has labels enough"),
        (["--set", "importance={likes: 1}"], 2, "importance: ['likes'] are no tasks of the schema"),
        (["--set", "importance={like: 0, rating: 0, dismissed: 0}"], 2, "count as satisfaction"),
        (["--set", "importance={like: 1.0e+308}"], 2, "a weight is 0 or between 1e-08 and 1e+08"),
        (["--from", "2024-03-12"], 3, "evaluating from 2024-03-12 would flatter it"),
        (["--maximize", "clicks"], 2, "maximize: 'clicks' is not one of"),
        (["--set", "num_candidates=0"], 2, "key 'num_candidates'"),
        (["--titles", "{titles}"], 3, "column 'item_id' is missing"),
    ],
)
def test_mistakes_are_explained(
    words: list[str],
    code: int,
    message: str,
    prepared_synthetic: Path,
    trained_synthetic: Path,
    tmp_path: Path,
) -> None:
    titles = tmp_path / "titles.parquet"
    pq.write_table(pa.table({"item": [1, 2, 3]}), titles)
    words = [word.format(titles=titles) if "{titles}" in word else word for word in words]
    ran = tune(prepared_synthetic, trained_synthetic, tmp_path / "out", *words)
    assert (ran.code, ran.out) == (code, ""), ran.err
    assert message in ran.err
    assert "Traceback" not in ran.err
    if code == 2:  # what is only mistyped is said before anything is predicted
        assert "predicting" not in ran.err
    assert not (tmp_path / "out" / "tuning.json").exists()


def test_optuna_missing_is_said_before_the_work(
    prepared_synthetic: Path,
    trained_synthetic: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    ran = tune(prepared_synthetic, trained_synthetic, tmp_path / "out", "--method", "optuna")
    assert ran.code == 2
    assert "pip install -e '.[tune]'" in ran.err
    assert not (tmp_path / "out").exists()


def test_optuna_searches_too(
    prepared_synthetic: Path, trained_synthetic: Path, tmp_path: Path
) -> None:
    pytest.importorskip("optuna", reason="needs the extra `tune`")
    ran = tune(prepared_synthetic, trained_synthetic, tmp_path, "--method", "optuna", "--json")
    assert ran.code in (0, 4), ran.err
    assert ran.json["config"]["method"] == "optuna"
    assert ran.json["candidates"] == 84


def test_shipped_configs_load() -> None:
    assert len(CONFIGS) == 2
    for path in CONFIGS:
        shown = run_ranker("tune-weights", "--config", path, "--print-config")
        assert shown.code == 0
        assert load_config(TuneConfig, path).model_dump(mode="json") == yaml.safe_load(shown.out)


def test_the_command_line_beats_the_config() -> None:
    words = ["--config", CONFIGS[0], "--maximize", "click", "--subject-to", "like >= 0"]
    shown = yaml.safe_load(run_ranker("tune-weights", *words, "--print-config").out)
    assert (shown["maximize"], shown["subject_to"]) == ("click", ["like >= 0"])


def test_ties_go_by_item_id(prepared_synthetic: Path) -> None:
    store = EncodedStore(prepared_synthetic)
    rows: EvaluationRows = read_rows(store, store.windows[:2])
    order = item_order(store, rows)
    codes = np.asarray(store.column("item")[rows.start : rows.stop])
    ids = store.encoders.vocabularies["item"].ids[codes - 1]
    assert ((order[:, None] < order) == (ids[:, None] < ids)).all()


def test_the_command_is_listed() -> None:
    assert "tune-weights" in COMMANDS


def test_titles_have_the_logs_kind_of_ids(
    prepared_synthetic: Path, trained_synthetic: Path, tmp_path: Path
) -> None:
    store_ids = EncodedStore(prepared_synthetic).encoders.vocabularies["item"].ids
    other = pa.array([1, 2]) if store_ids.dtype == object else pa.array(["1", "2"])
    titles = tmp_path / "titles.parquet"
    pq.write_table(pa.table({"item_id": other, "title": ["one", "two"]}), titles)
    ran = tune(prepared_synthetic, trained_synthetic, tmp_path / "out", "--titles", titles)
    assert (ran.code, "write ids in the log's type" in ran.err) == (3, True), ran.err


TITLES = pa.array(["one", "two", "three", None])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"item_id": pa.array([1.0, 2.0, 3.0, 4.0])}, "'item_id' is double, but the log's is str"),
        ({"item_id": pa.array([["a"], ["b"], ["c"], []])}, "'item_id' is list<element: string>"),
        ({"item_id": pa.nulls(4)}, "'item_id' is null, but the log's is string"),
        ({"item_id": pa.array(list("abba"))}, "item 'b' has 2 different titles (such items: 1)"),
        ({"title": pa.array([1, 2, 3, 4])}, "'title' must hold texts, got int64"),
    ],
)
def test_odd_titles_are_explained(
    columns: dict[str, pa.Array], message: str, prepared_synthetic: Path, tmp_path: Path
) -> None:
    store = EncodedStore(prepared_synthetic)
    table = pa.table({"item_id": pa.array(list("abcd")), "title": TITLES} | columns)
    pq.write_table(table, tmp_path / "titles.parquet")
    with pytest.raises(DataError, match=re.escape(message)):
        read_titles(tmp_path / "titles.parquet", store.schema, store.encoders.vocabularies["item"])


@pytest.mark.parametrize("kind", [pa.large_string(), pa.string_view(), None])
def test_titles_in_any_kind_of_text(
    kind: pa.DataType | None, prepared_synthetic: Path, tmp_path: Path
) -> None:
    store = EncodedStore(prepared_synthetic)
    columns = {"item_id": pa.array(["a", "b", "c", "a"]), "title": pa.array(["x", "y", None, "x"])}
    table = pa.table(
        {n: c.dictionary_encode() if kind is None else c.cast(kind) for n, c in columns.items()}
    )
    pq.write_table(table, tmp_path / "titles.parquet")
    read = read_titles(
        tmp_path / "titles.parquet", store.schema, store.encoders.vocabularies["item"]
    )
    assert read.to_pydict() == {"item_id": ["a", "b"], "title": ["x", "y"]}
