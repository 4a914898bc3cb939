import os
import shutil
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "experiment"))
from outcomes_tables import as_table, make_frame, settings

from ranker.experiment.analysis import analyse
from ranker.experiment.outcomes_reading import outcomes_of
from ranker.report.experiment_page import ExperimentPage, render_experiment

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

FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"]
# Would run a script, load a picture or end the script element, were it not escaped.
HOSTILE = "</script><script>alert(1)</script><img src=http://evil.example/x onerror='a()'>"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in [*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(CHROMEDRIVER))
    yield driver
    driver.quit()


def write_page(folder: Path, *, arm: str, name: str) -> Path:
    frame = make_frame(num_users=307, lift=0.1, arms=("control", arm))
    metrics = settings().model_dump()["metrics"]
    metrics[0]["name"] = name
    chosen = settings(
        share_by_arm={"control": 1, arm: 1}, metrics=metrics, slices=("device",), peeking=True
    )
    page = ExperimentPage(
        title=name,
        analysis=analyse(outcomes_of(as_table(frame), chosen), chosen),
        created_by="ranker",
        simulated=["what users do"],
        real=["the candidates"],
    )
    path = folder / "report.html"
    path.write_text(render_experiment(page), encoding="utf-8")
    return path


def open_page(browser, path: Path, *, width_px: int) -> None:
    browser.get_log("browser")  # reading a log empties it
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


@pytest.mark.parametrize("width_px", [1280, 390])
@pytest.mark.parametrize("name", ["watch time", HOSTILE], ids=["plain", "hostile"])
def test_the_page_opens_without_errors_and_fits(browser, tmp_path, name, width_px):
    path = write_page(tmp_path, arm="treatment" if name != HOSTILE else name, name=name)
    open_page(browser, path, width_px=width_px)
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    assert browser.execute_script("return document.querySelector('h1').textContent") == name
    wide, plots, drawn = browser.execute_script(
        "const root = document.documentElement;"
        "const plots = [...document.querySelectorAll('.plot')];"
        "return [root.scrollWidth - root.clientWidth, plots.length,"
        " plots.filter((p) => p.querySelector('svg.main-svg')).length]"
    )
    assert wide == 0
    # a forest of metrics, a course for each of two deciding metrics, a forest of slices
    assert plots == drawn == 4
    assert browser.execute_script("return document.querySelectorAll('img, svg a').length") == 0
    said = browser.execute_script("return document.querySelector('#origin').textContent")
    assert "Simulated: what users do" in said
    assert "Real: the candidates" in said
