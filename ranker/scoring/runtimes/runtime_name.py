"""The runtimes of a scoring job by name; importing the names takes no time."""

from __future__ import annotations

from typing import Literal

RuntimeName = Literal["factorised", "plain", "compiled", "onnx", "onnx_int8"]
# one list of words: told to a user, a union of two would be two errors
RuntimeChoice = Literal["factorised", "plain", "compiled", "onnx", "onnx_int8", "auto"]
EXACT_RUNTIMES: tuple[RuntimeName, ...] = ("factorised", "plain", "compiled", "onnx")
