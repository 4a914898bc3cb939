"""The demo's own report, opened as a user opens it: from disk, without a network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from test_report_in_browser import browser, open_page, pytestmark

__all__ = ["browser", "pytestmark"]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "demo"
    words = [sys.executable, "-m", "pipelines.cli", "demo", "--quiet", "--output", str(folder)]
    done = subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, timeout=1800, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "report.html"


@pytest.mark.parametrize("width_px", [1280, 390])
def test_the_demos_report_opens(browser, report, width_px):
    open_page(browser, report, width_px=width_px)
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    requests = [
        entry["message"]
        for entry in browser.get_log("performance")
        if '"Network.requestWillBeSent"' in entry["message"]
        and '"documentURL":"file:' in entry["message"]  # not those of the browser's own first tab
    ]
    assert len(requests) >= 1, "the page itself must be among the requests"
    assert [r for r in requests if "http://" in r or "https://" in r] == []
    num_plots, num_drawn, overflow_px = browser.execute_script(
        "const plots = [...document.querySelectorAll('.plot')];"
        "const root = document.documentElement;"
        "return [plots.length, plots.filter((p) => p.querySelector('svg.main-svg')).length,"
        " root.scrollWidth - root.clientWidth]"
    )
    assert num_plots == num_drawn > 5
    assert overflow_px == 0
    assert "ranker on a sample of KuaiRand" in browser.title
