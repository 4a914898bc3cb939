"""What a step frees must not be asked of the system again in the next step."""

import resource
import subprocess
import sys

import pytest

from ranker.training.freed_memory import keep_freed_memory

FAULTS = """
import resource, sys
import numpy as np
from ranker.training.freed_memory import keep_freed_memory

kept = sys.argv[1] == "kept" and keep_freed_memory()
def step():
    buffers = [np.ones(2**18) for _ in range(20)]  # 2 MiB each, 40 MiB in all
for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(word: str) -> int:
    command = [sys.executable, "-c", FAULTS, word]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def test_steps_touch_no_new_pages() -> None:
    if not keep_freed_memory():
        pytest.skip("this C library has no mallopt")
    pages_of_a_step = 40 * 2**20 // resource.getpagesize()
    assert _faults("kept") < pages_of_a_step // 10
    assert _faults("as it is") > pages_of_a_step
