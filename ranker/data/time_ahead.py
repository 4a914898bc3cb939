"""How far back the unread rest of a log may reach: what a streaming sort has to wait for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ranker.data.column_types import check_files
from ranker.data.columns import time_stamps_ms
from ranker.data.parquet import stream
from ranker.schema import Schema

NOTHING_MS = np.iinfo(np.int64).max
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeAhead:
    """For blocks of rows in the files' order: where each ends, the oldest time from it on."""

    block_ends: IntArray
    oldest_ms: IntArray

    def after(self, num_rows: int) -> int:
        """No row behind the first ``num_rows`` is older than this."""
        block = int(np.searchsorted(self.block_ends, num_rows, side="right"))
        return int(self.oldest_ms[block]) if block < len(self.oldest_ms) else NOTHING_MS


def read_time_ahead(log: Path, schema: Schema) -> TimeAhead:
    """Read a log's time column alone, which costs little; rows without a time don't count.

    Raises:
        DataError: a missing or retyped time column, or damaged files.
    """
    check_files(log, {schema.log.time: "time"})
    ends, oldest_ms, num_rows = [], [], 0
    for located in stream(log, [schema.log.time]):
        stamps, possible = time_stamps_ms(located.rows.column(0), schema)
        num_rows += len(stamps)
        ends.append(num_rows)
        oldest_ms.append(int(stamps[possible].min(initial=NOTHING_MS)))
    backwards = np.array(oldest_ms[::-1], dtype=np.int64)
    return TimeAhead(
        block_ends=np.array(ends, dtype=np.int64),
        oldest_ms=np.minimum.accumulate(backwards)[::-1],
    )
