"""README's quick tour, run as it stands: does each command still print what is shown below it?

    python benchmarks/readme_tour.py [--folder DIR] [--write]

Every bash block of the tour is run in order, in a folder with the checkout's data and configs. A
shown line belongs to the first printed one that says the same in other numbers; ``...`` stands for
any lines, or for the rest of one. --write puts the printed lines in their place.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from record import REPOSITORY, progress

README = REPOSITORY / "README.md"
FROM, TO = "## A quick tour", "## Bring your own log"
ACTIVATE = "source .venv/bin/activate"
UNTIMED = ("ranker doctor",)  # it judges the machine, not the tour
EXIT_GATE = 4  # compare's answer, not a failure
_BLOCKS = re.compile(
    r"^```bash\n(?P<commands>.*?)^```\n(?:\n(?:<!--[^\n]*-->\n)?```text\n(?P<shown>.*?)^```\n)?",
    re.DOTALL | re.MULTILINE,
)
_NUMBER = re.compile(r"[-+−]?\d[\d,.]*(e-?\d+)?")
_VERDICT = re.compile(r"\b(A is )?(better|worse|cannot tell)\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """One bash block of the tour; ``shown`` is "" where README shows no output."""

    commands: str
    shown: str


def stops_of(text: str) -> Iterator[Stop]:
    """The tour's blocks, in order."""
    tour = text[text.index(FROM) : text.index(TO)]
    for found in _BLOCKS.finditer(tour):
        yield Stop(commands=found["commands"], shown=found["shown"] or "")


def run_tour(stops: Sequence[Stop], folder: Path) -> list[str]:
    """What each block prints.

    Raises:
        RuntimeError: a command failed.
    """
    for name in ("data", "configs"):
        (folder / name).symlink_to(REPOSITORY / name)
    search = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    printed, before = [], ""
    for stop in stops:
        commands = "\n".join(
            line for line in stop.commands.splitlines() if line not in (ACTIVATE, *UNTIMED)
        )
        if commands.startswith("raw="):
            before = commands  # a shell array that later blocks use
        script = f"{before}\n{commands}"
        progress(commands.splitlines()[0] if commands else "(left out)")
        ran = subprocess.run(
            ["bash", "-e", "-c", script],
            cwd=folder,
            env={**os.environ, "PATH": search},
            capture_output=True,
            text=True,
            check=False,
        )
        if ran.returncode not in (0, EXIT_GATE):
            raise RuntimeError(f"{commands}\nexited with {ran.returncode}:\n{ran.stderr}")
        printed.append(ran.stdout)
    return printed


def bring_up_to_date(shown: str, printed: str) -> tuple[str, list[str]]:
    """``shown`` with the printed lines in place of its own, and the lines nobody printed."""
    lines, missing, rest = [], [], printed.splitlines()
    is_cut = any(line.endswith("...") and line.strip() != "..." for line in shown.splitlines())
    for line in shown.splitlines():
        if line.strip() == "..." or (is_cut and set(line) <= {"-", " "}):  # a cut table's rule
            lines.append(line)
            continue
        place = next((n for n, real in enumerate(rest) if _same(line, real)), None)
        if place is None:
            lines.append(line)
            missing.append(line)
        else:
            cut = line.endswith("...") and not rest[place].endswith("...")
            lines.append(_cut_like(line, rest[place]) if cut else rest[place])
            rest = rest[place + 1 :]
    return "".join(f"{line}\n" for line in lines), missing


def _same(shown: str, real: str) -> bool:
    if shown.endswith("..."):
        beginning = _masked(shown.removesuffix("..."))
        return _masked(real).startswith(beginning.removesuffix("#"))
    return _masked(shown) == _masked(real)


def _cut_like(shown: str, real: str) -> str:
    """The real line cut where the shown one was: after as many words."""
    words = re.findall(r"\s*\S+", real)
    return "".join(words[: len(shown.removesuffix("...").split())]) + " ..."


def _masked(line: str) -> str:
    """A line without its numbers, verdicts and widths."""
    line = _VERDICT.sub("verdict", _NUMBER.sub("#", line))
    return re.sub(r"-{3,}", "--", re.sub(r"\s+", " ", line)).strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--folder", type=Path, help="keep the tour's files here")
    parser.add_argument("--write", action="store_true", help="bring README.md up to date")
    parsed = parser.parse_args()
    text = README.read_text()
    stops = list(stops_of(text))
    with tempfile.TemporaryDirectory(prefix="ranker-tour-") as temporary:
        folder = parsed.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        outputs = run_tour(stops, folder)
    num_missing = 0
    for stop, printed in zip(stops, outputs, strict=True):
        if stop.shown:
            updated, missing = bring_up_to_date(stop.shown, printed)
            num_missing += len(missing)
            for line in missing:
                progress(f"not printed by {stop.commands.splitlines()[0]}: {line}")
            if missing:
                progress(printed)
            text = text.replace(stop.shown, updated)
    if parsed.write:
        README.write_text(text)
    sys.exit(1 if num_missing else 0)


if __name__ == "__main__":
    main()
