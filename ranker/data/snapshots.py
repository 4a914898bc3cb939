"""Saved states at the beginning of given days, for scoring those days."""

from __future__ import annotations

from pathlib import Path

from ranker.data.features import FeatureSource
from ranker.data.history_state import advance
from ranker.data.parquet import DataError
from ranker.data.state import save_state
from ranker.data.windows import local_midnight_ms
from ranker.schema import Schema


class Snapshots:
    """Saves the state at the beginning of given local dates."""

    def __init__(self, dates: tuple[str, ...], schema: Schema, folder: Path) -> None:
        self._moments = sorted((local_midnight_ms(date, schema), date) for date in set(dates))
        self._folder = folder

    @property
    def moments_ms(self) -> list[int]:
        """Ascending moments at which the stream must be cut."""
        return [moment_ms for moment_ms, _ in self._moments]

    def save_until(self, time_ms: int, source: FeatureSource) -> None:
        """Save every snapshot due at or before ``time_ms``, before later rows are folded in."""
        while self._moments and self._moments[0][0] <= time_ms:
            moment_ms, date = self._moments.pop(0)
            if source.history.as_of_ms > moment_ms:
                raise DataError(f"snapshot {date}: the state is already newer")
            if not source.encoders.standardisers:
                raise DataError(
                    f"snapshot {date}: the windows before it hold fewer rows than the schema's "
                    f"scale_rows ({source.schema.scale_rows:,}), so nothing is standardised yet; "
                    "take a later snapshot or lower scale_rows"
                )
            advance(source.history, None, moment_ms, source.schema)
            save_state(self._folder / date, source)

    def save_rest(self, source: FeatureSource) -> None:
        """Save the snapshots that lie after the last row."""
        for moment_ms, date in self._moments:
            advance(source.history, None, moment_ms, source.schema)
            save_state(self._folder / date, source)
        self._moments = []
