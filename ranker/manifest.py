"""``manifest.json``: what a folder holds, by sha256: damage is found before it does harm."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ranker.atomic import MANIFEST, sha256_of, write_json

OWN_DIGEST = "sha256"


def write_manifest(folder: Path, content: Mapping[str, object]) -> None:
    """Write ``content``, which names the ``files`` it vouches for, and a digest of itself."""
    write_json(folder / MANIFEST, {**content, OWN_DIGEST: digest_of(content)})


def digest_of(manifest: Mapping[str, object]) -> str:
    """Hex sha256 of all it says but its own digest."""
    content = {name: value for name, value in manifest.items() if name != OWN_DIGEST}
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def is_intact(manifest: Mapping[str, Any]) -> bool:
    """False if a manifest says other than what was written; older ones have no digest to tell."""
    return manifest.get(OWN_DIGEST) in (None, digest_of(manifest))


def folder_digests(folder: Path) -> dict[str, str]:
    """Relative path -> sha256 of every file below ``folder`` but its manifest."""
    return {
        file.relative_to(folder).as_posix(): sha256_of(file)
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file != folder / MANIFEST
    }


def find_damage(folder: Path, digests: Mapping[str, str]) -> list[str]:
    """One sentence for each file that is missing, changed or not listed in ``digests``."""
    problems = find_changed(folder, digests)
    present = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    problems += [f"{name}: not in the manifest" for name in sorted(present - {*digests, MANIFEST})]
    return problems


def find_changed(folder: Path, digests: Mapping[str, str]) -> list[str]:
    """One sentence for each file of ``digests`` that is missing or changed."""
    problems = []
    for name, expected in digests.items():
        file = folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            problems.append(f"{name}: the manifest names a path outside the folder")
        elif not file.is_file():
            problems.append(f"{name}: missing")
        elif sha256_of(file) != expected:
            problems.append(f"{name}: its sha256 differs from the manifest's: changed or damaged")
    return problems
