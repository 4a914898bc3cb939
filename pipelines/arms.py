"""What the arms of an experiment score: bundles, or files of anybody's scores or slates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.score import read_score_weights
from ranker.atomic import MANIFEST
from ranker.config import ConfigError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    from ranker.data.features import ColumnArray, FeatureSource
    from ranker.data.store import EncodedStore
    from ranker.schema import Schema


class CandidateColumns:
    """Candidates with the encoded features that all arms and the response model see."""

    def __init__(
        self, store: EncodedStore, source: FeatureSource, candidates: pa.Table, chunk_rows: int
    ) -> None:
        """Encode ``candidates``, ``chunk_rows`` at a time.

        Raises:
            DataError: the state is of other data, or newer than a request.
        """
        import numpy as np

        from ranker.data.features import encode_rows, standardise_columns
        from ranker.data.parquet import DataError
        from ranker.scoring.predict import check_not_newer

        if not store.encoders.extends(source.encoders):
            raise DataError(f"the state does not belong to the prepared data of {store.folder}")
        check_not_newer(source, candidates)
        self.store, self.source, self.candidates = store, source, candidates
        parts: list[dict[str, ColumnArray]] = []
        for start in range(0, candidates.num_rows, chunk_rows):
            encoded = encode_rows(candidates.slice(start, chunk_rows), source, learn=False)
            parts.append(standardise_columns(encoded.columns, store.encoders))
        self.columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ArmScores:
    """An arm's name and its score for every candidate, [C]."""

    name: str
    scores: npt.NDArray[np.float64]


def bundle_arm(
    table: CandidateColumns, bundle_folder: Path, weights: Path | None, *, name: str | None
) -> ArmScores:
    """An arm that ranks by a bundle, with its own score weights or those of a file."""
    from pipelines.requests import request_codes
    from ranker.bundle import load_bundle
    from ranker.scoring.predict import check_belongs, predict_columns
    from ranker.scoring.scorer import calibrated_predictions, combined_scores

    bundle = load_bundle(bundle_folder)
    check_belongs(bundle, table.source)
    score_weights = read_score_weights(bundle, weights)
    predictions = calibrated_predictions(bundle, predict_columns(bundle, table.columns))
    default = f"{bundle_folder.parent.name}/{bundle_folder.name}"
    if weights is not None:
        default += f" × {weights.stem}"
    requests = request_codes(table.candidates, bundle.schema)
    scores = combined_scores(bundle, predictions, score_weights, requests=requests)
    return ArmScores(name=name or default, scores=scores)


def file_arm(
    candidates: pa.Table, schema: Schema, path: Path, *, name: str | None, slate_size: int
) -> ArmScores:
    """An arm that ranks by a file: the request's and item columns, and ``score`` or ``rank``.

    A request is the log's request column where it has one, else user and time. A file of slates
    is enough: candidates that it leaves out come last, as long as they would not be shown.

    Raises:
        DataError: missing columns, scores that are not finite, a candidate with two scores, or
            requests with too few scored candidates for a slate.
    """
    import numpy as np

    from pipelines.requests import request_codes
    from ranker.data.parquet import DataError, read_table
    from ranker.evaluation.matching import match_rows

    given = read_table(path)
    match = match_rows(*_request_items(candidates, given, schema, str(path)))
    values = score_column(given, str(path))
    different = values[match.surplus] != values[match.surplus_first]
    if different.any():
        row = int(match.surplus[different.argmax()])
        raise DataError(f"{path}: row {row} scores a candidate that has another score before it")
    scored = match.rows >= 0
    codes = request_codes(candidates, schema)
    needed = np.minimum(np.bincount(codes), slate_size)
    short = np.flatnonzero(np.bincount(codes, weights=scored) < needed)
    if len(short):
        row = int((codes == short[0]).argmax())
        first = candidates.select(["user", "time_ms"]).slice(row, 1).to_pylist()[0]
        raise DataError(
            f"{path}: {len(short):,} of {len(needed):,} requests have too few scored candidates "
            f"for a slate of {slate_size}, the first is that of {first}; score every candidate"
        )
    scores = values[match.rows]
    bad = scored & ~np.isfinite(scores)
    if bad.any():
        row = int(match.rows[bad.argmax()])
        raise DataError(f"{path}: the score in row {row} is {values[row]}, expected a number")
    scores[~scored] = scores[scored].min() - 1
    return ArmScores(name=name or path.stem, scores=scores)


def arm_scores(
    table: CandidateColumns,
    path: Path,
    weights: Path | None,
    *,
    name: str | None,
    role: str,
    slate_size: int,
) -> ArmScores:
    """The scores of the arm at ``path``: a bundle's folder, or a file or folder of scores.

    Raises:
        ConfigError: score weights for a file.
    """
    if not path.is_file() and not is_slates(path):
        return bundle_arm(table, path, weights, name=name)
    if weights is not None:
        raise ConfigError(f"--{role}-weights belongs to a bundle, but {path} holds scores")
    return file_arm(table.candidates, table.store.schema, path, name=name, slate_size=slate_size)


def is_slates(path: Path) -> bool:
    """Whether a folder is what ``ranker score`` writes, or holds Parquet files of scores alone."""
    return path.is_dir() and not (path / MANIFEST).is_file() and any(path.glob("*.parquet"))


def _request_items(
    candidates: pa.Table, given: pa.Table, schema: Schema, source: str
) -> tuple[pa.Table, pa.Table]:
    """Request and item of both tables, in the same columns and types."""
    from ranker.evaluation.matching import key_columns, time_column_ms

    log = schema.log
    canonical_by_column = {log.item: "item"}
    canonical_by_column |= {log.user: "user"} if log.request is None else {log.request: "request"}
    types = {name: candidates.column(c).type for name, c in canonical_by_column.items()}
    keys = key_columns(given, types, source)
    wanted = candidates.select(list(canonical_by_column.values())).rename_columns([*types])
    if log.request is None:
        time_ms = time_column_ms(given, log.time, log.time_unit, source)
        keys = keys.append_column("_time_ms", time_ms)
        wanted = wanted.append_column("_time_ms", candidates.column("time_ms"))
    return wanted, keys


def score_column(given: pa.Table, source: str) -> npt.NDArray[np.float64]:
    """The scores, or else the negative ranks; NaN where null."""
    from ranker.data.given_columns import number_column
    from ranker.data.parquet import DataError

    present: Sequence[str] = [n for n in ("score", "rank") if n in given.column_names]
    if not present:
        raise DataError(f"{source}: has no column 'score' or 'rank'; it has {given.column_names}")
    values = number_column(given, present[0], source)
    return values if present[0] == "score" else -values
