import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "report"))
from example_report import HOSTILE, example_report, hostile_report

from ranker.report import render_report

webdriver = pytest.importorskip("selenium.webdriver", reason="needs the extra `test`")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
CHROMEDRIVER = shutil.which("chromedriver")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        (CHROMIUM is None or CHROMEDRIVER is None) and "RANKER_REQUIRE_BROWSER" not in os.environ,
        reason="chromium and chromedriver are not installed",
    ),
]

FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in [*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(CHROMEDRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def report_path(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render_report(example_report()), encoding="utf-8")
    return path


def open_page(browser, path: Path, *, width_px: int) -> None:
    """Open the file afresh at a width and wait until every chart is drawn."""
    browser.get_log("browser")  # reading a log empties it
    browser.get_log("performance")
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width_px, "height": 900, "deviceScaleFactor": 1, "mobile": width_px < 600},
    )
    browser.get(path.as_uri())
    browser.set_script_timeout(60)
    browser.execute_async_script(
        "const done = arguments[0]; const wait = () => "
        "document.documentElement.dataset.charts === 'drawn' ? done() : setTimeout(wait, 50);"
        "wait()"
    )


def overflow_px(browser) -> int:
    return browser.execute_script(
        "const root = document.documentElement; return root.scrollWidth - root.clientWidth"
    )


@pytest.mark.parametrize("width_px", [1280, 390])
def test_the_page_opens_without_errors_and_fits(browser, report_path, width_px):
    open_page(browser, report_path, width_px=width_px)
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    assert browser.execute_script("return innerWidth") == width_px
    assert overflow_px(browser) == 0


def test_no_word_of_a_tile_is_broken_on_a_phone(browser, tmp_path):
    made = example_report()
    named = replace(made.experiment, control="engagement only", treatment="with satisfaction")
    path = tmp_path / "report.html"
    path.write_text(render_report(replace(made, experiment=named)), encoding="utf-8")
    open_page(browser, path, width_px=390)
    words, broken = browser.execute_script(
        """
        const words = [], broken = [];
        for (const tile of document.querySelectorAll('.tiles dd, .tiles dt')) {
          const text = tile.firstChild;
          for (const found of text.data.matchAll(/\\S+/g)) {
            const range = document.createRange();
            range.setStart(text, found.index);
            range.setEnd(text, found.index + found[0].length);
            words.push(found[0]);
            if (range.getClientRects().length > 1) broken.push(found[0]);
          }
        }
        return [words, broken];
        """
    )
    assert {"engagement", "satisfaction", "duplicates"} <= set(words)
    assert broken == []


def test_nothing_is_requested_but_the_file(browser, report_path):
    open_page(browser, report_path, width_px=1280)
    requests = [
        entry["message"]
        for entry in browser.get_log("performance")
        if '"Network.requestWillBeSent"' in entry["message"]
        and '"documentURL":"file:' in entry["message"]  # not those of the browser's own first tab
    ]
    outside = [r for r in requests if "http://" in r or "https://" in r]
    assert len(requests) >= 1, "the page itself must be among the requests"
    assert outside == []
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0


def test_every_chart_is_drawn_inside_its_figure(browser, report_path):
    open_page(browser, report_path, width_px=390)
    num_plots, num_drawn, num_wide = browser.execute_script(
        "const plots = [...document.querySelectorAll('.plot')];"
        "const svgs = plots.map((p) => p.querySelector('svg.main-svg'));"
        "return [plots.length, svgs.filter(Boolean).length,"
        " plots.filter((p, i) => svgs[i] && svgs[i].clientWidth > p.clientWidth + 1).length]"
    )
    assert num_plots == num_drawn == 20
    assert num_wide == 0


def test_hostile_names_are_drawn_as_text(browser, tmp_path):
    path = tmp_path / "hostile.html"
    path.write_text(render_report(hostile_report(HOSTILE)), encoding="utf-8")
    open_page(browser, path, width_px=390)
    assert overflow_px(browser) == 0
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    assert browser.execute_script("return document.querySelector('h1').textContent") == HOSTILE
    labels = browser.execute_script(
        "return [...document.querySelectorAll('.ytick text')].map((t) => t.textContent)"
    )
    assert any(label.startswith("</script><script>alert") for label in labels)
    assert browser.execute_script("return document.querySelectorAll('img, svg a').length") == 0


def test_charts_follow_the_dark_theme(browser, report_path):
    def tick_color() -> str:
        return browser.execute_script(
            "return getComputedStyle(document.querySelector('.xtick text')).fill"
        )

    open_page(browser, report_path, width_px=1280)
    light = tick_color()
    feature = {"name": "prefers-color-scheme", "value": "dark"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    try:
        open_page(browser, report_path, width_px=1280)
        assert tick_color() == "rgb(154, 166, 182)"  # --soft of the dark theme
        assert light == "rgb(93, 104, 120)"  # --soft of the light theme
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
