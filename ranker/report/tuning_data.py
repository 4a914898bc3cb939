"""What the page's script works on: one JSON object, safe inside HTML."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping

import numpy as np

from ranker.report.markup import Html, clean
from ranker.report.tuning_content import FloatArray, TuningPage

DATA_ID = "tuning-data"


def data_html(page: TuningPage) -> Html:
    """A script element that the browser doesn't run, with everything the instrument needs."""
    # With no "<" left, no text inside the JSON can close the script element or open a comment.
    text = json.dumps(_data(page), allow_nan=False).replace("<", "\\u003c")
    return Html(f'<script type="application/json" id="{DATA_ID}">{text}</script>')


def _data(page: TuningPage) -> dict[str, object]:
    return {
        "tasks": [
            {
                "name": task.name,
                "family": task.family,
                "kind": task.kind,
                "direction": task.direction,
                "conditional_on": task.conditional_on,
                "is_predicted": task.is_predicted,
                "is_judged": not task.left_out,
                "importance": task.importance,
            }
            for task in page.tasks
        ],
        "combination": page.combination,
        "at": page.at,
        "points": [
            {"name": point.name, "weights": dict(point.weights)} for point in page.named_points
        ],
        "list_starts": page.rows.list_starts.tolist(),
        "predictions": _columns(page.rows.predictions),
        "labels": _columns(page.rows.labels),
        "shown": [
            {
                "label": clean(one.label),
                "list": one.list_number,
                "items": [clean(item) for item in one.items],
            }
            for one in page.shown
        ],
    }


def _columns(values_by_task: Mapping[str, FloatArray]) -> dict[str, dict[str, str]]:
    return {name: _column(values) for name, values in values_by_task.items()}


def _column(values: FloatArray) -> dict[str, str]:
    """Bytes of little-endian floats; half as many where that loses nothing."""
    single = values.astype("<f4")
    lossless = np.array_equal(single.astype(np.float64), values, equal_nan=True)
    chosen = single if lossless else values.astype("<f8")
    data = base64.b64encode(chosen.tobytes()).decode("ascii")
    return {"type": "f4" if lossless else "f8", "base64": data}
