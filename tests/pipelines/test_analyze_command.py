"""`ranker analyze` from a Parquet file to a page, and how it refuses."""

import datetime
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from chain_run import run_ranker

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "configs" / "analyze" / "example.yaml"


def write_outcomes(path: Path, *, lift: float, num_users: int = 811) -> None:
    """A table that the example config reads: a week before the experiment and five days of it."""
    rng = np.random.default_rng(6)
    treated = rng.random(num_users) < 0.5
    activity = rng.gamma(3.0, size=num_users)
    tables = []
    for day in range(-7, 5):
        shown = rng.poisson(20 * activity)
        date = datetime.date(2026, 3, 8) + datetime.timedelta(days=day)
        factor = 1 + lift * (treated & (day >= 0))
        tables.append(
            pa.table(
                {
                    "user": [f"u{user}" for user in range(num_users)],
                    "arm": np.where(treated, "treatment", "control"),
                    "day": [date] * num_users,
                    "impressions": shown,
                    "clicks": rng.binomial(shown, 0.3),
                    "watch_time_s": activity * factor * rng.lognormal(2, 0.2, num_users),
                    "dismissals": rng.poisson(30, num_users),
                    "latency_ms": rng.lognormal(5, 0.05, num_users),
                    "device": np.array(["ios", "web", "tv"])[np.arange(num_users) % 3],
                }
            )
        )
    pq.write_table(pa.concat_tables(tables), path)


@pytest.fixture(scope="module")
def analysed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("analyze")
    write_outcomes(folder / "outcomes.parquet", lift=0.08)
    ran = run_ranker(
        "analyze", folder / "outcomes.parquet", "--config", EXAMPLE, "--output", folder / "run",
        "--json",
    )  # fmt: skip
    assert (ran.code, ran.err) == (0, "")
    return folder, ran


def test_the_example_ships(analysed):
    folder, ran = analysed
    (decision,) = ran.json["decisions"]
    assert (decision["treatment"], decision["verdict"]) == ("treatment", "ship")
    assert decision["reasons"][0].startswith("watch time rose by")
    by_name = {metric["metric"]: metric for metric in ran.json["metrics"]}
    watch = by_name["watch time"]
    assert watch["lift_ci_low"] < 0.08 < watch["lift_ci_high"]
    assert [part["value"] for part in watch["slices"]] == ["ios", "web", "tv"]
    written = json.loads((folder / "run" / "analysis.json").read_text("utf-8"))
    assert {**written, "report": str(folder / "run" / "report.html")} == ran.json


def test_the_page_says_it(analysed):
    page = (analysed[0] / "run" / "report.html").read_text("utf-8")
    assert "Ship treatment. watch time rose by" in page
    for anchor in ("decision", "metrics", "course", "guardrails", "slices", "power", "ratio"):
        assert f'<section id="{anchor}"' in page
    assert "What was simulated and what was real" not in page


def test_people_read_a_verdict_and_a_table(analysed):
    folder, _ = analysed
    ran = run_ranker(
        "analyze", folder / "outcomes.parquet", "--config", EXAMPLE, "--output", folder / "again"
    )
    assert ran.out.startswith("Ship treatment.\n  watch time rose by ")
    assert "slow pages  guardrail" in ran.out
    first, again = ((folder / run / "analysis.json").read_bytes() for run in ("run", "again"))
    assert first == again


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--set", "metrics=[]"], 2, "key 'metrics'"),
        (["--set", "control=ctrl"], 2, "control 'ctrl' is not among the arms"),
        (["--set", "peaking=true"], 2, "key 'peaking' is unknown; did you mean 'peeking'?"),
        (["--set", "columns.user=uid"], 3, "column 'uid' is missing; the table has"),
        (["--set", "share_by_arm={control: 1, b: 1}"], 3, "got 'treatment'; name the arm"),
        (["--set", "start=2027-01-01"], 3, "no row of the experiment"),
        (["--set", "slices=[watch_time_s]"], 3, "has more than 50 values"),
    ],
)
def test_mistakes_are_explained(analysed, words, code, message):
    folder, _ = analysed
    ran = run_ranker(
        "analyze", folder / "outcomes.parquet", "--config", EXAMPLE,
        "--output", folder / "bad", *words,
    )  # fmt: skip
    assert ran.code == code, ran.err
    assert message in ran.err
    assert not (folder / "bad" / "analysis.json").exists()


def test_a_guardrail_without_a_margin_is_no_guardrail(analysed):
    folder, _ = analysed
    metrics = "metrics=[{name: x, role: guardrail, measure: {kind: mean, column: clicks}}]"
    ran = run_ranker(
        "analyze", folder / "outcomes.parquet", "--output", folder / "bad", "--set", metrics
    )
    assert ran.code == 2
    assert "a guardrail needs a margin, such as 0.01 for 1 %" in ran.err


@pytest.mark.slow
def test_needs_no_torch(analysed):
    folder, _ = analysed
    code = (
        "import sys; from pipelines.cli import main; "
        f"main(['analyze', {str(folder / 'outcomes.parquet')!r}, '--config', {str(EXAMPLE)!r}, "
        f"'--output', {str(folder / 'torchless')!r}, '--json']); "
        "assert 'torch' not in sys.modules; print('fine')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("fine\n")
