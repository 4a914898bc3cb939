"""Lightning's hints and warnings that don't concern our users."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence Lightning's info lines and the warnings that our own loop makes pointless."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning.pytorch")]
    levels = [log.level for log in loggers]
    for log in loggers:
        log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for message in (
                ".*does not have many workers.*",
                ".*transfer_batch_to_device.*",
                ".*Sparse invariant checks.*",
                ".*LeafSpec.*",
                ".*GPU available but not used.*",
            ):
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        for log, level in zip(loggers, levels, strict=True):
            log.setLevel(level)
