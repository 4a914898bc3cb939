"""When: order, span, gaps, resolution of the rows' times, and the time zone of their days."""

from __future__ import annotations

from collections.abc import Mapping
from zoneinfo import available_timezones

import numpy as np
import pandas as pd

from ranker.audit.column import Column, FloatArray
from ranker.audit.finding import Finding, percent
from ranker.audit.names import words
from ranker.audit.view import LogView
from ranker.data.windows import window_labels

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
_CLEAR_AGREEMENT = 0.8


def span_days(time_ms: FloatArray) -> float:
    """From the first to the last moment; 0 without any."""
    given = time_ms[~np.isnan(time_ms)]
    return float(np.ptp(given)) / DAY_MS if len(given) else 0.0


def find_utc_offset(columns: Mapping[str, Column], time_ms: FloatArray) -> tuple[int, str] | None:
    """Hours from UTC at which a column of dates (20220425) or hours agrees best with the times.

    Returns:
        The offset and a sentence; None without such a column, or where none agrees clearly.
    """
    offsets = range(-11, 15)
    for column in columns.values():
        named = words(column.name)
        if column.kind != "number" or not column.is_whole:
            continue
        given = ~np.isnan(time_ms) & ~np.isnan(column.numbers)
        values, moments = column.numbers[given], time_ms[given]
        if len(values) < 100:
            continue
        if named & {"date", "dt", "day", "p"} and values.min() > 19_000_000:
            if values.max() > 21_010_000:
                continue
            agreement = [(_date_number(moments + o * HOUR_MS) == values).mean() for o in offsets]
        elif named & {"hour", "hourmin"} and values.max() <= 2_400 and column.num_distinct > 6:
            hours = values if values.max() <= 24 else values // 100
            agreement = [
                ((moments + o * HOUR_MS) // HOUR_MS % 24 == hours % 24).mean() for o in offsets
            ]
        else:
            continue
        best = int(np.argmax(agreement))
        if agreement[best] >= _CLEAR_AGREEMENT:
            sign = offsets[best]
            sentence = (
                f"column {column.name!r} agrees with UTC{sign:+d} in "
                f"{percent(float(agreement[best]))} of the rows"
            )
            return sign, sentence
    return None


def named_zone(column: Column) -> str | None:
    """The zone that a timestamp column names, if it is one of the zones that have names."""
    zone: str | None = getattr(column.values.type, "tz", None)
    return zone if zone in available_timezones() else None


def time_zone_of_offset(hours: int) -> str:
    """The name of a zone that is always so many hours from UTC (its sign is turned round)."""
    return "UTC" if hours == 0 else f"Etc/GMT{-hours:+d}"


def check_time(view: LogView, file_order_ms: FloatArray | None) -> list[Finding]:
    """Order, span, gaps and resolution.

    Args:
        view: the log.
        file_order_ms: moments of all read rows in the files' order, NaN = none.
    """
    if view.time_ms is None or file_order_ms is None:
        return []
    given = view.time_ms[~np.isnan(view.time_ms)]
    findings = [_missing(view.time_ms)] if len(given) < len(view.time_ms) else []
    if len(given) == 0:
        return findings
    first, last = given.min(), given.max()
    days = (last - first) / DAY_MS
    findings.append(
        Finding(
            level="fine" if days >= 3 else "look",
            topic="time",
            sentence=f"The rows span {days:,.1f} days, {_utc(first)} to {_utc(last)}.",
            remedy="" if days >= 3 else "Bring at least 3 days: train on some, test on later ones.",
            numbers={"days": round(days, 3), "first_ms": int(first), "last_ms": int(last)},
        )
    )
    findings += [_order(file_order_ms), _resolution(given), *_gaps(view, given)]
    return [finding for finding in findings if finding is not None]


def rows_by_window(view: LogView) -> dict[str, int]:
    """Rows of each window of the schema, in time order; empty ones between are there too."""
    if view.time_ms is None:
        return {}
    given = view.time_ms[~np.isnan(view.time_ms)].astype(np.int64)
    if len(given) == 0:
        return {}
    labels, counts = np.unique(window_labels(given, view.schema).to_numpy(), return_counts=True)
    found = dict(zip(labels.tolist(), counts.tolist(), strict=True))
    length_ms = view.schema.window_hours * HOUR_MS
    grid = np.arange(given.min(), given.max() + 1, length_ms, dtype=np.int64)
    every = [*window_labels(grid, view.schema), *labels.tolist()]
    return {str(label): found.get(label, 0) for label in sorted(set(every))}


def _missing(time_ms: FloatArray) -> Finding:
    rows = int(np.isnan(time_ms).sum())
    return Finding(
        level="problem",
        topic="time",
        sentence=f"{rows:,} rows have no time between 1990 and 2100.",
        remedy="Drop or mend them; prepare sets them aside.",
        numbers={"rows": rows},
    )


def _order(time_ms: FloatArray) -> Finding:
    given = time_ms[~np.isnan(time_ms)]
    late = int((given[1:] < np.maximum.accumulate(given)[:-1]).sum())
    share = late / max(1, len(given))
    if late == 0:
        sentence = "The rows come in time order."
    else:
        sentence = f"{percent(share)} of the rows are older than one before them; prepare sorts."
    return Finding(
        level="fine",
        topic="time",
        sentence=sentence,
        numbers={"rows_out_of_order": late, "share": share},
    )


def _resolution(given: FloatArray) -> Finding:
    steps = {"day": DAY_MS, "hour": HOUR_MS, "minute": 60_000, "second": 1_000, "millisecond": 1}
    name = next(name for name, step in steps.items() if np.all(given % step == 0))
    coarse = name in ("day", "hour")
    return Finding(
        level="problem" if name == "day" else "look" if coarse else "fine",
        topic="time",
        sentence=f"Times are exact to the {name}.",
        remedy="Rows of equal times never see each other's outcomes: log finer times."
        if coarse
        else "",
        numbers={"resolution": name},
    )


def _gaps(view: LogView, given: FloatArray) -> list[Finding]:
    windows = rows_by_window(view)
    empty = [label for label, rows in windows.items() if rows == 0]
    findings = []
    if empty:
        findings.append(
            Finding(
                level="look",
                topic="time",
                sentence=f"{len(empty)} of {len(windows)} windows have no rows, first {empty[0]}.",
                remedy="Ask whether the log is whole; tests must not fall on such windows.",
                numbers={"empty_windows": len(empty), "windows": len(windows)},
            )
        )
    counts = np.array(list(windows.values()))
    inner = counts[1:-1]
    if len(inner) >= 5 and inner.min() < 0.3 * np.median(inner) and inner.min() > 0:
        label = list(windows)[1 + int(np.argmin(inner))]
        findings.append(
            Finding(
                level="look",
                topic="time",
                sentence=f"Window {label} has {inner.min():,} rows, the median "
                f"{np.median(inner):,.0f}.",
                remedy="Ask whether part of it is missing.",
                numbers={"rows": int(inner.min()), "median": float(np.median(inner))},
            )
        )
    hours = np.bincount((given // HOUR_MS % 24).astype(np.int64), minlength=24)
    if len(given) >= 1_000 and hours.min() < 0.7 * hours.mean():
        ring = hours + np.roll(hours, 1) + np.roll(hours, -1)
        quiet = int(np.argmin(ring))
        findings.append(
            Finding(
                level="fine",
                topic="time",
                sentence=f"The quietest hour is {quiet:02d} UTC; if that is 4 in the morning, "
                f"local time is about UTC{(4 - quiet + 11) % 24 - 11:+d}.",
                numbers={"quietest_hour_utc": quiet},
            )
        )
    return findings


def _date_number(time_ms: FloatArray) -> FloatArray:
    days = pd.DatetimeIndex(time_ms.astype("datetime64[ms]"))
    return np.asarray(days.year * 10_000 + days.month * 100 + days.day, dtype=np.float64)


def _utc(time_ms: float) -> str:
    return pd.Timestamp(time_ms, unit="ms").strftime("%Y-%m-%d %H:%M UTC")
