"""The check that an average is exact to the reading, for every edition: what the function answers is what SQL says of
the readings themselves."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, timezone
from itertools import product
from typing import Any

import psycopg
from hypothesis import strategies as st
from starlette.testclient import TestClient

Reading = tuple[str, str, datetime, float]

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
# Quarters of a degree are summed without rounding, in whatever order.
readings = st.lists(
    st.tuples(
        st.sampled_from(["B1", "B1", "B2"]),
        st.sampled_from(["101", "101", "102"]),
        instants,
        st.integers(-200, 200).map(lambda quarters: quarters / 4),
    ),
    max_size=40,
)
intervals = st.tuples(instants, instants, st.sampled_from(_OFFSETS)).map(
    lambda drawn: tuple(instant.astimezone(drawn[2]) for instant in sorted(drawn[:2]))
)
Ask = Callable[[dict[str, Any]], dict[str, Any]]


def insert(connection: psycopg.Connection[Any], rows: Sequence[Reading]) -> None:
    """Store readings as somebody with direct access would."""
    with connection.cursor() as cursor:
        cursor.executemany("INSERT INTO temperatures VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING", rows)


def assert_exact(client: TestClient, connection: psycopg.Connection[Any], start: datetime, end: datetime) -> None:
    """Compare averages and series of rooms and buildings over the interval with what the readings say."""
    for building, room in product(["B1"], ["101", None]):
        query = {"building_id": building, "start": start.isoformat(), "end": end.isoformat()}
        condition, parameters = "building_id = %s AND timestamp >= %s AND timestamp < %s", [building, start, end]
        if room:
            query["room_id"] = room
            condition, parameters = condition + " AND room_id = %s", [*parameters, room]
        expected = connection.execute(
            "SELECT count(*), avg(temperature), min(temperature), max(temperature)"
            f" FROM temperatures WHERE {condition}",
            parameters,
        ).fetchone()
        answer = client.get("/v1/temperature/average", params=query).json()
        assert expected == tuple(answer[name] for name in ("count", "average_temperature", "min", "max")), answer
        for bucket in ("7m", "1h", "2d"):
            expected_series = connection.execute(
                "SELECT date_bin(%s, timestamp, '2000-01-03 00:00Z'), count(*), avg(temperature), min(temperature),"
                f" max(temperature) FROM temperatures WHERE {condition} GROUP BY 1 ORDER BY 1",
                [{"7m": timedelta(minutes=7), "1h": timedelta(hours=1), "2d": timedelta(days=2)}[bucket], *parameters],
            ).fetchall()
            series = client.get("/v1/temperature/series", params={**query, "bucket": bucket}).json()["series"]
            assert expected_series == [
                (
                    datetime.fromisoformat(point["start"]),
                    *(point[name] for name in ("count", "average_temperature", "min", "max")),
                )
                for point in series
            ]
