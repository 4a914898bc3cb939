"""What holds for every command: help, suggestions, exit codes, what goes to which stream."""

from __future__ import annotations

import datetime
import errno
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from argparse import ArgumentTypeError
from pathlib import Path

import pytest
import yaml
from chain_run import Chain, run_ranker
from hypothesis import given
from hypothesis import strategies as st

from pipelines import exit_codes, verify
from pipelines.arguments import local_date, non_negative, positive
from pipelines.cli import COMMANDS, MEANING_BY_EXIT_CODE, SMALLER_PIECES, main

ROOT = Path(__file__).resolve().parents[2]
HELP_OF_ALL = """
import contextlib, io, sys
from pipelines.cli import COMMANDS, main
assert "torch" not in sys.modules, "by importing pipelines.cli"
for name in COMMANDS:
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        main([name, "--help"])
    assert f"usage: ranker {name}" in out.getvalue(), name
    assert "torch" not in sys.modules, name
    assert "pytorch_lightning" not in sys.modules, name
print("fine")
"""


def test_messages_that_find_no_room_are_lost_and_nothing_else(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "pipelines.cli", "verify", str(tmp_path / "nowhere")]
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(words, cwd=ROOT, check=False, stderr=full)
    assert ran.returncode == exit_codes.EXIT_DATA


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("was_open", [True, False])
def test_a_reader_that_goes_away_changes_nothing(
    stream: str, was_open: bool, chain: Chain, tmp_path: Path
) -> None:
    """The work is done, and a failure does not end with 0."""

    def code_of(*words: str | Path) -> int:
        reader, writer = os.pipe()
        os.close(reader)
        given = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, stream: writer}
        closed = "" if was_open else {"stdout": ">&-", "stderr": "2>&-"}[stream]
        command = shlex.join([sys.executable, "-m", "pipelines.cli", *map(str, words)])
        ran = subprocess.run(
            ["sh", "-c", f"{command} {closed}"],
            cwd=ROOT,
            check=False,
            stdout=given["stdout"],
            stderr=given["stderr"],
        )
        os.close(writer)
        return ran.returncode

    raw, output = chain.raw, tmp_path / "data"
    words = ("--users", raw.users, "--items", raw.items, "--output", output)
    assert code_of("prepare", "--schema", chain.schema, "--log", raw.log, *words) == 0
    assert (output / "manifest.json").is_file()
    assert code_of("verify", tmp_path / "nowhere") == exit_codes.EXIT_DATA
    damaged = Path(shutil.copytree(chain.bundle, tmp_path / "damaged"))
    (damaged / "notes.txt").touch()
    assert code_of("verify", damaged) == exit_codes.EXIT_DATA


def test_help_is_quick() -> None:
    words = [sys.executable, "-m", "pipelines.cli", "--help"]
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 1
    for name, text in COMMANDS.items():
        assert f"{name} " in done.stdout
        assert text in done.stdout


def test_no_help_needs_torch() -> None:
    words = [sys.executable, "-c", HELP_OF_ALL]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")


@pytest.mark.parametrize(
    "name",
    [
        "analyze",
        "candidates",
        "evaluate",
        "export",
        "join",
        "prepare",
        "score",
        "train",
        "tune-weights",
    ],
)
def test_the_usage_says_that_an_output_is_required(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit):
        main([name, "--help"])
    usage, *_ = capsys.readouterr().out.splitlines()
    assert " --output " in usage
    assert "[--output" not in usage


def test_every_exit_code_has_a_meaning() -> None:
    codes = [value for name, value in vars(exit_codes).items() if name.startswith("EXIT_")]
    assert sorted(MEANING_BY_EXIT_CODE) == sorted([0, *codes]) == [0, 1, 2, 3, 4, 5, 130]
    overview = run_ranker("--help").out
    assert "3 input data rejected; 4 a gate failed" in overview


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evalute"], "ranker: unknown command 'evalute'; did you mean 'evaluate'?"),
        (["zzz"], "ranker: unknown command 'zzz' (see ranker --help)"),
        (["--json"], "ranker: unknown command '--json'"),
        (["verify", "--quite", "x"], "unknown argument '--quite'; did you mean --quiet?"),
        # what is left out is not what was misspelt
        (["score", "--bundel", "x"], "unknown argument '--bundel'; did you mean --bundle?"),
        (["score", "--bundel=x"], "unknown argument '--bundel=x'; did you mean --bundle?"),
        (["score", "--bund", "x"], "unknown argument '--bund'; did you mean --bundle?"),
        (["verify", "one", "two"], "unknown argument 'two'"),
        (["verify"], "the following arguments are required: BUNDLE"),
        (["compare", "a", "b"], "the following arguments are required: --data"),
        (["demo", "--seed", "x"], "argument --seed: expected a whole number, got 'x'"),
        (["demo", "--seed", "-1"], "argument --seed: expected 0 or more, got -1"),
        (["score", "--set"], "argument --set: expected one argument"),
    ],
)
def test_wrong_words_are_explained(words: list[str], message: str) -> None:
    ran = run_ranker(*words)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err
    assert "Traceback" not in ran.err


def test_no_words_show_the_overview() -> None:
    ran = run_ranker()
    assert ran.code == 2
    assert "usage: ranker COMMAND" in ran.out
    assert run_ranker("--version").out.startswith("ranker 0.")


NO_CONFIG = ("audit", "demo", "doctor", "export", "kuairand", "verify", "report")
WITH_CONFIG = [n for n in COMMANDS if n not in NO_CONFIG]


@pytest.mark.parametrize("name", WITH_CONFIG)
def test_a_config_is_shown_without_its_inputs(name: str, tmp_path: Path) -> None:
    # the keys of an experiment's table have no defaults
    given = ["--config", "configs/analyze/example.yaml"] if name == "analyze" else []
    shown = run_ranker(name, *given, "--print-config")
    assert (shown.code, shown.err) == (0, "")
    again = tmp_path / "config.yaml"
    again.write_text(shown.out, encoding="utf-8")
    assert run_ranker(name, "--config", again, "--print-config").out == shown.out
    as_json = run_ranker(name, *given, "--print-config", "--json").json
    for key, value in yaml.safe_load(shown.out).items():
        assert as_json[key] == value


def test_config_mistakes_name_file_and_key(tmp_path: Path) -> None:
    file = tmp_path / "score.yaml"
    file.write_text("shard_row: 3\n", encoding="utf-8")
    ran = run_ranker("score", "--config", file, "--print-config")
    expected = f"ranker: {file}: key 'shard_row' is unknown; did you mean 'shard_rows'?\n"
    assert (ran.code, ran.out, ran.err) == (2, "", expected)
    ran = run_ranker("score", "--set", "slate.size=0", "--print-config")
    assert ran.code == 2
    assert "key 'slate.size': Input should be greater than or equal to 1, got 0" in ran.err


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "interrupted; to go on: ranker verify 'a bundle'"),
        (MemoryError(), 5, "out of memory; free some, or take fewer rows"),
        (RuntimeError("[enforce fail] can't allocate memory: 9 bytes"), 5, "out of memory"),
        (OSError(errno.ENOSPC, "No space left on device", "x"), 5, "the disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), 2, "x: Permission denied"),
    ],
)
def test_failures_have_their_codes(
    error: BaseException, code: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise error

    monkeypatch.setattr(verify, "run", fail)
    ran = run_ranker("verify", "a bundle", "--json")
    assert (ran.code, ran.out) == (code, "")
    assert message in ran.err
    assert "Traceback" not in ran.err


def test_a_bug_shows_where(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise RuntimeError("surprise")

    monkeypatch.setattr(verify, "run", fail)
    ran = run_ranker("verify", "bundle")
    assert (ran.code, ran.out) == (1, "")
    assert "Traceback" in ran.err
    assert ran.err.endswith("this is a bug in ranker; please report it with the lines above\n")


def test_a_closed_pipe_is_no_error(chain: Chain) -> None:
    """As in `ranker ... | head`."""
    words = [sys.executable, "-m", "pipelines.cli", "validate", *map(str, chain.raw_words)]
    process = subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert (process.wait(timeout=60), errors) == (0, "")


def test_results_and_messages_go_apart(chain: Chain) -> None:
    words = ["verify", chain.bundle]
    for_people = run_ranker(*words)
    assert for_people.out.startswith(f"{chain.bundle}: intact\n")
    assert for_people.err == ""
    assert run_ranker(*words, "--json").json["intact"] is True
    evaluated = run_ranker("evaluate", *chain.commands["evaluate"][:-1], chain.folder / "again")
    assert "fitting baselines" in evaluated.err
    assert "fitting baselines" not in evaluated.out
    assert evaluated.out.startswith("task ")
    again = json.loads((chain.folder / "again" / "metrics.json").read_text())
    assert again == chain.ran["evaluate"].json, "the same inputs and seed"


@given(st.dates(min_value=datetime.date(1990, 1, 1)), st.integers(0, 23))
def test_dates_are_written_as_windows_are(date: datetime.date, hour: int) -> None:
    label = date.isoformat()
    assert local_date(label) == label
    assert local_date(f"{label}T00:00") == local_date(f"{label} 00:00:00") == label
    expected = f"{label}T{hour:02d}" if hour else label
    assert local_date(f"{label}T{hour:02d}") == expected


@given(st.text(max_size=20))
def test_other_texts_are_no_dates(text: str) -> None:
    try:
        label = local_date(text)
    except ArgumentTypeError as error:
        assert "is not a local date like 2022-05-05" in str(error)
    else:
        assert local_date(label) == label
        assert datetime.datetime.fromisoformat(label) == datetime.datetime.fromisoformat(text)


@pytest.mark.parametrize(
    "text",
    ["yesterday", "2022-5-5", "2022-02-30", "", "NaT", "2022-05-05T12:30", "2022-05-05T00:00Z"],
)
def test_garbage_is_no_date(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="is not a local date"):
        local_date(text)


@pytest.mark.parametrize(
    ("kind", "good", "bad"), [(positive, "3", "0"), (non_negative, "0", "-1"), (positive, "7", "x")]
)
def test_whole_numbers(kind: object, good: str, bad: str) -> None:
    assert callable(kind)
    assert kind(good) == int(good)
    with pytest.raises(ArgumentTypeError):
        kind(bad)


@pytest.mark.parametrize("command", SMALLER_PIECES)
def test_advice_names_settings_that_the_command_has(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise MemoryError

    config = run_ranker(command, "--print-config").out
    monkeypatch.setattr(f"pipelines.{command}.run", fail)
    told = run_ranker(command, "--print-config").err
    settings = re.findall(r"(\w+)=\.\.\.", told)
    assert settings
    assert all(f"{name}:" in config for name in settings)
