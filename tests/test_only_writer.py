import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ranker.atomic import OutputError
from ranker.only_writer import only_writer

HOLD = """
import os, sys, time
from pathlib import Path
from ranker.only_writer import only_writer

with only_writer(Path(sys.argv[1]), command="train"):
    child = os.fork()  # as a loader's worker is
    if child == 0:
        time.sleep(60)
        os._exit(0)
    print(child, flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_and_a_dead_one_blocks_nobody(tmp_path: Path) -> None:
    words = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        orphan = int(holder.stdout.readline())
        try:
            with (
                pytest.raises(OutputError, match="another `ranker train` is writing there"),
                only_writer(tmp_path, command="train"),
            ):
                raise AssertionError("two writers")
            holder.kill()
            holder.wait()
            with only_writer(tmp_path, command="train"):
                pass
        finally:
            holder.kill()
            os.kill(orphan, signal.SIGKILL)


def test_the_next_in_the_same_process(tmp_path: Path) -> None:
    for _ in range(2):
        with only_writer(tmp_path, command="train"):
            pass
