"""What the exit code of a command means; 0 is done."""

from __future__ import annotations

EXIT_BUG = 1
EXIT_USAGE = 2  # or a configuration that can't be used
EXIT_DATA = 3  # input data was rejected
EXIT_GATE = 4  # a gate failed: worse than what it was compared with
EXIT_RESOURCE = 5  # disk or memory
EXIT_INTERRUPTED = 130  # as shells count SIGINT
