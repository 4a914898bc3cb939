"""What every benchmark shares: its arguments, its figures, the machine, one JSON object.

A benchmark is a script run from anywhere, `python benchmarks/NAME.py [--quick]`:

    arguments = parse_arguments("input", description=__doc__)
    figures = {"prepare_s": median_figure([12.1, 11.8, 12.4])}
    publish("input", figures, arguments=arguments, seeds=[0], settings={"rows": 2_000_000})

With `--quick` the record is printed as one JSON object on stdout, and nothing else may be; say what
happens with `progress`. Without it the record is written to benchmarks/results/NAME.json.
"""

import argparse
import importlib.metadata
import json
import math
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).resolve().parent / "results"
_PACKAGES = ("torch", "numpy", "pyarrow", "pandas", "scikit-learn")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One number of a benchmark; the interval is null where it was measured or counted once."""

    value: float | None
    ci_low: float | None = None
    ci_high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """What every benchmark takes: a run under a minute or the full one, and where to write it."""

    quick: bool
    output: Path


def make_parser(name: str, *, description: str | None) -> argparse.ArgumentParser:
    """Parser of the arguments every benchmark takes; a benchmark may add its own."""
    parser = argparse.ArgumentParser(
        prog=f"benchmarks/{name}.py", description=description, allow_abbrev=False
    )
    parser.add_argument(
        "--quick", action="store_true", help="under a minute; one JSON object on stdout"
    )
    parser.add_argument(
        "--output", type=Path, default=RESULTS, help="folder the full run writes NAME.json to"
    )
    return parser


def parse_arguments(name: str, *, description: str | None = None) -> Arguments:
    """Read the command line of a benchmark that takes nothing of its own."""
    parsed = make_parser(name, description=description).parse_args()
    return Arguments(quick=parsed.quick, output=parsed.output)


def progress(message: str) -> None:
    """Say on stderr what is being measured: stdout belongs to the record."""
    print(message, file=sys.stderr, flush=True)


def median_figure(values: Sequence[float]) -> Figure:
    """Median of repeated measurements with a distribution-free 95 % interval.

    The interval lies between two order statistics; with fewer than six rounds no such interval
    reaches 95 %, and it is the whole range seen (3 rounds: 75 %; 5 rounds: 94 %). One measurement
    has none.
    """
    if len(values) == 1:
        return Figure(value=values[0])
    ordered = sorted(values)
    num = len(ordered)
    outside = [sum(math.comb(num, j) for j in range(k + 1)) * 2 / 2**num for k in range(num // 2)]
    cut = sum(share <= 0.05 for share in outside)  # how many to leave out at each end, plus one
    cut = max(cut - 1, 0)
    return Figure(
        value=statistics.median(ordered), ci_low=ordered[cut], ci_high=ordered[num - 1 - cut]
    )


def ratio_figure(numerators: Sequence[float], denominators: Sequence[float]) -> Figure:
    """Median over rounds of a ratio measured within each round: a shared machine's noise cancels.

    Raises:
        ValueError: The two were not measured in the same rounds.
    """
    if len(numerators) != len(denominators):
        raise ValueError(
            f"a ratio needs both sides in every round, got {len(numerators)} and "
            f"{len(denominators)} measurements; interleave them"
        )
    return median_figure([a / b for a, b in zip(numerators, denominators, strict=True)])


def describe_machine() -> dict[str, str | int | float]:
    """Processor, memory, versions and load: what a figure of this run depends on."""
    machine: dict[str, str | int | float] = {
        "processor": _processor_name(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1,
        "memory_gib": round(_memory_bytes() / 2**30, 1),
        "load_1min": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
    for package in _PACKAGES:
        machine[package] = importlib.metadata.version(package)
    torch = sys.modules.get("torch")  # only a benchmark that uses torch pays for importing it
    if torch is not None and torch.cuda.is_available():
        machine["accelerator"] = torch.cuda.get_device_name()
    return machine


def publish(
    name: str,
    figures: Mapping[str, Figure],
    *,
    arguments: Arguments,
    seeds: Sequence[int],
    settings: Mapping[str, object] | None = None,
    details: Mapping[str, object] | None = None,
) -> None:
    """Print the record (`--quick`) or write it to OUTPUT/NAME.json.

    Args:
        name: The benchmark's name, that of its script.
        figures: Name to figure, unit in the name (`a_4096_ranker_examples_per_s`).
        arguments: The command line.
        seeds: All seeds used.
        settings: What was measured: sizes, batch, threads.
        details: Further JSON a reader of the record may want (all rounds, curves).
    """
    record = {
        "benchmark": name,
        "quick": arguments.quick,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": _commit(),
        "machine": describe_machine(),
        "seeds": list(seeds),
        "settings": dict(settings or {}),
        "figures": {key: asdict(figure) for key, figure in figures.items()},
        "details": dict(details or {}),
    }
    text = json.dumps(record, indent=None if arguments.quick else 1, allow_nan=False)
    if arguments.quick:
        print(text)
        return
    arguments.output.mkdir(parents=True, exist_ok=True)
    path = arguments.output / f"{name}.json"
    path.write_text(text + "\n")
    progress(f"wrote {path}")


def _processor_name() -> str:
    """Linux names the processor in /proc/cpuinfo, others through `platform`."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _commit() -> str | None:
    """Short hash of the commit measured, with a + if the tree differs from it."""
    command = ["git", "describe", "--always", "--abbrev=10", "--exclude=*", "--dirty=+"]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return result.stdout.strip() or None
