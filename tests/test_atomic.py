from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest

from ranker.atomic import (
    MANIFEST,
    OutputError,
    check_replaceable,
    replacing_file,
    replacing_folder,
    sha256_of,
    write_json,
    write_text,
)
from ranker.manifest import find_damage, folder_digests


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    write_text(path, "one é")
    assert path.read_bytes() == "one é".encode()
    with replacing_file(path) as temporary:
        temporary.write_text("two")
        assert path.read_text() == "one é" and temporary.parent == path.parent
    assert path.read_text() == "two"
    assert names(path.parent) == ["file.txt"]


def test_failure_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "old")

    def fail() -> None:
        with replacing_file(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "old" and names(tmp_path) == ["file.txt"]


def test_json_has_no_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": [1, None, "é"]})
    assert (tmp_path / "a.json").read_text().endswith("}\n")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert "é" in (tmp_path / "a.json").read_text()


@pytest.mark.parametrize("tiny_disk", [256], indirect=True)
def test_full_disk_keeps_the_old_file(tiny_disk: Path) -> None:
    path = tiny_disk / "weights"
    write_text(path, "o" * 150_000)
    with pytest.raises(OSError, match="No space left on device") as caught:
        write_text(path, "n" * 150_000)
    assert caught.value.errno == errno.ENOSPC
    assert path.read_text() == "o" * 150_000
    assert names(tiny_disk) == ["weights"]
    write_text(path, "n" * 50_000)
    assert path.read_text() == "n" * 50_000


def test_folder_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "one"
    for text in ("first", "second"):
        with replacing_folder(path, kind="run") as temporary:
            (temporary / "sub").mkdir()
            write_text(temporary / "sub" / text, text)
            write_json(temporary / MANIFEST, {"kind": "run"})
            assert temporary.parent == path.parent
        assert names(path / "sub") == [text]
    assert names(path.parent) == ["one"]


def test_empty_folder_may_be_used(tmp_path: Path) -> None:
    with replacing_folder(tmp_path / "empty", kind="run") as temporary:
        write_text(temporary / "x", "x")
    (tmp_path / "other").mkdir()
    with replacing_folder(tmp_path / "other", kind="run") as temporary:
        write_text(temporary / "y", "y")
    assert names(tmp_path / "other") == ["y"]


def test_foreign_folder_and_file_are_refused(tmp_path: Path) -> None:
    mine = tmp_path / "photos"
    mine.mkdir()
    (mine / "cat.jpg").touch()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("nowhere")
    for path, message in [
        (mine, r"photos: is not empty and holds no manifest\.json of an earlier output"),
        (mine / "cat.jpg", "is a file; --output names a folder"),
        (tmp_path / "pipe", "is no folder, and nothing that becomes one"),
        (tmp_path / "link", "is no folder, and nothing that becomes one"),
    ]:
        with pytest.raises(OutputError, match=message), replacing_folder(path, kind="run"):
            pytest.fail("must not begin")
    assert names(mine) == ["cat.jpg"] and names(tmp_path) == ["link", "photos", "pipe"]


def test_a_link_gives_way_and_what_it_led_to_stays(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to("elsewhere")
    with replacing_folder(tmp_path / "link", kind="run") as folder:
        (folder / "new").touch()
    assert names(tmp_path) == ["elsewhere", "link"], "nothing is left behind"
    assert names(tmp_path / "link") == ["new"] and names(tmp_path / "elsewhere") == []


def test_another_kind_of_output_is_refused(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    for content, found in [('{"kind": "bundle"}', "bundle"), ("[]", "something unknown")]:
        (bundle / MANIFEST).write_text(content)
        message = f"holds {found}, and only impressions may be replaced here"
        with (
            pytest.raises(OutputError, match=message),
            replacing_folder(bundle, kind="impressions"),
        ):
            pytest.fail("must not begin")
    assert names(bundle) == [MANIFEST]


def test_failure_keeps_the_old_folder(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with replacing_folder(path, kind="run") as temporary:
        write_json(temporary / MANIFEST, {"kind": "run", "run": 1})

    def fail() -> None:
        with replacing_folder(path, kind="run") as temporary:
            write_json(temporary / MANIFEST, {"kind": "run", "run": 2})
            raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        fail()
    assert '"run": 1' in (path / MANIFEST).read_text() and names(tmp_path) == ["run"]


def test_failing_rename_brings_the_old_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run"
    with replacing_folder(path, kind="run") as temporary:
        write_json(temporary / MANIFEST, {"kind": "run", "run": 1})
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self.name.endswith(".tmp"):
            raise OSError(errno.EIO, "broken disk")
        return rename(self, target)

    def replace() -> None:
        with replacing_folder(path, kind="run") as temporary:
            write_json(temporary / MANIFEST, {"kind": "run", "run": 2})
            monkeypatch.setattr(Path, "rename", refuse)

    with pytest.raises(OSError, match="broken disk"):
        replace()
    monkeypatch.undo()
    assert '"run": 1' in (path / MANIFEST).read_text() and names(tmp_path) == ["run"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "folder"
    for name, text in [("a", "1"), ("sub/b", "2"), (MANIFEST, "{}"), ("sub/manifest.json", "3")]:
        write_text(root / name, text)
    return root


def test_digests_against_hashlib(folder: Path) -> None:
    expected = {
        name: hashlib.sha256(text).hexdigest()
        for name, text in [("a", b"1"), ("sub/b", b"2"), ("sub/manifest.json", b"3")]
    }
    assert folder_digests(folder) == expected
    assert sha256_of(folder / "a") == expected["a"]
    assert find_damage(folder, expected) == []


def test_damage_is_named(folder: Path) -> None:
    digests = folder_digests(folder)
    (folder / "a").write_text("0")
    (folder / "sub" / "b").unlink()
    (folder / "c").touch()
    assert find_damage(folder, digests) == [
        "a: its sha256 differs from the manifest's: changed or damaged",
        "sub/b: missing",
        "c: not in the manifest",
    ]


@pytest.mark.parametrize("name", ["../outside", "sub/../../outside", "/etc/hostname"])
def test_paths_outside_the_folder_are_refused(name: str, folder: Path) -> None:
    outside = folder.parent / "outside"
    outside.write_text("x")
    digests = folder_digests(folder) | {name: sha256_of(outside)}
    assert find_damage(folder, digests) == [f"{name}: the manifest names a path outside the folder"]


@pytest.fixture
def dead_process() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_what_somebody_put_into_an_output_is_not_deleted_with_it(tmp_path: Path) -> None:
    content = {"kind": "run", "files": {"a.txt": "", "deep/b.txt": ""}, "entries": ["c.txt"]}
    with replacing_folder(tmp_path / "out", kind="run") as temporary:
        write_json(temporary / MANIFEST, content)
        (temporary / "deep").mkdir()
        for name in ("a.txt", "deep/b.txt", "c.txt"):
            (temporary / name).touch()
    check_replaceable(tmp_path / "out", kind="run")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with (
        pytest.raises(OutputError, match=r"holds 'notes\.txt', which is no part of this output"),
        replacing_folder(tmp_path / "out", kind="run"),
    ):
        raise AssertionError("must not begin")
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


def test_a_device_or_pipe_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="device, pipe or socket"):
        write_text(tmp_path / "pipe", "x")
    assert (tmp_path / "pipe").is_fifo()
    with pytest.raises(OutputError, match="is a folder"):
        write_text(tmp_path, "x")


def test_a_restarted_process_may_have_the_killed_ones_number(tmp_path: Path) -> None:
    """As in a container, where the first process is always number 1."""
    with replacing_folder(tmp_path / "out", kind="run") as temporary:
        write_json(temporary / MANIFEST, {"kind": "run"})
    for kind in ("old", "tmp"):
        left = tmp_path / f".out.{os.getpid()}.{kind}"
        left.mkdir()
        (left / "half").touch()
    with replacing_folder(tmp_path / "out", kind="run") as temporary:
        write_json(temporary / MANIFEST, {"kind": "run", "number": 2})
    assert names(tmp_path) == ["out"]
    assert json.loads((tmp_path / "out" / MANIFEST).read_text())["number"] == 2


def test_what_killed_processes_left_is_cleared_up(tmp_path: Path, dead_process: int) -> None:
    mine = f".file.txt.{os.getppid()}.tmp"  # of a process that runs
    for name in (f".file.txt.{dead_process}.tmp", f".other.{dead_process}.tmp", mine):
        (tmp_path / name).write_text("half")
    write_text(tmp_path / "file.txt", "whole")
    assert names(tmp_path) == sorted([mine, f".other.{dead_process}.tmp", "file.txt"])


def test_a_folder_moved_away_by_a_killed_process_is_put_back(
    tmp_path: Path, dead_process: int
) -> None:
    path = tmp_path / "bundle"
    with replacing_folder(path, kind="run") as temporary:
        write_json(temporary / MANIFEST, {"kind": "run", "number": 1})
    path.rename(tmp_path / f".bundle.{dead_process}.old")
    (tmp_path / f".bundle.{dead_process}.tmp").mkdir()
    with pytest.raises(OSError, match="disk"), replacing_folder(path, kind="run"):
        assert names(path) == [MANIFEST]
        raise OSError("disk")
    assert names(tmp_path) == ["bundle"]
