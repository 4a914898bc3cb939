"""What `pip install` leaves behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_a_script_beside_the_clone_imports_the_package(tmp_path: Path) -> None:
    # The clone is a folder named ranker too: to a script beside it, a package without __init__.py.
    (tmp_path / "ranker" / "data").mkdir(parents=True)
    script = tmp_path / "mine.py"
    script.write_text("import ranker.data.windows, ranker\nprint(ranker.__file__)\n", "utf-8")
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stderr}\nan old installation? pip install -e . again"
    assert done.stdout.endswith("__init__.py\n")
