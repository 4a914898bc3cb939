import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranker.config import ConfigError
from ranker.scoring.tuning.constraint import Constraint, parse_constraint
from ranker.scoring.tuning.front import non_dominated

coordinate = st.one_of(st.integers(-3, 3).map(float), st.just(float("nan")))


@given(st.lists(st.tuples(coordinate, coordinate), max_size=25))
def test_front_by_brute_force(points: list[tuple[float, float]]) -> None:
    array = np.array(points, dtype=float).reshape(-1, 2)

    def dominates(p: tuple[float, float], q: tuple[float, float]) -> bool:
        return p[0] >= q[0] and p[1] >= q[1] and p != q

    expected = [
        p
        for n, p in enumerate(points)
        if np.isfinite(p).all()
        and not any(dominates(q, p) for q in points)
        and p not in points[:n]  # of equal points the first
    ]
    front = non_dominated(array)
    assert [tuple(row) for row in array[front].tolist()] == sorted(expected, reverse=True)
    for index in front.tolist():
        assert points.index(tuple(array[index].tolist())) == index


def test_constraints_are_read() -> None:
    names = ["like", "watch time", "engagement"]
    assert parse_constraint("like >= -0.01", quantities=names) == Constraint(
        quantity="like", bound=-0.01
    )
    assert parse_constraint(" watch time>= -2.5 % ", quantities=names) == Constraint(
        quantity="watch time", bound=-0.025
    )
    assert str(parse_constraint("engagement >= 1%", quantities=names)) == "engagement >= 0.01"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("like", "expected e.g. 'like >= 0'"),
        ("like > 0", "expected e.g. 'like >= 0'"),
        ("like >= much", "'much' is not a number"),
        ("like >= nan", "'nan' is not a number"),
        ("likes >= 0", "'likes' is not one of"),
    ],
)
def test_mistaken_constraints_say_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match="subject_to") as caught:
        parse_constraint(text, quantities=["like"])
    assert message in str(caught.value)
