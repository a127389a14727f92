"""The check that an average is exact to the reading, for every edition: what the function answers is what a reference
in Python makes of the readings themselves, to the last bit."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, timezone
from fractions import Fraction
from itertools import product
from typing import Any

import psycopg
from hypothesis import strategies as st
from starlette.testclient import TestClient

from average.intervals import floor

# The days around the end of daylight-saving time in Europe, one of 25 hours on the wall.
FIRST = datetime(2024, 10, 25, tzinfo=UTC)
_OFFSETS = [UTC, timezone(timedelta(hours=2)), timezone(timedelta(hours=-9, minutes=-30))]

# Edges of days, hours and buckets, and what is next to them, are where a cover goes wrong. They are drawn often enough
# for readings to share buckets of every width.
instants = st.builds(
    lambda day, minute, microseconds: FIRST + timedelta(days=day, minutes=minute, microseconds=microseconds),
    st.integers(0, 4),
    st.sampled_from([0, 2, 58, 60, 61, 720]) | st.integers(0, 1439),
    st.sampled_from([-1, 0, 1]) | st.integers(0, 59_999_999),
)
# Tenths of a degree are no binary fractions, and other numbers have as many digits as there can be. What is closer to
# zero than 2^-57 is summed up to the nearest 2^-109.
temperatures = st.integers(-500, 500).map(lambda tenths: tenths / 10) | st.floats(-50, 50).filter(
    lambda temperature: temperature == 0 or abs(temperature) >= 2**-57
)
Reading = tuple[str, str, datetime, float]


def readings_at(instants: st.SearchStrategy[datetime], least: int = 0) -> st.SearchStrategy[list[Reading]]:
    """Readings of few rooms at some instants, `least` or more."""
    buildings, rooms = st.sampled_from(["B1", "B1", "B2"]), st.sampled_from(["101", "101", "102"])
    return st.lists(st.tuples(buildings, rooms, instants, temperatures), min_size=least, max_size=40)


readings = readings_at(instants)
intervals = st.tuples(instants, instants, st.sampled_from(_OFFSETS)).map(
    lambda drawn: tuple(instant.astimezone(drawn[2]) for instant in sorted(drawn[:2]))
)
Ask = Callable[[dict[str, Any]], dict[str, Any]]


def insert(connection: psycopg.Connection[Any], rows: Sequence[Reading]) -> None:
    """Store readings as somebody with direct access would."""
    with connection.cursor() as cursor:
        cursor.executemany("INSERT INTO temperatures VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING", rows)


def summary(temperatures: Sequence[float]) -> tuple[int, float | None, float | None, float | None]:
    """Count, average, lowest and highest, the average rounded once: to the nearest number there is."""
    if not temperatures:
        return 0, None, None, None
    total = sum(map(Fraction, temperatures), Fraction())
    return len(temperatures), float(total / len(temperatures)), min(temperatures), max(temperatures)


def assert_exact(client: TestClient, connection: psycopg.Connection[Any], start: datetime, end: datetime) -> None:
    """Compare averages and series of rooms and buildings over the interval with what the readings say."""
    rows = connection.execute("SELECT building_id, room_id, timestamp, temperature FROM temperatures").fetchall()
    for building, room in product(["B1"], ["101", None]):
        query = {"building_id": building, "start": start.isoformat(), "end": end.isoformat()}
        if room:
            query["room_id"] = room
        meant = [
            (instant, temperature)
            for of_building, of_room, instant, temperature in rows
            if of_building == building and of_room == (room or of_room) and start <= instant < end
        ]
        answer = client.get("/v1/temperature/average", params=query).json()
        found = tuple(answer[name] for name in ("count", "average_temperature", "min", "max"))
        assert found == summary([temperature for _, temperature in meant]), answer
        for bucket, width in (("7m", timedelta(minutes=7)), ("1h", timedelta(hours=1)), ("2d", timedelta(days=2))):
            buckets: dict[datetime, list[float]] = {}
            for instant, temperature in meant:
                buckets.setdefault(floor(instant.astimezone(UTC), width), []).append(temperature)
            series = client.get("/v1/temperature/series", params={**query, "bucket": bucket}).json()["series"]
            assert [
                (
                    datetime.fromisoformat(point["start"]),
                    *(point[name] for name in ("count", "average_temperature", "min", "max")),
                )
                for point in series
            ] == [(start, *summary(found)) for start, found in sorted(buckets.items())]
