"""All benchmarks/results/*.json drawn on one self-contained HTML page.

python benchmarks/page.py [--results DIR] [--output FILE]
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs
from record import RESULTS, progress

from ranker.report.content import Estimate
from ranker.report.figure import BLUE, Chart, error_bars, finish, safe, stripe
from ranker.report.markup import (
    Column,
    Html,
    details,
    element,
    escape,
    estimate_html,
    estimate_text,
    join,
    table,
)
from ranker.report.panel import chart_html, section
from ranker.report.style import CSS, SCRIPT

Record = Mapping[str, Any]
PAGE_NAME = "index.html"
NOT_MEASURED = "not reached or not measured in this run"
LEAD = (
    "Every figure was measured by the script of its section's name. Brackets hold 95 % intervals, "
    "or the range seen where there were too few rounds for one."
)
# What a name ends with or holds -> the chart it belongs to; the first that fits.
KINDS = (
    ("_minus_", "Difference in AUC or GAUC"),
    ("auc_", "AUC"),
    ("ece_", "Expected calibration error"),
    ("normalised_entropy_", "Normalised entropy"),
    ("calibration_ratio_", "Mean prediction over mean label"),
    ("ndcg_", "nDCG"),
    ("_over_", "Ratio"),
    ("_share", "Share"),
    ("per_s_", "Per second"),
    ("first_step", "Start to first step, s"),
    ("_mb_", "Memory, MB"),
    ("_s_", "Seconds"),
)
_ROW_HEIGHT_PX, _FRAME_PX = 26, 60
_LOG_SPREAD = 30.0  # beyond it the small values could not be told apart on a linear axis


def render_page(records: Sequence[Record]) -> str:
    """A section a benchmark: charts, all figures, settings and machine; no network needed."""
    links = [
        Html(f'<a href="#{record["benchmark"]}">{escape(_title(record))}</a>') for record in records
    ]
    header = element(
        "header",
        element("h1", escape("Benchmarks")),
        element("p", escape(LEAD), css_class="subtitle"),
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>ranker: benchmarks</title><style>{CSS}</style></head><body>{header}"
        f'<nav aria-label="Sections"><div>{join(links)}</div></nav>'
        f'<main id="main">{join([_section(record) for record in records])}</main>'
        f"<script>{get_plotlyjs()}</script><script>{SCRIPT}</script></body></html>\n"
    )


def _section(record: Record) -> Html:
    figures = {name: _estimate(figure) for name, figure in record["figures"].items()}
    by_kind: dict[str, dict[str, Estimate]] = {}
    for name, figure in figures.items():
        if figure.value is not None:
            by_kind.setdefault(_kind(name), {})[name] = figure
    charts = [chart_html(_chart(kind, of_kind)) for kind, of_kind in by_kind.items()]
    rows = [[escape(name), estimate_html(figure)] for name, figure in figures.items()]
    columns = [Column(title="Figure", numeric=False), Column(title="Value and interval")]
    return section(
        record["benchmark"],
        _title(record),
        _machine(record),
        *charts,
        details("All figures", table(caption="All figures", columns=columns, rows=rows)),
        details("Settings, seeds and machine", _facts(record)),
    )


def _kind(name: str) -> str:
    return next((kind for part, kind in KINDS if part in f"{name}_"), "Other")


def _chart(kind: str, figures: Mapping[str, Estimate]) -> Chart:
    """Dots with intervals, a row a figure."""
    names, estimates = list(figures), list(figures.values())
    values = [estimate.value or 0.0 for estimate in estimates]
    plot = go.Figure()
    plot.add_scatter(
        x=values,
        y=list(range(len(names))),
        error_x=error_bars(
            values, [e.ci_low for e in estimates], [e.ci_high for e in estimates], BLUE
        ),
        mode="markers",
        marker={"color": BLUE, "size": 8},
        hovertext=[safe(f"{n}: {estimate_text(e)}") for n, e in figures.items()],
        hoverinfo="text",
    )
    stripe(plot, len(names))
    labels = [safe(name) for name in names]
    plot.update_yaxes(tickvals=list(range(len(labels))), ticktext=labels, showgrid=False)
    plot.update_yaxes(range=[len(labels) - 0.5, -0.5], zeroline=False)
    if min(values) > 0 and max(values) / min(values) > _LOG_SPREAD:
        plot.update_xaxes(type="log")
    elif min(values) > 0 and kind != "AUC":
        plot.update_xaxes(rangemode="tozero")
    said = "; ".join(f"{name} {estimate_text(e)}" for name, e in figures.items())
    height = _FRAME_PX + _ROW_HEIGHT_PX * len(names)
    return finish(plot, title=kind, description=said, height_px=height)


def _estimate(figure: Mapping[str, Any]) -> Estimate:
    return Estimate(**figure, reason="" if figure["value"] is not None else NOT_MEASURED)


def _facts(record: Record) -> Html:
    facts = {
        **{key: record[key] for key in ("date", "commit", "seeds")},
        **record["settings"],
        **record["machine"],
    }
    entries = [
        element("div", element("dt", escape(key)), element("dd", escape(_plain(value))))
        for key, value in facts.items()
    ]
    return element("dl", *entries, css_class="facts")


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _machine(record: Record) -> str:
    machine = record["machine"]
    parts = [f"{machine['cores']} cores of {machine['processor']}, {machine['memory_gib']} GiB"]
    parts += [machine["accelerator"]] if "accelerator" in machine else []
    return f"{', '.join(parts)}; torch {machine['torch']}; {record['date']}"


def _title(record: Record) -> str:
    return str(record["benchmark"]).replace("_", " ").capitalize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--output", type=Path, help=f"RESULTS/{PAGE_NAME} where left out")
    arguments = parser.parse_args()
    paths = sorted(arguments.results.glob("*.json"))
    if not paths:
        parser.error(f"--results {arguments.results}: holds no records; run a benchmark first")
    output = arguments.output or arguments.results / PAGE_NAME
    output.write_text(render_page([json.loads(path.read_text()) for path in paths]))
    progress(f"wrote {output}: {len(paths)} benchmarks")


if __name__ == "__main__":
    main()
