"""What `pip install` leaves behind, and what `make` says before it installs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


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


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_kuairand_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANKER_DATA", raising=False)
    command = ["make", "--no-print-directory", "data-is-named"]
    asked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert asked.returncode == 2
    assert "make kuairand DATA=DIR" in asked.stdout
    assert "RANKER_DATA" in asked.stdout
    for words, variables in (([*command, "DATA=x"], {}), (command, {"RANKER_DATA": "x"})):
        named = subprocess.run(words, cwd=ROOT, env={**os.environ, **variables}, check=False)
        assert named.returncode == 0
