from __future__ import annotations

from pathlib import Path

from pipelines.report_run import cost


def test_what_is_no_number_is_as_good_as_not_said(tmp_path: Path) -> None:
    (tmp_path / "train.json").write_text('{"rows": "many", "examples_per_s": 7.5}')
    found = cost(tmp_path, {"model": {"dense_parameters": [3], "embedding_parameters": 11}})
    assert found is not None
    assert (found.train_rows, found.train_examples_per_s) == (None, 7.5)
    assert (found.dense_parameters, found.embedding_parameters) == (None, 11)
