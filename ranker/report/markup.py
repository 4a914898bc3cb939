"""Text and numbers become HTML. `Html` marks what is already escaped, so mypy sees what is not."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NewType

from ranker.report.content import Estimate, Verdict

Html = NewType("Html", str)

# Control characters and lone surrogates are legal in no HTML file.
_ILLEGAL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_VERDICT_TEXT: dict[Verdict, str] = {
    "better": "▲ better",
    "worse": "▼ worse",
    "cannot_tell": "○ cannot tell",
}
_METRIC_LABELS = {
    "auc": "AUC",
    "gauc": "GAUC",
    "log_loss": "log loss",
    "normalized_entropy": "normalised entropy",
    "calibration_ratio": "calibration ratio",
    "ece": "ECE",
    "mae": "MAE",
    "rmse": "RMSE",
    "mae_log1p": "MAE (log1p)",
    "rmse_log1p": "RMSE (log1p)",
    "xauc": "XAUC",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of a table; numbers are set flush right."""

    title: str
    numeric: bool = True


def clean(text: str) -> str:
    """Replace characters that no HTML file may hold by U+FFFD."""
    return _ILLEGAL.sub("\ufffd", text)


def escape(text: str) -> Html:
    """Make any text harmless between tags and inside quoted attributes."""
    return Html(html.escape(clean(text)))


def join(parts: Sequence[Html]) -> Html:
    """Concatenate."""
    return Html("".join(parts))


def element(name: str, *children: Html, css_class: str = "") -> Html:
    """``<name class=css_class>children</name>``; name and class are our own words."""
    attribute = f' class="{css_class}"' if css_class else ""
    return Html(f"<{name}{attribute}>{join(children)}</{name}>")


def number(value: float, *, decimals: int | None = None) -> str:
    """Write a number for people: thousands separated, a true minus, three decimals below ten."""
    if decimals is None:
        decimals = _decimals(value)
    text = f"{value:,.{decimals}f}"
    if float(text.replace(",", "")) == 0:
        text = text.removeprefix("-")
    return text.replace("-", "−")


def signed(value: float, *, decimals: int | None = None) -> str:
    """Like `number`, with a plus where positive."""
    text = number(value, decimals=decimals)
    return f"+{text}" if value > 0 else text


def percent(value: float, *, decimals: int | None = None) -> str:
    """Write a fraction in percent, with enough decimals for small rates."""
    if decimals is None:
        decimals = 1 if value == 0 else min(6, max(1, _leading_zeros(value)))
    return f"{number(100 * value, decimals=decimals)} %"


def mean_text(value: float) -> str:
    """Write a mean with at least three digits that say something, however rare the outcome."""
    if 0 < abs(value) < 0.1:
        return number(value, decimals=min(8, _leading_zeros(value) + 3))
    return number(value)


def count(value: int | None) -> str:
    """Write a whole number, or a dash for None."""
    return "–" if value is None else f"{value:,}"


def metric_label(metric: str) -> str:
    """What people call a metric (``log_loss`` is *log loss*, ``ndcg@10`` is *NDCG@10*)."""
    if metric.startswith("ndcg"):
        return metric.upper()
    return _METRIC_LABELS.get(metric, metric.replace("_", " "))


def estimate_html(estimate: Estimate | None) -> Html:
    """A value beside its small grey interval; the reason where there is no value."""
    return _estimate_html(estimate, partial(number, decimals=_estimate_decimals(estimate)))


def estimate_text(estimate: Estimate | None) -> str:
    """A value and its interval as plain text."""
    return _estimate_text(estimate, partial(number, decimals=_estimate_decimals(estimate)))


def difference_html(estimate: Estimate, verdict: Verdict) -> Html:
    """A signed value, its interval, and the verdict in colour and words."""
    written = _estimate_html(estimate, partial(signed, decimals=_estimate_decimals(estimate)))
    if estimate.value is None:
        return written
    return join([verdict_html(verdict), Html(" "), written])


def lift_html(estimate: Estimate) -> Html:
    """A lift in signed percent with its interval."""
    return _estimate_html(estimate, _lift)


def lift_text(estimate: Estimate) -> str:
    """A lift and its interval as plain text."""
    return _estimate_text(estimate, _lift)


def verdict_html(verdict: Verdict) -> Html:
    """A badge: its sign and word carry the verdict, colour only repeats it."""
    text = escape(_VERDICT_TEXT[verdict])
    return Html(f'<span class="verdict {verdict}">{text}</span>')


def table(*, caption: str, columns: Sequence[Column], rows: Sequence[Sequence[Html]]) -> Html:
    """A table that scrolls sideways on a narrow screen; the first cell heads its row.

    ``caption`` is for screen readers. Each row has one cell for each column.
    """
    head = join([_head_cell(column) for column in columns])
    body = join([_row(columns, row) for row in rows])
    label = escape(caption)
    return Html(
        f'<div class="scroll" role="region" tabindex="0" aria-label="{label}"><table>'
        f'<caption class="hidden">{label}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def narrow_table(
    *, caption: str, columns: Sequence[Column], rows: Sequence[Sequence[Html]]
) -> Html:
    """A `table` of few columns, kept together so that the eye finds the way along a row."""
    return element("div", table(caption=caption, columns=columns, rows=rows), css_class="narrow")


def details(summary: str, *children: Html) -> Html:
    """A block that opens on demand."""
    return element("details", element("summary", escape(summary)), *children)


def _head_cell(column: Column) -> Html:
    css_class = ' class="num"' if column.numeric else ""
    return Html(f'<th scope="col"{css_class}>{escape(column.title)}</th>')


def _row(columns: Sequence[Column], cells: Sequence[Html]) -> Html:
    assert len(cells) == len(columns), "one cell for each column"
    parts = [f'<th scope="row">{cells[0]}</th>']
    for column, cell in zip(columns[1:], cells[1:], strict=True):
        parts.append(f'<td class="num">{cell}</td>' if column.numeric else f"<td>{cell}</td>")
    return Html(f"<tr>{''.join(parts)}</tr>")


def _lift(value: float) -> str:
    return f"{signed(100 * value, decimals=2)} %"


def _estimate_html(estimate: Estimate | None, write: Callable[[float], str]) -> Html:
    if estimate is None:
        return Html('<span class="none">–</span>')
    if estimate.value is None:
        return Html(f'<span class="none">none: {escape(estimate.reason)}</span>')
    interval = escape(_interval(estimate, write) or "no interval")
    value = escape(write(estimate.value))
    return Html(f'<span class="value">{value}</span> <span class="interval">{interval}</span>')


def _estimate_text(estimate: Estimate | None, write: Callable[[float], str]) -> str:
    if estimate is None:
        return "not measured"
    if estimate.value is None:
        return f"none: {estimate.reason}"
    return f"{write(estimate.value)} {_interval(estimate, write)}".rstrip()


def _interval(estimate: Estimate, write: Callable[[float], str]) -> str:
    if estimate.ci_low is None or estimate.ci_high is None:
        return ""
    return f"[{write(estimate.ci_low)}, {write(estimate.ci_high)}]"


def _estimate_decimals(estimate: Estimate | None) -> int:
    """As many as the value asks for, and enough to see the interval's width and its ends' signs."""
    if estimate is None or estimate.value is None:
        return 0
    sizes = []
    if estimate.ci_low is not None and estimate.ci_high is not None:
        sizes = [estimate.ci_low, estimate.ci_high, estimate.ci_high - estimate.ci_low]
    needed = [min(6, _leading_zeros(size) + 1) for size in sizes if 0 < abs(size) < 1]
    return max([_decimals(estimate.value), *needed])


def _decimals(value: float) -> int:
    size = abs(value)
    if size >= 1000:
        return 0
    if size >= 100:
        return 1
    return 2 if size >= 10 else 3


def _leading_zeros(value: float) -> int:
    """Zeros between the decimal point and the first digit: 0 for .5, 2 for .0042."""
    return max(0, -math.floor(math.log10(abs(value))) - 1)
