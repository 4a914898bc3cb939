"""Named tensors in one file, in the safetensors format, written without a copy in memory.

The safetensors library copies every tensor, twice, before it writes; a table of 20 M ids would need
three times its memory. Its reader is used as it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.bool: "BOOL",
}
_ALIGNMENT = 8
_BLOCK_BYTES = 1 << 24


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], *, metadata: Mapping[str, str] | None = None
) -> str:
    """Write ``tensors`` and return the file's sha256; equal tensors give equal bytes.

    Raises:
        OSError: the disk is full or the path can't be written.
    """
    header: dict[str, object] = {}
    if metadata:
        header["__metadata__"] = dict(metadata)
    # large items first, so that each begins at a multiple of its item size
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    end = 0
    for name in names:
        tensor = tensors[name]
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for part in (len(text).to_bytes(8, "little"), text):
            digest.update(part)
            file.write(part)
        for name in names:
            _write(tensors[name], file, digest)
    return digest.hexdigest()


def _write(tensor: Tensor, file: IO[bytes], digest: hashlib._Hash) -> None:
    values = tensor.detach().cpu().contiguous().reshape(-1).numpy()
    data = values.data.cast("B") if values.size else memoryview(b"")
    for start in range(0, len(data), _BLOCK_BYTES):
        block = data[start : start + _BLOCK_BYTES]
        digest.update(block)
        file.write(block)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name, and the metadata; nothing in the file is executed.

    Raises:
        ValueError: not a safetensors file, or damaged.
        OSError: it can't be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            # copies: what the library returns maps the file, which may be replaced or unmounted
            tensors = {n: file.get_tensor(n).clone() for n in file.keys()}  # noqa: SIM118 (no dict)
            return tensors, dict(file.metadata() or {})
    except SafetensorError as error:
        raise ValueError(f"{path}: is no safetensors file: {error}") from None
