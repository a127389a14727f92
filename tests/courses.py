"""What the readings of rooms say of the course of their temperature: a reference in Python, with fractions, reading by
reading, without any summary."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Context, Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Any

from tests.exactness import summary

Of = Mapping[str, Sequence[tuple[datetime, float]]]
"""Instant and temperature of the readings of each room."""
_MICROSECOND = timedelta(microseconds=1)
_HOUR_MICROSECONDS = 3_600_000_000


def course(
    rooms: Of, start: datetime, end: datetime, hold: timedelta, above: float | None = None, below: float | None = None
) -> dict[str, Any]:
    """What is to be answered for [start, end), which is in the past."""
    meant = sorted(
        (*reading, room) for room, readings in rooms.items() for reading in readings if start <= reading[0] < end
    )
    count, average, lowest, highest = summary([temperature for _, temperature, _ in meant])
    held = [each for readings in rooms.values() for each in _holds(readings, start, end, hold)]
    covered = sum(length for _, length in held)
    answer: dict[str, Any] = {
        "count": count,
        "average": average,
        "average_over_time": float(_weighted(held) / covered) if covered else None,
        "covered_seconds": covered / 1_000_000,
        "min": lowest,
        "max": highest,
        "stddev": _stddev([temperature for _, temperature, _ in meant]),
        "first": _reading(meant[:1]),
        "last": _reading(meant[-1:]),
    }
    for name, limit, beyond in (
        ("above", above, [each for each in held if above is not None and each[0] > above]),
        ("below", below, [each for each in held if below is not None and each[0] < below]),
    ):
        if limit is not None:
            length = sum(length for _, length in beyond)
            difference = abs(_weighted(beyond) - Fraction(limit) * length)
            answer[name] = {"seconds": length / 1_000_000, "degree_hours": float(difference / _HOUR_MICROSECONDS)}
    return answer


def _holds(
    readings: Iterable[tuple[datetime, float]], start: datetime, end: datetime, hold: timedelta
) -> Iterable[tuple[float, int]]:
    """Each temperature, and for how many microseconds of the interval it held."""
    for (instant, temperature), (following, _) in pairwise([*sorted(readings), (end + hold, 0.0)]):
        length = min(following, instant + hold, end) - max(instant, start)
        if length > timedelta(0):
            yield temperature, length // _MICROSECOND


def _weighted(held: Iterable[tuple[float, int]]) -> Fraction:
    return sum((Fraction(temperature) * length for temperature, length in held), Fraction())


def _stddev(temperatures: Sequence[float]) -> float | None:
    if not temperatures:
        return None
    exact = [Fraction(temperature) for temperature in temperatures]
    mean = sum(exact, Fraction()) / len(exact)
    variance = sum(((temperature - mean) ** 2 for temperature in exact), Fraction()) / len(exact)
    digits = Context(prec=400)
    return float(digits.sqrt(digits.divide(Decimal(variance.numerator), Decimal(variance.denominator))))


def _reading(meant: Sequence[tuple[datetime, float, str]]) -> tuple[datetime, float] | None:
    return meant[0][:2] if meant else None


def answered(answer: Mapping[str, Any]) -> dict[str, Any]:
    """The values of an answer, with instants."""
    names = ("count", "min", "max", "covered_seconds", "stddev", "above", "below")
    found = {name: answer[name] for name in names if name in answer}
    for name in ("first", "last"):
        if name in answer:
            reading = answer[name]
            found[name] = reading and (datetime.fromisoformat(reading["timestamp"]), reading["temperature"])
    return {**found, "average": answer["average_temperature"]}


def expected(course: Mapping[str, Any], query: Mapping[str, Any]) -> dict[str, Any]:
    """What of a course a question asks for, as `answered` has it."""
    by_time = query.get("weighting") == "time"
    names = ["count", "min", "max", *(name for name in ("above", "below") if name in query)]
    names += query["statistics"].split(",") if "statistics" in query else []
    if by_time or "above" in query or "below" in query:
        names.append("covered_seconds")
    return {**{name: course[name] for name in names}, "average": course["average_over_time" if by_time else "average"]}
