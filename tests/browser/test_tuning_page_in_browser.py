import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.stats import rankdata

sys.path.append(str(Path(__file__).parent))
from test_report_in_browser import browser, open_page, overflow_px, pytestmark  # noqa: F401

from pipelines.cli import main
from ranker.config import load_config
from ranker.data.store import EncodedStore
from ranker.schema import TaskSpec
from ranker.score_weights import ScoreWeights
from ranker.scoring.combine import combine

HOSTILE = "</script><script>window.evil = 1</script><img src=http://evil.example/x onerror='a()'>"


@pytest.fixture(scope="module")
def output(tmp_path_factory, prepared_synthetic, trained_synthetic) -> Path:
    folder = tmp_path_factory.mktemp("tuned")
    items = EncodedStore(prepared_synthetic).encoders.vocabularies["item"].ids.tolist()
    titles = [f"{HOSTILE} {item}" for item in items]
    pq.write_table(pa.table({"item_id": items, "title": titles}), folder / "titles.parquet")
    words = ["--bundle", trained_synthetic / "bundle", "--data", prepared_synthetic]
    words += ["--from", "2024-03-14", "--subject-to", "satisfaction >= -9%"]
    words += ["--set", "num_candidates=211", "--titles", folder / "titles.parquet"]
    words += ["--output", folder, "--quiet"]
    assert main(["tune-weights", *map(str, words)]) == 0
    return folder


def set_slider(browser, number: int, value: float) -> None:  # noqa: F811
    browser.execute_async_script(
        "const slider = document.getElementById(`weight-${arguments[0]}`);"
        "slider.value = arguments[1]; slider.dispatchEvent(new Event('input'));"
        "requestAnimationFrame(() => requestAnimationFrame(arguments[2]))",
        number,
        value,
    )


def choose(browser, element: str, value: str) -> None:  # noqa: F811
    browser.execute_async_script(
        "const one = document.getElementById(arguments[0]); one.value = arguments[1];"
        "one.dispatchEvent(new Event('change'));"
        "requestAnimationFrame(() => requestAnimationFrame(arguments[2]))",
        element,
        value,
    )


def here(browser) -> list[float]:  # noqa: F811
    return browser.execute_script(
        "const you = document.querySelector('#front .plot').data.find((t) => t.name === 'you');"
        "return [you.x[0], you.y[0]]"
    )


def listed(browser) -> list[str]:  # noqa: F811
    return browser.execute_script(
        "return [...document.querySelectorAll('#list-body th')].map((cell) => cell.textContent)"
    )


@pytest.mark.parametrize("width_px", [1280, 390])
def test_the_page_opens_without_errors_and_fits(browser, output, width_px):  # noqa: F811
    open_page(browser, output / "tuning.html", width_px=width_px)
    set_slider(browser, 0, 1.2)
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    assert overflow_px(browser) == 0
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    sent = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requests = [m["params"] for m in sent if m["method"] == "Network.requestWillBeSent"]
    # the browser's own first tab may still be loading: those are not this page's
    urls = {r["request"]["url"] for r in requests if r["documentURL"].startswith("file:")}
    assert [u for u in urls if not u.startswith(("file:", "data:", "blob:"))] == []
    missing = browser.execute_script(
        "return [...document.querySelectorAll('nav a')]"
        ".filter((a) => !document.querySelector(a.hash)).map((a) => a.hash)"
    )
    assert missing == []


def test_hostile_titles_are_text(browser, output):  # noqa: F811
    open_page(browser, output / "tuning.html", width_px=1280)
    assert all(title.startswith(HOSTILE) for title in listed(browser))
    assert browser.execute_script("return [window.evil, document.images.length]") == [None, 0]


def test_a_slider_ranks_anew_and_moves_the_point(browser, output):  # noqa: F811
    open_page(browser, output / "tuning.html", width_px=1280)
    assert here(browser) == [0, 0]
    before = listed(browser)
    assert len(before) > 1
    moves = "return [...document.querySelectorAll('#list-body tr')].map((row) => [...row.cells]"
    moves += ".slice(1, 4).map((cell) => cell.textContent))"
    assert all(now == was and move == "·" for now, was, move in browser.execute_script(moves))
    for number in range(4):  # all but dismissals are off: their order is another
        set_slider(browser, number, -2)
    after = listed(browser)
    assert sorted(after) == sorted(before)
    assert after != before
    assert here(browser) != [0, 0]
    for row, (now, was, move) in enumerate(browser.execute_script(moves)):
        assert before.index(after[row]) + 1 == int(was)
        assert int(now) == row + 1
        up = int(was) - int(now)
        assert move == (f"▲ {up}" if up > 0 else f"▼ {-up}" if up < 0 else "·")
    choose(browser, "preset", "0")  # today's weights
    assert listed(browser) == before
    assert here(browser) == [0, 0]
    choose(browser, "request", "1")
    assert listed(browser) != before


def test_the_live_values_are_pythons(browser, output):  # noqa: F811
    """All lists of the users who report are in this page: the same numbers, to the last digits."""
    found = json.loads((output / "tuning.json").read_text())
    open_page(browser, output / "tuning.html", width_px=1280)
    front = found["front"]
    points = [found["today"], found["chosen"], front[0], front[-1], *found["landmarks"]]
    assert len(points) > 9
    for number, point in enumerate(points):
        choose(browser, "preset", str(number))
        changes = browser.execute_script("return window.rankerTuning.state.changes")
        for name, change in point["changes"].items():
            assert changes[name] == pytest.approx(change["value"], rel=1e-9, abs=1e-9)


def test_copying_gives_weights_that_score_takes(browser, output, tmp_path):  # noqa: F811
    open_page(browser, output / "tuning.html", width_px=1280)
    browser.execute_cdp_cmd(
        "Browser.grantPermissions",
        {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]},
    )
    choose(browser, "combination", "weighted_sum")
    set_slider(browser, 0, 1)
    set_slider(browser, 1, -2)
    set_slider(browser, 2, -1.98)
    # a script's click is no user's, and only a user may write to the clipboard
    button = browser.find_element("id", "copy")
    browser.execute_script("arguments[0].scrollIntoView({behavior: 'instant'})", button)
    button.click()
    text = browser.execute_async_script(
        "const done = arguments[0]; const copied = document.getElementById('copied');"
        "const wait = () => copied.textContent"
        " ? navigator.clipboard.readText().then(done) : setTimeout(wait, 20); wait()"
    )
    path = tmp_path / "weights.yaml"
    path.write_text(text, encoding="utf-8")
    copied = load_config(ScoreWeights, path)
    today = json.loads((output / "tuning.json").read_text())["today"]["weights"]
    assert copied.combination == "weighted_sum"
    assert copied.weights == pytest.approx(
        today
        | {
            "click": 10 * today["click"],
            "watch_time_s": 0,
            "like": today["like"] * 10**-1.98,
        },
        rel=1e-5,
    )


def test_weights_of_zero_are_no_score(browser, output):  # noqa: F811
    open_page(browser, output / "tuning.html", width_px=1280)
    for number in range(5):
        set_slider(browser, number, -2)
    assert browser.find_element("id", "all-zero").is_displayed()
    assert not browser.find_element("id", "copy").is_enabled()
    set_slider(browser, 3, 0)
    assert not browser.find_element("id", "all-zero").is_displayed()
    assert browser.find_element("id", "copy").is_enabled()


def test_dark_mode_is_readable(browser, output):  # noqa: F811
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    try:
        open_page(browser, output / "tuning.html", width_px=1280)
        colors = browser.execute_script(
            "return ['.sliders label', 'select', '#list-body th', '#copy', '.live dt'].map((at) =>"
            " getComputedStyle(document.querySelector(at)).color)"
            ".concat(getComputedStyle(document.body).backgroundColor)"
        )
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    *texts, background = [luminance(color) for color in colors]
    for text in texts:
        assert (text + 0.05) / (background + 0.05) > 4.5  # WCAG 2.1, level AA


def luminance(color: str) -> float:
    channels = np.array([int(c) for c in color[color.index("(") + 1 : -1].split(",")[:3]]) / 255
    linear = np.where(channels <= 0.03928, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def random_tasks() -> list[TaskSpec]:
    """Every kind and direction, and one conditional task of each kind."""
    shapes = [
        *(("binary", "positive", None), ("binary", "negative", None)),
        *(("regression", "positive", None), ("regression", "negative", None)),
        *(("binary", "positive", "t0"), ("regression", "positive", "t1")),
    ]
    return [
        TaskSpec.model_validate(
            {
                "name": f"t{number}",
                "label": f"t{number}",
                "family": "satisfaction" if direction == "negative" else "engagement",
                "kind": kind,
                "direction": direction,
                "conditional_on": condition,
            }
        )
        for number, (kind, direction, condition) in enumerate(shapes)
    ]


JS_TASKS = """
const [tasks, predictions, weights, combination, starts] = arguments;
return [...window.rankerTuning.score({tasks, predictions, weights, combination, starts})]
"""


@pytest.mark.parametrize("combination", ["weighted_product", "weighted_sum"])
def test_scores_equal_pythons(browser, output, combination):  # noqa: F811
    open_page(browser, output / "tuning.html", width_px=1280)
    tasks, rng = random_tasks(), np.random.default_rng(41)
    described = [
        {
            "name": task.name,
            "kind": task.kind,
            "direction": task.direction,
            "conditional_on": task.conditional_on,
        }
        for task in tasks
    ]
    for _ in range(25):
        predictions = {
            task.name: rng.random(37) ** 3
            if task.kind == "binary"
            else rng.exponential(40, 37) - (task.conditional_on is None)
            for task in tasks
        }
        predictions["t0"][:3] = [0.0, 1.0, 1e-12]
        weights = {task.name: float(rng.exponential()) for task in tasks}
        weights |= dict.fromkeys(rng.choice([*weights], size=2, replace=False).tolist(), 0.0)
        chosen = ScoreWeights.model_validate({"combination": combination, "weights": weights})
        expected = combine(predictions, score_weights=chosen, tasks=tasks)
        listed = {name: values.tolist() for name, values in predictions.items()}
        scores = browser.execute_script(JS_TASKS, described, listed, weights, combination, [0])
        np.testing.assert_allclose(scores, expected, rtol=1e-9)


def test_rank_normalised_sums(browser, output):  # noqa: F811
    """Ranks within lists by scipy: 0 for the lowest, 1 for the highest, ties share their mean."""
    open_page(browser, output / "tuning.html", width_px=1280)
    rng, starts = np.random.default_rng(43), [0, 1, 6, 8]
    tasks = [
        {"name": name, "kind": "binary", "direction": direction, "conditional_on": None}
        for name, direction in (("a", "positive"), ("b", "negative"))
    ]
    values = {name: rng.integers(0, 4, 17) / 4 for name in ("a", "b")}
    expected = np.zeros(17)
    for start, stop in zip(starts, [*starts[1:], 17], strict=True):
        for name, weight in (("a", 2.0), ("b", -0.7)):
            part = values[name][start:stop]
            ranks = (rankdata(part) - 1) / (part.size - 1) if part.size > 1 else 0.5
            expected[start:stop] += weight * ranks
    given = {name: column.tolist() for name, column in values.items()}
    weights = {"a": 2.0, "b": 0.7}
    arguments = [tasks, given, weights, "rank_normalised_sum", starts]
    scores = browser.execute_script(JS_TASKS, *arguments)
    np.testing.assert_allclose(scores, expected, rtol=1e-9, atol=1e-12)
