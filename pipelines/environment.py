"""What this machine and its Python have, and what of it is a problem; imports nothing heavy."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

SHOWN_PACKAGES = ("torch", "pytorch-lightning", "pyarrow")
CGROUPS = Path("/sys/fs/cgroup")
GIB = 2**30
# a few times what the shipped sample needs: less is a hint, a tenth of it a problem
_COMFORTABLE_GIB = 2.0
_LEAST_GIB = 0.2
# a number at least this large is how version 1 of control groups writes "no limit"
_UNLIMITED_BYTES = 2**60


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """An installed package: ``version`` is empty if it is missing, ``tested`` the tested range."""

    name: str
    version: str
    tested: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One sentence with a remedy; ``fatal`` if ranker can't work so."""

    text: str
    fatal: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """The facts.

    Attributes:
        packages: all that ranker needs, Python among them.
        cores: that this process may use; ``machine_cores`` there are.
        memory_gib: that this process may use in all; ``free_memory_gib`` of it now.
        free_disk_gib: where ``folder`` is, which is written to if ``writable``.
        load: processes that ran or waited to, on average over the last minute.
        gpu_files: the system has an NVIDIA GPU, whether or not torch can use it.
    """

    packages: tuple[Package, ...]
    cores: int
    machine_cores: int
    memory_gib: float
    free_memory_gib: float
    folder: str
    free_disk_gib: float
    writable: bool
    load: float
    gpu_files: bool


def read_environment(folder: Path) -> Environment:
    """Look at this machine; ``folder`` is where runs would be written."""
    machine_cores = os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else machine_cores
    total, free = _memory_bytes()
    limit = group_memory_bytes(CGROUPS, _own_group())
    if limit is not None and limit < total:
        total, free = limit, min(free, limit)
    quota = group_cores(CGROUPS, _own_group())
    return Environment(
        packages=installed_packages(),
        cores=max(1, int(min(allowed, quota or allowed))),
        machine_cores=machine_cores,
        memory_gib=total / GIB,
        free_memory_gib=free / GIB,
        folder=str(folder),
        free_disk_gib=shutil.disk_usage(folder).free / GIB,
        writable=os.access(folder, os.W_OK),
        load=os.getloadavg()[0],
        gpu_files=Path("/dev/nvidia0").exists(),
    )


def installed_packages() -> tuple[Package, ...]:
    """Python and the packages that ranker requires, with the ranges that it declares."""
    metadata = importlib.metadata.metadata("ranker")
    packages = [
        Package(
            name="python",
            version=platform.python_version(),
            tested=metadata["Requires-Python"],
        )
    ]
    for requirement in importlib.metadata.requires("ranker") or []:
        if "extra ==" in requirement:
            continue
        name, tested = _split_requirement(requirement.partition(";")[0])
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            version = ""
        packages.append(Package(name=name, version=version, tested=tested))
    return tuple(packages)


def problems_of(environment: Environment) -> list[Problem]:
    """What is wrong, with what to do about it."""
    problems = [p for p in map(_package_problem, environment.packages) if p is not None]
    if environment.cores == 1:
        text = "one core is usable: train with threads: 1, more would wait for each other"
        problems.append(Problem(text=text, fatal=False))
    memory, disk = environment.free_memory_gib, environment.free_disk_gib
    if memory < _COMFORTABLE_GIB:
        text = f"{memory:.1f} GiB of memory are free: end other programs, or prepare smaller chunks"
        problems.append(Problem(text=text, fatal=memory < _LEAST_GIB))
    if not environment.writable:
        text = f"{environment.folder} may not be written to: work in another folder"
        problems.append(Problem(text=text, fatal=False))
    if disk < _COMFORTABLE_GIB:
        text = f"{disk:.1f} GiB are free where {environment.folder} is: make room, or give --output"
        problems.append(Problem(text=text, fatal=disk < _LEAST_GIB))
    return problems


def _package_problem(package: Package) -> Problem | None:
    remedy = f"pip install '{package.name}{package.tested}'"
    if package.name == "python":
        remedy = f"make the virtual environment with a Python {package.tested}"
    if not package.version:
        return Problem(text=f"{package.name} is not installed: {remedy}", fatal=True)
    place = place_in_range(package.version, package.tested)
    if place == 0:
        return None
    text = f"{package.name} {package.version} is outside the tested range {package.tested}"
    # newer ones mostly work
    return Problem(text=f"{text}: {remedy}", fatal=place < 0)


def _split_requirement(requirement: str) -> tuple[str, str]:
    """``torch<2.14,>=2.8`` as name and range, the lower bound first."""
    name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
    bounds = requirement.removeprefix(name).strip().split(",")
    return name, ",".join(sorted(bounds, reverse=True))


def place_in_range(version: str, tested: str) -> int:
    """-1 below, 0 inside, 1 above a range like ``>=2.8,<2.14``; other comparisons don't count."""
    have = _release(version)
    for comparison, bound in re.findall(r"(>=|<)\s*([\d.]+)", tested):
        if comparison == ">=" and have < _release(bound):
            return -1
        if comparison == "<" and have >= _release(bound):
            return 1
    return 0


def _release(version: str) -> tuple[int, ...]:
    """The numbers that ``2.13.0+cpu`` begins with, without zeros at their end."""
    found = re.match(r"\d+(\.\d+)*", version)
    numbers = [int(part) for part in found.group().split(".")] if found else [0]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def group_cores(root: Path, own: str) -> float | None:
    """Cores that control groups allow, of the group ``own`` and those above; None if unlimited."""
    limits = []
    for group in _and_above(own):
        quota, _, period = _read(root / group / "cpu.max").partition(" ")  # version 2
        if not quota:
            quota = _read(root / "cpu" / group / "cpu.cfs_quota_us")
            period = _read(root / "cpu" / group / "cpu.cfs_period_us")
        if quota.isdecimal() and period.isdecimal():  # neither "max" nor "-1"
            limits.append(int(quota) / int(period))
    return min(limits, default=None)


def group_memory_bytes(root: Path, own: str) -> int | None:
    """Memory that control groups allow, of the group ``own`` and those above; None if unlimited."""
    limits = []
    for group in _and_above(own):
        text = _read(root / group / "memory.max") or _read(
            root / "memory" / group / "memory.limit_in_bytes"
        )
        if text.isdecimal() and int(text) < _UNLIMITED_BYTES:
            limits.append(int(text))
    return min(limits, default=None)


def _own_group() -> str:
    """This process's control group, relative to the root."""
    for line in _read(Path("/proc/self/cgroup")).splitlines():
        hierarchy, controllers, path = line.split(":", 2)
        if hierarchy == "0" or "memory" in controllers.split(","):
            return path.strip("/")
    return ""


def _and_above(group: str) -> list[str]:
    path = Path(group)
    return [str(path), *map(str, path.parents)] if group else [""]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _memory_bytes() -> tuple[int, int]:
    """The machine's memory: all of it, and what is free or could be freed at once."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = re.search(r"^MemAvailable:\s+(\d+) kB", _read(Path("/proc/meminfo")), re.M)
    if found is None or sys.platform != "linux":
        return total, total
    return total, int(found.group(1)) * 1024
