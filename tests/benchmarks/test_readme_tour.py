from pathlib import Path

import pytest
from readme_tour import README, bring_up_to_date, run_tour, stops_of

PRINTED = """\
task   metric  ranker                   verdict
-----  ------  -----------------------  -----------
click  auc     0.7511 [0.7454, 0.7565]  better
like   auc     0.8866 [0.8713, 0.9015]  cannot tell
took 11.5 s: plan 0.1, read 0.2, write 0.3
"""


def test_lines_are_found_by_what_they_say_besides_numbers() -> None:
    shown = """\
task  metric  ranker             verdict
----  ------  -----------------  -------
click auc     0.9 [0.8, 1.0]     worse
...
"""
    updated, missing = bring_up_to_date(shown, PRINTED)
    assert missing == []
    assert updated.splitlines() == [*PRINTED.splitlines()[:3], "..."]


def test_a_cut_line_is_cut_after_as_many_words() -> None:
    shown = "---- ---\n...\ntook 2 s: plan 0.7, ...\n"
    updated, missing = bring_up_to_date(shown, PRINTED)
    assert missing == []
    assert updated == "---- ---\n...\ntook 11.5 s: plan 0.1, ...\n"


@pytest.mark.parametrize(
    "line",
    [
        "task metric ranker baseline verdict",  # a column more
        "comment auc 0.7 [0.6, 0.8] better",  # a row that isn't printed
        "took 2 s: read 0.2, ...",  # a word less in the middle
    ],
)
def test_what_is_not_printed_is_told(line: str) -> None:
    updated, missing = bring_up_to_date(f"{line}\n", PRINTED)
    assert missing == [line]
    assert updated == f"{line}\n"


def test_lines_keep_their_order() -> None:
    first, second = PRINTED.splitlines()[2:4]
    assert bring_up_to_date(f"{second}\n{first}\n", PRINTED)[1] == [first]


@pytest.mark.slow
def test_the_tour_prints_what_readme_shows(tmp_path: Path) -> None:
    stops = list(stops_of(README.read_text(encoding="utf-8")))
    assert len(stops) > 12
    for stop, printed in zip(stops, run_tour(stops, tmp_path), strict=True):
        assert bring_up_to_date(stop.shown, printed)[1] == [], stop.commands
