"""What the arms of an experiment in a world rank by: its known policies, files, bundles."""

from __future__ import annotations

import difflib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.arms import is_slates, score_column
from ranker.config import ConfigError
from ranker.data.given_columns import one_column
from ranker.data.moment_text import moment_text
from ranker.data.parquet import DataError, read_table, write_table
from ranker.experiment.world.items import Catalogue
from ranker.experiment.world.log import candidate_table
from ranker.experiment.world.policies import (
    FilePolicy,
    WorldPolicy,
    engagement_oracle,
    file_policy,
    logging_policy,
    popularity_policy,
    random_policy,
    satisfaction_oracle,
)
from ranker.experiment.world.randomness import FloatArray, IntArray
from ranker.experiment.world.sessions import Requests
from ranker.experiment.world.world import World

if TYPE_CHECKING:
    from ranker.data.features import FeatureSource

BUILT_IN: dict[str, Callable[[World], WorldPolicy]] = {
    "random": lambda _: random_policy(),
    "popularity": lambda _: popularity_policy(),
    "engagement-oracle": lambda _: engagement_oracle(),
    "satisfaction-oracle": lambda _: satisfaction_oracle(),
    "logging": logging_policy,
}
CHUNK_ROWS = 100_000  # of candidates encoded for a bundle at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmArgument:
    """What the command line says of an arm.

    Attributes:
        role: ``control`` or ``treatment``.
        text: a built-in policy's name, or a path.
        weights: score weights of a bundle.
        days: of the world, on which it ranks.
    """

    role: str
    text: str
    weights: Path | None
    days: range

    @property
    def is_built_in(self) -> bool:
        """Known to the world; a file of the same name is written ./NAME."""
        return self.text in BUILT_IN

    @property
    def name(self) -> str:
        """What to call it unless the user says."""
        if self.is_built_in:
            return self.text
        path = Path(self.text)
        return path.stem if self.is_table else f"{path.parent.name}/{path.name}"

    @property
    def is_table(self) -> bool:
        """Scores or slates, in a Parquet file or a folder of its parts."""
        path = Path(self.text)
        return path.is_file() or is_slates(path)

    @property
    def origin(self) -> str:
        """Where its ranking comes from, in words."""
        if self.is_built_in:
            return "a policy that the world knows"
        return f"{'file' if self.is_table else 'bundle'} {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CheckedFile:
    """A file's ranking, whose gaps are errors of the data."""

    source: str
    policy: FilePolicy

    @property
    def name(self) -> str:
        """See `WorldPolicy.name`."""
        return self.policy.name

    @property
    def temperature(self) -> float:
        """See `WorldPolicy.temperature`."""
        return self.policy.temperature

    def scores(
        self, world: World, catalogue: Catalogue, requests: Requests, candidates: IntArray
    ) -> FloatArray:
        """See `WorldPolicy.scores`.

        Raises:
            DataError: fewer candidates of a request have a score than a slate shows.
        """
        try:
            return self.policy.scores(world, catalogue, requests, candidates)
        except ValueError as error:
            raise DataError(
                f"{self.source}: {error}. The control arm ranks the days of the pre-period too; "
                "without them: --set pre_period_days=0"
            ) from None


def find_policy(
    world: World, arm: ArmArgument, *, data: Path | None, state: Path | None
) -> WorldPolicy:
    """The ranking that an argument means.

    Raises:
        ConfigError: no such policy or path, score weights for anything but a bundle, or a bundle
            without prepared data and state.
        DataError: a file or a bundle that can't rank this world's candidate lists.
    """
    if arm.weights is not None and (arm.is_built_in or arm.is_table):
        raise ConfigError(f"--{arm.role}-weights belongs to a bundle, not to {arm.text}")
    if arm.is_built_in:
        return BUILT_IN[arm.text](world)
    path = Path(arm.text)
    if arm.is_table:
        return read_file_policy(world, path)
    if not path.is_dir():
        close = difflib.get_close_matches(arm.text, BUILT_IN, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ConfigError(
            f"--{arm.role} {arm.text}: no such file, bundle or policy{hint} (policies: "
            f"{', '.join(BUILT_IN)})"
        )
    if data is None or state is None:
        raise ConfigError(
            f"--{arm.role} {arm.text}: a bundle needs --data and --state, prepared from the "
            "world's log"
        )
    return bundle_policy(world, arm, data=data, state=state)


def read_file_policy(world: World, path: Path) -> CheckedFile:
    """The ranking of a Parquet file: ``request_id``, ``item_id``, and ``score`` or ``rank``.

    Raises:
        DataError: missing or wrong columns, scores not finite, unknown or repeated items.
    """
    given = read_table(path)
    return _checked_file(
        world,
        path.stem,
        requests=_ids(given, "request_id", path),
        items=_ids(given, "item_id", path),
        scores=score_column(given, str(path)),
        source=str(path),
    )


def _ids(given: pa.Table, name: str, path: Path) -> NDArray[np.generic]:
    column = one_column(given, name, str(path))
    if not pa.types.is_integer(column.type) or column.null_count:
        raise DataError(
            f"{path}: column {name!r} must hold whole numbers, none missing, as the world's "
            f"candidate lists do; got {column.type} with {column.null_count:,} nulls"
        )
    return np.asarray(column.to_numpy())


def bundle_policy(world: World, arm: ArmArgument, *, data: Path, state: Path) -> CheckedFile:
    """The ranking of a bundle, from its scores for the candidate lists of the arm's days.

    Raises:
        DataError: bundle, data and state don't belong together, or to a log of this world; or the
            state is newer than the first of the requests.
    """
    from pipelines.arms import CandidateColumns, bundle_arm
    from ranker.data.state import load_state
    from ranker.data.store import EncodedStore
    from ranker.data.tables import read_requests

    store, source = EncodedStore(data), load_state(state)
    with tempfile.TemporaryDirectory() as folder:
        for day in arm.days:
            write_table(Path(folder) / f"day-{day:03d}.parquet", candidate_table(world, day=day))
        candidates = read_requests(Path(folder), store.schema, content="candidates")
    _check_state(arm, candidates, source)
    table = CandidateColumns(store, source, candidates, CHUNK_ROWS)
    scores = bundle_arm(table, Path(arm.text), arm.weights, name=arm.name).scores
    return _checked_file(
        world,
        arm.name,
        requests=candidates.column("request").to_numpy(),
        items=candidates.column("item").to_numpy(),
        scores=scores,
        source=arm.text,
    )


def _check_state(arm: ArmArgument, candidates: pa.Table, source: FeatureSource) -> None:
    first_ms = int(candidates.column("time_ms").to_numpy().min())
    if source.history.as_of_ms > first_ms:
        raise DataError(
            f"--{arm.role} {arm.text}: the state (as of {moment_text(source.history.as_of_ms)}) is "
            f"newer than the first request it ranks, at {moment_text(first_ms)}. Control ranks the "
            "pre-period too: --set pre_period_days=0, or a snapshot from before it"
        )


def _checked_file(
    world: World,
    name: str,
    *,
    requests: NDArray[np.generic],
    items: NDArray[np.generic],
    scores: FloatArray,
    source: str,
) -> CheckedFile:
    try:
        policy = file_policy(
            name,
            requests=requests.astype(np.int64),
            items=items.astype(np.int64),
            scores=scores,
            num_items=world.settings.num_items,
        )
    except ValueError as error:
        raise DataError(f"{source}: {error}") from None
    return CheckedFile(source=source, policy=policy)
