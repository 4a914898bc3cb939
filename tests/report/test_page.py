import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from unittest import mock

import pytest
from example_report import FEW, HOSTILE, TASKS, WINDOWS, around, example_report, hostile_report
from hypothesis import given, settings
from hypothesis import strategies as st

from ranker.report import ReportContent, render_report
from ranker.report.content import (
    CalibrationBin,
    Comparison,
    Estimate,
    ExpertUtilization,
    ModelMetrics,
    Provenance,
    TaskCalibration,
    TaskExperts,
    TaskMetrics,
    TaskProgress,
    WindowValue,
)
from ranker.report.frame import POLICY

ANCHORS = [
    "metrics",
    "experiment",
    "progress",
    "calibration",
    "experts",
    "slates",
    "data",
    "cost",
    "provenance",
]
VOID = {"meta", "br", "img", "link", "input"}


class Page(HTMLParser):
    """What a browser would see: elements with attributes, and text, by nesting."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[tuple[str, ...], str]] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == [], "every element is closed"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open and self._open[-1] == tag, f"</{tag}> closes {self._open[-3:]}"
        self._open.pop()

    def handle_data(self, data):
        self.texts.append((tuple(self._open), data))

    def text(self, tag: str) -> str:
        return "".join(text for path, text in self.texts if tag in path)

    def visible(self) -> str:
        texts = [t for path, t in self.texts if not {"script", "style"} & set(path)]
        return " ".join(" ".join(texts).split())

    def anchors(self) -> list[str | None]:
        return [attributes.get("id") for tag, attributes in self.elements if tag == "section"]

    def figures(self) -> list[dict]:
        """Plotly's figures: JSON inside script elements inside figures."""
        return [json.loads(t) for path, t in self.texts if path[-2:] == ("figure", "script")]


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(render_report(example_report()))


def empty(**sections) -> ReportContent:
    return replace(ReportContent(title="t", subtitle="s", created_by="c"), **sections)


def render_without_plotly(content: ReportContent) -> str:
    """As `render_report`, without the library's 5 MB that take long to parse."""
    with mock.patch("ranker.report.frame.get_plotlyjs", return_value=""):
        return render_report(content)


def test_all_sections_are_there_and_listed_in_the_navigation(page):
    assert page.anchors() == ANCHORS
    links = [attributes["href"] for tag, attributes in page.elements if tag == "a"]
    assert links == ["#main", *(f"#{anchor}" for anchor in ANCHORS)]
    assert "Not part of this run" not in page.visible()


@pytest.mark.parametrize("anchor", ANCHORS)
def test_a_section_that_is_none_is_absent_and_named(anchor):
    content = replace(example_report(), **{anchor: None})
    without = Page(render_without_plotly(content))
    assert without.anchors() == [other for other in ANCHORS if other != anchor]
    assert without.visible().count("Not part of this run") == 1


def test_a_page_without_charts_has_no_plotly_and_says_what_is_missing():
    html = render_report(empty())
    assert len(html) < 20_000
    assert "Plotly, Inc" not in html
    assert (
        "Not part of this run: Quality, A/B comparison, By window, Calibration, Experts, Slates, "
        "Data, Cost, Provenance."
    ) in Page(html).visible()


def test_plotly_is_embedded_once_and_the_page_stays_below_6_mb():
    html = render_report(example_report())
    assert html.count("Plotly, Inc") == 1
    assert len(html.encode()) < 6_000_000


def test_nothing_is_loaded(page):
    for tag, attributes in page.elements:
        assert tag not in {"link", "img", "iframe", "object", "base"}
        assert "src" not in attributes
        assert (attributes.get("href") or "#").startswith("#")
    assert "url(" not in page.text("style")
    assert "@import" not in page.text("style")
    policies = [a["content"] for _, a in page.elements if "http-equiv" in a]
    assert policies == [POLICY]
    assert "http" not in POLICY


def test_numbers_come_out_as_given(page):
    text = page.visible()
    for expected in [
        "0.759 [0.757, 0.761]",  # click, ours
        "▲ better +0.012 [+0.010, +0.014]",  # click against logistic regression
        "○ cannot tell +0.0120 [−0.0002, +0.0242]",  # follow
        "57,061",
        "55,719",
        "play_time_ms is negative 9",
        "watch_time_s engagement regression 55,719 – 11.83",
        "+1.21 % [+0.59 %, +1.83 %]",  # lift of click
        "comment satisfaction – 0.00240 0.00236 −1.50 % [−7.10 %, +4.10 %] ○ cannot tell",
        "⚠\ufe0e polarized: expert 4 takes 94 %",
        "embedding parameters 1,482,304",
        "18,341",
        "Time by stage, 1 min 54 s in all",
        "video 6893 1.703 0.560 0.400 19.80 0.0270 0.000200 popularity, covisitation",
    ]:
        assert expected in text


def test_a_comparison_without_roles_has_no_column_of_dashes(page):
    made = example_report()
    assert "Metric Role Control" in page.visible()
    assert "★ marks the primary metric" in page.visible()
    plain = [replace(row, role="") for row in made.experiment.lifts]
    content = replace(made, experiment=replace(made.experiment, lifts=plain))
    text = Page(render_without_plotly(content)).visible()
    assert "Metric Control Treatment Lift Verdict" in text
    assert "★" not in text
    assert "comment satisfaction 0.00240 0.00236 −1.50 %" in text


def test_a_metric_without_a_value_shows_its_reason_and_no_verdict(page):
    text = page.visible()
    main_table = text[text.index("Ranking quality") : text.index("Each dot")]
    hate = main_table[main_table.index("hate AUC") :]
    assert hate.count(f"none: {FEW}") == 5  # three models, two differences
    assert "cannot tell" not in hate


def test_an_estimate_without_an_interval_says_so():
    task = TaskMetrics(
        task="click",
        family="engagement",
        rows=7,
        positives=3,
        headline_metric="auc",
        models=[ModelMetrics(model="ours", metrics={"auc": Estimate(value=0.7512)})],
    )
    assert "0.751 no interval" in Page(render_report(empty(metrics=[task]))).visible()


def test_a_task_unknown_to_one_model_leaves_a_dash():
    tasks = [
        TaskMetrics(
            task=name,
            family="engagement",
            rows=11,
            positives=5,
            headline_metric="auc",
            models=[ModelMetrics(model=m, metrics={"auc": around(0.7, 0.1)}) for m in models],
            comparisons=[
                Comparison(baseline=m, difference=around(0.1, 0.05), verdict="better")
                for m in models[1:]
            ],
        )
        for name, models in [("click", ["ours", "theirs"]), ("like", ["ours"])]
    ]
    text = Page(render_report(empty(metrics=tasks))).visible()
    assert "like AUC · engagement 0.700 [0.600, 0.800] – – 5" in text


def test_charts_hold_the_numbers_of_the_content(page):
    content = example_report()
    figures = page.figures()
    assert len(figures) == 2 + 1 + 8 + 8 + 1  # models twice (AUC, XAUC), lift, curves, rows
    ours = figures[0]["data"][0]
    expected = [value for _, _, kind, _, value in TASKS if kind == "binary" and value is not None]
    assert ours["x"] == pytest.approx(expected)
    assert ours["error_x"]["array"][0] == pytest.approx(0.0025)
    lift = figures[2]["data"]
    assert sorted(x for trace in lift for x in trace["x"]) == pytest.approx(
        sorted(100 * row.lift.value for row in content.experiment.lifts)
    )
    bars = figures[-1]["data"]
    assert [y for trace in bars for y in trace["y"]] == [w.rows for w in content.data.windows]
    assert [len(trace["x"]) for trace in bars] == [8, 2, 4]


def test_every_chart_is_described_in_words(page):
    charts = [a for tag, a in page.elements if tag == "div" and a.get("class") == "plot"]
    assert len(charts) == len(page.figures())
    for attributes in charts:
        assert attributes["role"] == "img"
        assert re.search(r"\d", attributes["aria-label"])


def test_tables_have_scoped_headers_and_captions(page):
    scopes = [attributes.get("scope") for tag, attributes in page.elements if tag == "th"]
    assert set(scopes) == {"col", "row"}
    tags = [tag for tag, _ in page.elements]
    assert tags.count("caption") == tags.count("table") > 0
    assert tags.count("h1") == 1
    assert page.elements[0] == ("html", {"lang": "en"})


def test_progress_leaves_gaps_where_there_is_no_value():
    values = [0.6, None, 0.7, 0.71, 0.72, None, None]
    windows = [
        WindowValue(
            window=f"day {i}",
            estimate=Estimate(value=None, reason=FEW) if v is None else around(v, 0.01),
        )
        for i, v in enumerate(values)
    ]
    content = empty(progress=[TaskProgress(task="like", metric="auc", windows=windows)])
    band, line = Page(render_report(content)).figures()[0]["data"]
    assert line["y"] == values
    assert [x for x in band["x"] if x is not None] == [
        *(-0.15, 0.15, 0.15, -0.15, -0.15),
        *(2, 3, 4, 4, 3, 2, 2),
    ]
    assert [y for y in band["y"][6:] if y is not None] == pytest.approx(
        [0.69, 0.7, 0.71, 0.73, 0.72, 0.71, 0.69]
    )


def calibration_figure(*bins: tuple[float, float]) -> dict:
    rows = [
        CalibrationBin(mean_prediction=p, mean_label=y, rows=7, ci_low=y / 2, ci_high=y + p)
        for p, y in bins
    ]
    content = empty(calibration=[TaskCalibration(task="like", bins=rows)])
    return Page(render_report(content)).figures()[0]


def test_calibration_axes_are_logarithmic_only_for_rare_tasks():
    rare = calibration_figure((0.001, 0.0), (0.01, 0.012), (0.05, 0.04))
    assert rare["layout"]["xaxis"]["type"] == rare["layout"]["yaxis"]["type"] == "log"
    assert rare["layout"]["xaxis"]["range"] == rare["layout"]["yaxis"]["range"]
    # 0 can't be drawn on log axes: the dot sits hollow on the edge
    assert rare["data"][1]["y"] == pytest.approx([0.001 / 1.5, 0.012, 0.04])
    assert rare["data"][1]["marker"]["symbol"] == ["circle-open", "circle", "circle"]
    common = calibration_figure((0.001, 0.0), (0.3, 0.31))
    assert "type" not in common["layout"]["xaxis"]
    assert common["data"][1]["y"] == [0.0, 0.31]


def test_dates_of_one_year_are_shortened_on_axes_only(page):
    ticks = page.figures()[-1]["layout"]["xaxis"]["ticktext"]
    assert ticks[0] == "04-25"
    assert ticks[-1] == "05-08"
    assert WINDOWS[0] in page.visible()


def tags_of(page: Page) -> list[tuple[str, list[str]]]:
    return [(tag, sorted(attributes)) for tag, attributes in page.elements]


def test_hostile_texts_stay_texts():
    hostile = Page(render_report(hostile_report(HOSTILE)))
    assert tags_of(hostile) == tags_of(Page(render_report(hostile_report("plain"))))
    assert hostile.text("title") == HOSTILE
    assert hostile.text("h1") == HOSTILE
    assert hostile.text("pre") == HOSTILE
    # Plotly reads tags in its labels, so none may be left after JSON is parsed
    for figure in hostile.figures():
        assert "<script" not in json.dumps(figure)
        assert "<img" not in json.dumps(figure)


@given(text=st.text(alphabet=st.characters(), min_size=1, max_size=40))
@settings(max_examples=10, deadline=None)
def test_any_text_gives_the_same_page_structure(text):
    html = render_without_plotly(hostile_report(text))
    html.encode("utf-8")
    plain = render_without_plotly(hostile_report("plain"))
    assert tags_of(Page(html)) == tags_of(Page(plain))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"value": float("nan")}, "finite"),
        ({"value": 0.5, "ci_low": float("-inf"), "ci_high": 1.0}, "finite"),
        ({"value": None}, "say why"),
        ({"value": 0.5, "ci_low": 0.4}, "both ends"),
        ({"value": 0.5, "ci_low": 0.6, "ci_high": 0.4}, "swap"),
    ],
)
def test_an_estimate_that_makes_no_sense_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Estimate(**arguments)


def test_tasks_with_different_numbers_of_experts_are_refused():
    tasks = [TaskExperts(task="a", weights=(0.5, 0.5)), TaskExperts(task="b", weights=(1.0,))]
    with pytest.raises(ValueError, match=r"different numbers of experts \[1, 2\]"):
        ExpertUtilization(tasks=tasks)


def test_a_task_without_a_model_is_refused():
    with pytest.raises(ValueError, match=r"'click'.*at least one model"):
        TaskMetrics(
            task="click",
            family="engagement",
            rows=7,
            positives=3,
            headline_metric="auc",
            models=[],
        )


def test_sections_with_nothing_in_them_still_render():
    example = example_report()
    content = empty(
        metrics=[],
        progress=[],
        calibration=[TaskCalibration(task="like", bins=[])],
        experts=ExpertUtilization(tasks=[]),
        experiment=replace(example.experiment, lifts=[], notes=[]),
        slates=[],
        data=replace(example.data, windows=[], labels=[], quarantined=[]),
        cost=replace(example.cost, stages=[], train_rows=None),
        provenance=Provenance(),
    )
    page = Page(render_report(content))
    assert page.anchors() == ANCHORS
    assert "None: every row that was read passed the checks." in page.visible()
    assert "training rows" not in page.visible()
