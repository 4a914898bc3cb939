from __future__ import annotations

import time

import pytest

from ranker.scoring.stage_clock import StageClock, stage


def test_time_goes_to_the_innermost_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    clock = StageClock()
    with clock.running():
        with stage("score"):
            now[0] += 3
            with stage("encode"):
                now[0] += 5
            now[0] += 7
        now[0] += 11  # nobody's
        with pytest.raises(KeyError), stage("encode"):
            now[0] += 13
            raise KeyError
    assert clock.seconds == {"score": 10.0, "encode": 18.0}
    other = StageClock()
    other.add({"encode": 1.0, "write": 2.0})
    other.add(clock.seconds)
    assert other.seconds == {"encode": 19.0, "write": 2.0, "score": 10.0}


def test_without_a_clock_nothing_is_measured() -> None:
    with stage("alone"):
        pass
    clock = StageClock()
    with clock.running():
        pass
    with stage("after"):
        pass
    assert clock.seconds == {}
