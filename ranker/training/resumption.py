"""Where a run goes on: the newest checkpoint that is intact and its own, and nothing after it."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

from ranker.atomic import write_text
from ranker.bundle import ModelBundle
from ranker.config import digest
from ranker.data.parquet import DataError
from ranker.data.store import EncodedStore, Window
from ranker.training.checkpoint import AtomicCheckpointIO, discard_newer, newest_intact
from ranker.training.module import RankingModule
from ranker.training.settings import TrainConfig
from ranker.training.window_loop import CHECKPOINTS, METRICS

logger = logging.getLogger(__name__)
RUN_KEY = "run_key"


def run_key_of(
    store: EncodedStore,
    config: TrainConfig,
    windows: Sequence[Window],
    start_from: ModelBundle | None,
) -> str:
    """What a checkpoint must share with the run that resumes it."""
    free = {"loader_workers": 0, "checkpoint_every_s": 0.0, "log_every_steps": 1}
    parts = [
        digest(config.model_copy(update=free)),
        digest(store.schema),
        json.dumps([(w.label, w.num_rows) for w in windows]),
        json.dumps(store.sha256_by_column, sort_keys=True),
        "" if start_from is None else start_from.weights_sha256,
    ]
    return "|".join(parts)


def newest_checkpoint(run_folder: Path, run_key: str, *, resume: bool) -> Path | None:
    """Where to go on; None to start from the beginning.

    Raises:
        DataError: the checkpoints are of another run.
    """
    folder = run_folder / CHECKPOINTS
    path = newest_intact(folder) if resume else None
    if path is not None:
        key_file = folder / RUN_KEY
        if not key_file.is_file() or key_file.read_text(encoding="utf-8") != run_key:
            raise DataError(
                f"{run_folder}: its checkpoints belong to another config or other data; give the "
                "same ones, or another --output"
            )
    elif resume:
        logger.warning("%s holds no intact checkpoint: starting from the beginning", run_folder)
    return path


def load_checkpoint(module: RankingModule, checkpoint: str | None) -> None:
    """Put weights, optimizers, cursor and random state back; nothing to do without a checkpoint."""
    if checkpoint is not None:
        module.load(AtomicCheckpointIO().load_checkpoint(checkpoint))
        logger.info("resuming at window %s, batch %d", module.cursor.window, module.cursor.batch)


def forget_what_follows(
    run_folder: Path, checkpoint: Path | None, run_key: str, *, last_step: int
) -> None:
    """Forget what came after ``checkpoint``: everything, if it is None."""
    folder = run_folder / CHECKPOINTS
    folder.mkdir(parents=True, exist_ok=True)
    discard_newer(folder, checkpoint)
    write_text(folder / RUN_KEY, run_key)
    _trim_metrics(run_folder / METRICS, last_step if checkpoint is not None else -1)


def _trim_metrics(path: Path, last_step: int) -> None:
    """Leave out the lines of passes that will be finished again."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            steps = json.loads(line)["steps"]
        except (ValueError, KeyError, TypeError):
            continue  # cut off by a crash
        if steps <= last_step:
            kept.append(line + "\n")
    write_text(path, "".join(kept))
