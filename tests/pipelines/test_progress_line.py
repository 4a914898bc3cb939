from __future__ import annotations

import sys
import time

import pytest

from pipelines.console import Console, ProgressLine
from pipelines.progress import ProgressBar


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    return clock


def test_a_pipe_gets_a_line_every_ten_seconds(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ProgressLine(Console(), "score", started=clock())
    for now_s, done in ((105.0, 100), (112.0, 1_200), (115.0, 1_300), (130.0, 3_000)):
        clock.now_s = now_s
        line.update(done=done, total=9_000)
    out, errors = capsys.readouterr()
    # 1,200 in 12 s: 100 a second, 7,800 to go; 3,000 in 30 s, 6,000 to go
    assert out == ""
    assert errors == (
        "score: 1,200/9,000 (100/s, 1:18 left)\nscore: 3,000/9,000 (100/s, 1:00 left)\n"
    )


def test_slow_work_shows_a_fraction(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    line = ProgressLine(Console(), "train", started=clock())
    clock.now_s = 120.0
    line.update(done=5, total=7, detail="2024-03-05")
    assert capsys.readouterr().err == "train 2024-03-05: 5/7 (0.2/s, 0:08 left)\n"


def test_quick_or_quiet_work_says_nothing(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    ProgressLine(Console(), "score", started=clock()).update(done=7, total=7)
    clock.now_s = 200.0
    ProgressLine(Console(quiet=True), "score", started=100.0).update(done=3, total=7)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_shows_one_changing_line(
    clock: Clock, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    line = ProgressLine(Console(), "score", started=clock())
    for now_s, done in ((100.1, 1), (101.0, 20), (104.0, 80)):
        clock.now_s = now_s
        line.update(done=done, total=80)
    first, last = capsys.readouterr().err.split("\r")
    assert first.rstrip() == "score: 20/80 (20/s, 0:03 left)"
    assert last.endswith("\n") and last.rstrip() == "score: 80/80 (20/s, 0:00 left)"


def test_a_bar_on_a_terminal_and_a_line_in_a_pipe(
    clock: Clock, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with ProgressBar(Console(), "score") as bar:
        bar.update(0, 9_000)
        clock.now_s = 112.0
        bar.update(1_200, 9_000)
    assert capsys.readouterr().err == "score: 1,200/9,000 (100/s, 1:18 left)\n"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    for number, quiet in ((1, False), (2, True)):
        with ProgressBar(Console(quiet=quiet), "score") as bar:
            for done in (20, 80):
                bar.update(done, 80 * number)
        shown = capsys.readouterr().err
        assert (shown == "") is quiet
        assert quiet or ("score" in shown and "80/80" in shown)
