"""Checkpoints that a crash or a full disk can't hurt.

Lightning writes in the temporary folder and moves over the previous file; across file systems a
full disk then destroys both. Here a checkpoint is a sibling temporary file, synced and renamed,
with its sha256 beside it; the newest two are kept, and a damaged one is passed over. It is a
safetensors file, written without a copy of the weights in memory.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from pytorch_lightning.plugins.io import CheckpointIO

from ranker.atomic import replacing_file, sha256_of, write_text
from ranker.data.parquet import DataError
from ranker.tensor_file import read_tensors, write_tensors

logger = logging.getLogger(__name__)
KEPT = 2


class AtomicCheckpointIO(CheckpointIO):
    """Lightning's plugin; for what `RankingModule.on_save_checkpoint` keeps."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write ``path`` and ``path.sha256``, then delete all but the newest two."""
        del storage_options
        target = Path(path)
        tensors = {f"weights/{name}": value for name, value in checkpoint["weights"].items()}
        tensors |= {f"optimizer/{name}": value for name, value in checkpoint["optimizer"].items()}
        tensors["loss_sum"] = checkpoint["loss_sum"]
        metadata = {"cursor": json.dumps(checkpoint["cursor"])}
        with replacing_file(target) as temporary:
            digest = write_tensors(temporary, tensors, metadata=metadata)
        write_text(_digest_path(target), digest)
        for old in list_checkpoints(target.parent)[:-KEPT]:
            self.remove_checkpoint(old)

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Any | None = None,
        weights_only: bool | None = True,
    ) -> dict[str, Any]:
        """Read a checkpoint.

        Raises:
            DataError: it is none of ours; nothing in it was executed.
        """
        del weights_only, map_location
        try:
            tensors, metadata = read_tensors(Path(path))
            cursor = json.loads(metadata["cursor"])
            loss_sum = tensors.pop("loss_sum")
        except (ValueError, KeyError) as error:
            raise DataError(
                f"{path}: is no checkpoint of ours, delete it and resume from an older one: {error}"
            ) from None
        checkpoint: dict[str, Any] = {"weights": {}, "optimizer": {}}
        for name, value in tensors.items():
            part, _, rest = name.partition("/")
            checkpoint[part][rest] = value
        return {**checkpoint, "loss_sum": loss_sum, "cursor": cursor}

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a checkpoint and its digest."""
        Path(path).unlink(missing_ok=True)
        _digest_path(Path(path)).unlink(missing_ok=True)


def list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints by the step in their name, oldest first."""
    return sorted(folder.glob("step-*.ckpt"))


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint after ``step`` optimizer steps goes."""
    return folder / f"step-{step:012d}.ckpt"


def newest_intact(folder: Path) -> Path | None:
    """The newest checkpoint whose bytes match its sha256; None if there is none."""
    for path in reversed(list_checkpoints(folder)):
        digest = _digest_path(path)
        if digest.is_file() and digest.read_text().strip() == sha256_of(path):
            return path
        logger.warning("%s is damaged or incomplete; an older checkpoint is used", path)
    return None


def discard_newer(folder: Path, path: Path | None) -> None:
    """Delete checkpoints newer than ``path`` (all if None) and the leavings of a crash.

    They are damaged, and to those that keep the newest two they would count as the newest.
    """
    for other in list_checkpoints(folder):
        if path is None or other.name > path.name:
            AtomicCheckpointIO().remove_checkpoint(other)
    for temporary in folder.glob(".*.tmp"):
        temporary.unlink(missing_ok=True)


def _digest_path(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")
