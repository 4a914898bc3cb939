"""Checkpoints that a crash or a full disk can't hurt.

Lightning writes in the temporary folder and moves over the previous file; across file systems a
full disk then destroys both. Here a checkpoint is a sibling temporary file, synced and renamed,
with its sha256 beside it; the newest two are kept, and a damaged one is passed over.
"""

from __future__ import annotations

import hashlib
import io
import logging
import pickle
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import CheckpointIO

from ranker.atomic import replacing_file, sha256_of, write_text
from ranker.data.parquet import DataError

logger = logging.getLogger(__name__)
KEPT = 2


class AtomicCheckpointIO(CheckpointIO):
    """Lightning's plugin; loads only tensors and plain values (``weights_only=True``)."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write ``path`` and ``path.sha256``, then delete all but the newest two."""
        del storage_options
        target = Path(path)
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        data = buffer.getvalue()
        with replacing_file(target) as temporary:
            temporary.write_bytes(data)
        write_text(_digest_path(target), hashlib.sha256(data).hexdigest())
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
            DataError: it holds anything but tensors and plain values; nothing of it was executed.
        """
        del weights_only
        try:
            loaded: dict[str, Any] = torch.load(
                path, map_location=map_location or "cpu", weights_only=True
            )
        except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
            raise DataError(
                f"{path}: is no checkpoint of ours, delete it and resume from an older one: {error}"
            ) from None
        return loaded

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
