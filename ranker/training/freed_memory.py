"""The C library keeps the memory that a training step has freed, for the next step to use."""

from __future__ import annotations

import ctypes

# of glibc's malloc.h; the threshold above which memory is mapped can't be set higher
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_MAPPED_FROM_BYTES = 2**25
_KEPT_BYTES = 2**28


def keep_freed_memory() -> bool:
    """Don't give buffers back to the system only to ask for them again; whether that was possible.

    Every step frees all activations and gradients. By default glibc returns much of that at once,
    and each of its pages costs a fault when the next step touches it. Now up to 256 MiB are kept.
    Elsewhere than on glibc nothing is changed.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    mapped = mallopt(_MMAP_THRESHOLD, _MAPPED_FROM_BYTES)
    kept = mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
    return bool(mapped and kept)
