"""A moment as messages say it: the date that people read, and the number that files hold."""

from __future__ import annotations

import datetime

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def moment_text(time_ms: int) -> str:
    """UTC milliseconds since 1970 as ``2022-05-04 16:00:00 UTC (1651680000000 ms)``."""
    try:
        moment = _EPOCH + datetime.timedelta(milliseconds=time_ms)
    except OverflowError:  # no calendar year
        return f"{time_ms} ms"
    timespec = "milliseconds" if time_ms % 1_000 else "seconds"
    shown = moment.replace(tzinfo=None).isoformat(sep=" ", timespec=timespec)
    return f"{shown} UTC ({time_ms} ms)"
