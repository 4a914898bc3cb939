"""The page around a header and sections: one HTML document that needs no network."""

from __future__ import annotations

from collections.abc import Sequence

from plotly.offline import get_plotlyjs

from ranker.report.markup import Html, escape, join
from ranker.report.style import CSS, SCRIPT

# The browser itself then refuses to load anything from anywhere.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
Section = tuple[str, str, Html | None]  # anchor, short title, body


def framed(
    *,
    title: str,
    header: Html,
    sections: Sequence[Section],
    closing: Html,
    created_by: str,
    css: str = "",
    script: str = "",
) -> str:
    """The whole document; sections without a body are left out, also of the navigation.

    Plotly's library (about 5 MB) is embedded once, and not at all where there is no chart.

    Args:
        title: of the browser's window, escaped here, as is ``created_by``.
        header: with the page's only ``h1``.
        sections: in order.
        closing: after the sections.
        created_by: the program and its version.
        css: our own rules for this page alone.
        script: our own code for this page alone, run after Plotly's and before the charts are
            drawn.
    """
    present = [(anchor, name, body) for anchor, name, body in sections if body]
    bodies = join([body for _, _, body in present])
    links = [Html(f'<a href="#{anchor}">{escape(name)}</a>') for anchor, name, _ in present]
    plotly = f"<script>{get_plotlyjs()}</script>" if 'class="plot"' in bodies else ""
    own = f"<script>{script}</script>" if script else ""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{CSS}{css}</style></head><body>"
        '<a class="skip" href="#main">Skip to the results</a>'
        f"{header}"
        f'<nav aria-label="Sections"><div>{join(links)}</div></nav>'
        f'<main id="main">{bodies}{closing}</main>'
        f"<footer>{escape(created_by)}</footer>"
        f"{plotly}{own}<script>{SCRIPT}</script></body></html>\n"
    )
