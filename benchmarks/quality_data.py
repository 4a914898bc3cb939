"""The quality contest's data: KuaiRand prepared once, its splits in time, the features as Parquet.

Shapes: N rows, L elements of a sequence.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from arms import ArmError
from peers.quality_job import FEATURES, LABELS, LAYOUT, REQUESTS, TASKS
from record import REPOSITORY

from ranker.data.feature_side import names_on
from ranker.data.store import EncodedStore, Window
from ranker.evaluation.list_moment import request_rows
from ranker.evaluation.rows import read_rows

SAMPLE = REPOSITORY / "data" / "sample"
SCHEMA = REPOSITORY / "configs" / "schema" / "kuairand.yaml"
EXPORTED_FROM = "source.txt"
OUTCOME_DEPTHS = (1, 5, 20)  # a user's last watched items whose outcomes become numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Dates:
    """Where the days are cut; days are labels of windows, ``judge_before`` "" is the end.

    Choices are made on ``choose_from`` .. before ``judge_from``; probabilities are calibrated on
    ``calibrate_on``, the last day of these.
    """

    choose_from: str
    calibrate_on: str
    judge_from: str
    judge_before: str = ""


TEST = Dates(choose_from="2022-05-03", calibrate_on="2022-05-04", judge_from="2022-05-05")
# A quick run can be made any number of times, so it judges the validation days.
REHEARSAL = Dates(
    choose_from="2022-05-01",
    calibrate_on="2022-05-02",
    judge_from="2022-05-03",
    judge_before="2022-05-05",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Train on all rows before ``windows``, predict those in them."""

    train_before: str
    windows: tuple[Window, ...]
    sizes: dict[str, int]

    @property
    def start(self) -> int:
        """The first row predicted."""
        return self.windows[0].start

    @property
    def stop(self) -> int:
        """The row after the last one predicted."""
        return self.windows[-1].stop


def split_at(store: EncodedStore, first: str, before: str) -> Split:
    """Predict the windows with ``first <= label < before`` ("": the end)."""
    trained = store.windows_between(None, first)
    return Split(
        train_before=first,
        windows=store.windows_between(first, before or None),
        sizes=dict(trained[-1].vocabulary_sizes),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Splits:
    """``choose`` for choices, ``judge`` for the end, ``calibrate`` for the day before that."""

    choose: Split
    calibrate: Split
    judge: Split


def splits_of(store: EncodedStore, dates: Dates) -> Splits:
    """The three splits that ``dates`` make."""
    return Splits(
        choose=split_at(store, dates.choose_from, dates.judge_from),
        calibrate=split_at(store, dates.calibrate_on, dates.judge_from),
        judge=split_at(store, dates.judge_from, dates.judge_before),
    )


def raw_inputs(raw: Path) -> list[str]:
    """`ranker prepare`'s arguments for the 14 days below ``raw``, as `make kuairand` gives them."""
    return [
        *("--log", str(raw / "log_standard_0425_0508.parquet")),
        *("--users", str(raw / "user_features.parquet")),
        *("--items", str(raw / "video_features_basic.parquet")),
        *("--earlier-history", str(raw / "exposures_before_0425_derived.parquet")),
    ]


def sample_inputs() -> list[str]:
    """`ranker prepare`'s arguments for the bundled sample."""
    return [
        *("--log", str(SAMPLE / "log.parquet"), "--users", str(SAMPLE / "users.parquet")),
        *("--items", str(SAMPLE / "items.parquet")),
        *("--earlier-history", str(SAMPLE / "earlier_history.parquet")),
    ]


def prepare(inputs: Sequence[str], work: Path) -> EncodedStore:
    """`ranker prepare` into WORK/prepared; it does nothing where nothing has changed.

    Raises:
        arms.ArmError: it failed.
    """
    work.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pipelines.cli", "prepare", "--schema", str(SCHEMA), *inputs]
    output = ["--output", str(work / "prepared")]
    run_to_file([*command, *output], work / "prepare.txt")
    return EncodedStore(work / "prepared")


def run_to_file(command: Sequence[str], output: Path) -> None:
    """Run ``command`` on one thread with all it prints in a file.

    Raises:
        arms.ArmError: it exited with another code than 0.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with output.open("w") as file:
        code = subprocess.run(
            command, stdout=file, stderr=file, env=environment, cwd=REPOSITORY, check=False
        ).returncode
    if code != 0:
        tail = output.read_text(errors="replace")[-2_000:]
        raise ArmError(f"{' '.join(command)} exited with {code}:\n{tail}")


def digest_of(store: EncodedStore) -> str:
    """What was prepared, in 64 hexadecimal digits."""
    text = json.dumps(store.sha256_by_column, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def export(store: EncodedStore, folder: Path, *, labelled_before: str) -> None:
    """Write every feature as Parquet, and the labels of the windows before ``labelled_before``.

    Trees read no sequences, so that what the newest watched items led to is given as numbers too:
    the share of each outcome among a user's last 1, 5 and 20, null where there are none.
    """
    source = f"{digest_of(store)} {labelled_before}"
    if (folder / EXPORTED_FROM).is_file() and (folder / EXPORTED_FROM).read_text() == source:
        return
    folder.mkdir(parents=True, exist_ok=True)
    features = store.schema.all_features
    columns = {feature.name: store.column(f"feature.{feature.name}") for feature in features}
    kinds = {feature.name: feature.kind for feature in features}
    vocabulary = {f.name: store.schema.vocabulary_of(f) for f in features if f.kind != "numeric"}
    shares = outcome_shares(columns["history_feedback"], outcomes=_outcomes(store))
    of_request = [*names_on("request", store.schema), *shares]
    layout = {
        "of_request": of_request,
        "categorical": {n: v for n, v in vocabulary.items() if kinds[n] == "categorical"},
        "sequences": {n: v for n, v in vocabulary.items() if kinds[n] == "sequence"},
        "numeric": [*(name for name, kind in kinds.items() if kind == "numeric"), *shares],
        "nullable": [*(f.name for f in features if f.kind == "numeric" and f.nullable), *shares],
        "fixed_sizes": {"feedback": store.schema.num_feedback_codes},
    }
    table = pa.table({name: _arrow(values) for name, values in {**columns, **shares}.items()})
    pq.write_table(table, folder / FEATURES)
    rows = read_rows(store, store.windows)
    requests = request_rows(store, rows)
    np.save(folder / REQUESTS, np.arange(rows.stop) if requests is None else requests)
    before = store.windows_between(None, labelled_before)[-1].stop
    labels = {task: np.asarray(store.column(f"label.{task}")[:before]) for task in TASKS}
    pq.write_table(
        pa.table({task: _arrow(values) for task, values in labels.items()}), folder / LABELS
    )
    (folder / LAYOUT).write_text(json.dumps(layout, indent=1))
    (folder / EXPORTED_FROM).write_text(source)


def outcome_shares(
    codes: npt.NDArray[np.generic], *, outcomes: Sequence[str]
) -> dict[str, npt.NDArray[np.float32]]:
    """Share of each outcome among the newest elements of feedback codes [N, L]; NaN without any.

    A code is 0 where there is no element, else 1 plus a bit for each outcome.
    """
    shares = {}
    for depth in OUTCOME_DEPTHS:
        newest = codes[:, -depth:].astype(np.int64)
        real = newest > 0
        num_real = real.sum(axis=1)
        for bit, outcome in enumerate(outcomes):
            happened = (real & (((newest - 1) >> bit) & 1 == 1)).sum(axis=1)
            share = np.where(num_real > 0, happened / np.maximum(num_real, 1), np.nan)
            shares[f"history_{outcome}_of_{depth}"] = share.astype(np.float32)
    return shares


def _outcomes(store: EncodedStore) -> Sequence[str]:
    history = store.schema.history
    return () if history is None else history.feedback


def _arrow(values: npt.NDArray[np.generic]) -> pa.Array:
    if values.ndim == 1:
        return pa.array(np.ascontiguousarray(values))
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
