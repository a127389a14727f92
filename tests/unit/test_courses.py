"""Statistics of readings, from what the database says of a course."""

import random
from decimal import Decimal, localcontext
from math import ulp

import pytest

from average.courses import Course


def course_of(temperatures: list[float]) -> tuple[float | None, float]:
    """The standard deviation that a course says, and the one that mathematics does, rounded once."""
    with localcontext() as context:
        # A square of a double has some 220 digits behind the point; nothing is rounded but the root.
        context.prec = 1000
        exact = [Decimal(temperature) for temperature in temperatures]
        total = sum(exact, Decimal(0))
        squares = sum((temperature * temperature for temperature in exact), Decimal(0))
        expected = (squares / len(exact) - (total / len(exact)) ** 2).sqrt()
        course = Course(readings=len(exact), sum=Decimal(total), sum_of_squares=Decimal(squares))
        return course.stddev, float(expected)


@pytest.mark.parametrize(
    ("temperatures", "expected"),
    [
        ([20.0], 0.0),
        ([20.0, 20.0], 0.0),
        ([1.0, -1.0], 1.0),
        # Half way between two doubles, of which the even one is meant.
        ([1 + ulp(1.0), -1.0], 1.0),
        ([1 + 3 * ulp(1.0), -1.0], 1 + 2 * ulp(1.0)),
    ],
)
def test_a_standard_deviation_is_rounded_to_the_nearest(temperatures: list[float], expected: float) -> None:
    assert course_of(temperatures) == (expected, expected)


def test_a_standard_deviation_is_rounded_once_whatever_the_readings_are() -> None:
    seed = random.randrange(10**6)
    print(f"SEED={seed}")
    game = random.Random(seed)
    for _ in range(100):
        scale = game.choice((50, 1, 1e-3, 1e-12))
        temperatures = [game.uniform(-scale, scale) for _ in range(game.choice((2, 4, 5, 8)))]
        found, expected = course_of(temperatures)
        assert found == expected, temperatures
