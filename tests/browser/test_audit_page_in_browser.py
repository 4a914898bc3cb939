import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))
from test_report_in_browser import browser, open_page, overflow_px, pytestmark  # noqa: F401

from pipelines.cli import main
from ranker.data.synthetic import write_synthetic_log


@pytest.fixture(scope="module")
def audit_path(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("audit")
    made = write_synthetic_log(folder / "log", num_users=307, num_items=101, num_days=5, seed=53)
    words = ["--users", str(made.users), "--items", str(made.items), "--output", str(folder)]
    assert main(["audit", str(made.log), *words, "--quiet"]) == 0
    return folder / "audit.html"


@pytest.mark.parametrize("width_px", [1280, 390])
def test_the_audit_opens_without_errors_and_fits(browser, audit_path, width_px):  # noqa: F811
    open_page(browser, audit_path, width_px=width_px)
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    assert overflow_px(browser) == 0
    num_plots, num_drawn = browser.execute_script(
        "const plots = [...document.querySelectorAll('.plot')];"
        "return [plots.length, plots.filter((p) => p.querySelector('svg.main-svg')).length]"
    )
    assert num_plots == num_drawn > 5
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0


def test_every_link_leads_to_a_section(browser, audit_path):  # noqa: F811
    open_page(browser, audit_path, width_px=1280)
    missing = browser.execute_script(
        "return [...document.querySelectorAll('nav a')]"
        ".filter((a) => !document.querySelector(a.hash)).map((a) => a.hash)"
    )
    assert missing == []
    headings = browser.execute_script(
        "return [...document.querySelectorAll('section h2')].map((h) => h.textContent)"
    )
    assert {"What this log can answer", "Findings", "Columns", "Schema draft"} <= set(headings)
