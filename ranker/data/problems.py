"""What is wrong with input rows: counted by reason and column, the first place of each named."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from ranker.data.parquet import LocatedBatch

BoolArray = np.ndarray[tuple[int], np.dtype[np.bool_]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowProblem:
    """All rows with one kind of problem in one column; ``place`` is the first of them."""

    reason: str
    column: str
    rows: int
    place: str
    value: str
    expected: str

    def sentence(self) -> str:
        """Where, what was got, what was expected."""
        return (
            f"{self.place}, column {self.column!r}: {self.reason}: got {self.value}, "
            f"expected {self.expected} (such rows: {self.rows:,})"
        )


@dataclass(slots=True)
class ProblemLog:
    """Collects problems over a stream and remembers which rows of a batch are bad."""

    problems: dict[tuple[str, str], RowProblem] = field(default_factory=dict)
    bad_rows: int = 0

    def sentences(self) -> list[str]:
        """One sentence a problem, the most frequent first."""
        ordered = sorted(self.problems.values(), key=lambda p: (-p.rows, p.column, p.reason))
        return [problem.sentence() for problem in ordered]

    def counts(self) -> dict[str, int]:
        """Rows by ``column: reason``; a row with several problems counts in each."""
        return {f"{p.column}: {p.reason}": p.rows for p in self.problems.values()}

    def merge(self, later: ProblemLog) -> None:
        """Take over the problems of later rows."""
        for problem in later.problems.values():
            self.add(problem)
        self.bad_rows += later.bad_rows

    def add(self, problem: RowProblem) -> None:
        """Merge ``problem`` with an earlier one of the same reason and column."""
        key = (problem.reason, problem.column)
        known = self.problems.get(key)
        if known is not None:
            problem = RowProblem(
                reason=known.reason,
                column=known.column,
                rows=known.rows + problem.rows,
                place=known.place,
                value=known.value,
                expected=known.expected,
            )
        self.problems[key] = problem


@dataclass(slots=True)
class BatchChecker:
    """Marks the bad rows of one batch and reports them to a `ProblemLog`."""

    located: LocatedBatch
    log: ProblemLog
    bad: BoolArray = field(init=False)
    reasons: list[str] = field(init=False)
    _bad_by_column: dict[str, BoolArray] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.bad = np.zeros(self.located.rows.num_rows, dtype=bool)
        self.reasons = [""] * self.located.rows.num_rows

    def reject(self, mask: BoolArray, *, reason: str, column: str, expected: str) -> None:
        """Mark ``mask``'s rows bad because of ``column``.

        A column may be read twice, as a watch time and as a label: its first reason counts.
        """
        known = self._bad_by_column.setdefault(column, np.zeros_like(self.bad))
        rows = np.flatnonzero(mask & ~known)
        known |= mask
        if len(rows) == 0:
            return
        first = int(rows[0])
        values = (
            self.located.rows.column(column) if column in self.located.rows.schema.names else None
        )
        self.log.add(
            RowProblem(
                reason=reason,
                column=column,
                rows=len(rows),
                place=(
                    f"{self.located.file}: row group {self.located.row_group}, "
                    f"row {self.located.first_row + first}"
                ),
                value="nothing" if values is None else repr(values[first].as_py())[:80],
                expected=expected,
            )
        )
        for row in rows[~self.bad[rows]]:
            self.reasons[row] = f"{column}: {reason}"
        self.log.bad_rows += int((~self.bad[rows]).sum())
        self.bad |= mask

    def quarantined(self) -> pa.Table:
        """The bad rows as they came, with their origin and the first reason."""
        rows = np.flatnonzero(self.bad)
        table = pa.Table.from_batches([self.located.rows]).take(pa.array(rows))
        origin = {
            "_file": pa.array([str(self.located.file)] * len(rows), pa.string()),
            "_row_group": pa.array([self.located.row_group] * len(rows), pa.int64()),
            "_row": pa.array(rows + self.located.first_row, pa.int64()),
            "_reason": pa.array([self.reasons[row] for row in rows], pa.string()),
        }
        for name, values in origin.items():
            table = table.append_column(name, values)
        return table
