"""What the buckets of a time zone's calendar are: a reference that is made of the local dates of instants alone."""

from bisect import bisect_left
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from functools import cache
from itertools import groupby
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
from hypothesis import strategies as st
from starlette.testclient import TestClient

from tests.exactness import Reading, insert, readings_at, summary

CHANGES = [
    ("Europe/Zurich", date(2026, 3, 29)),
    ("Europe/Zurich", date(2026, 10, 25)),
    ("Asia/Kathmandu", date(2026, 1, 1)),
    # A minute of the next day, and then an hour of the day before.
    ("America/St_Johns", date(2008, 11, 2)),
    # By half an hour.
    ("Australia/Lord_Howe", date(2026, 4, 5)),
    # A day that was skipped.
    ("Pacific/Apia", date(2011, 12, 30)),
    ("Africa/Casablanca", date(2026, 2, 15)),
    # Days without a midnight, one with two, and a gap that begins before midnight.
    ("America/Santiago", date(2025, 9, 7)),
    ("Asia/Beirut", date(2026, 3, 29)),
    ("Asia/Beirut", date(2026, 10, 25)),
    ("America/Toronto", date(1919, 3, 31)),
]
"""Zones, and a day near which something happens to their clocks."""
UNITS = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
}
BUCKETS = ["7m", "15m", "1h", "90m", "6h", "1d", "2d", "1w", "1mo", "3mo", "1y"]
History = tuple[str, list[tuple[list[Reading], bool]], datetime, datetime]
"""A zone; readings, each time with whether they are summed up then; and the interval that is asked for."""
_STEP, _LONGEST = timedelta(seconds=30), timedelta(hours=3)
_EPOCH = datetime(2000, 1, 3, tzinfo=UTC)


@cache
def day(instant: datetime, zone: str) -> date:
    """The local day: one that has begun stays, although clocks are put back into the day before."""
    local = ZoneInfo(zone)
    return max((instant - _STEP * number).astimezone(local).date() for number in range(_LONGEST // _STEP))


@cache
def place(instant: datetime, bucket: str, zone: str) -> tuple[int, int]:
    """In which bucket it is: buckets of the same size are in the order of these places."""
    unit = bucket.lstrip("0123456789")
    count = int(bucket.removesuffix(unit))
    own = day(instant, zone)
    if unit in {"mo", "y"}:
        return (12 * (own.year - 2000) + own.month - 1) // (count * (1 if unit == "mo" else 12)), 0
    if unit in {"d", "w"}:
        return (own - _EPOCH.date()).days // (count * (1 if unit == "d" else 7)), 0
    width = count * UNITS[unit]
    if timedelta(days=1) % width:
        return (instant - _EPOCH) // width, 0
    second = instant.replace(microsecond=0)
    back = bisect_left(range(60 * 3600), True, key=lambda seconds: day(second - timedelta(seconds=seconds), zone) < own)
    return own.toordinal(), (instant - second + timedelta(seconds=back - 1)) // width


def assert_points(
    points: Sequence[dict[str, Any]], meant: Sequence[tuple[datetime, float]], bucket: str, zone: str
) -> None:
    """Compare the points of a series with what the readings say, which are instants and temperatures in order."""
    groups = [
        (key, summary([temperature for _, temperature in group]))
        for key, group in groupby(meant, lambda reading: place(reading[0], bucket, zone))
    ]
    found = [datetime.fromisoformat(point["start"]) for point in points]
    assert [place(start, bucket, zone) for start in found] == [key for key, _ in groups]
    for start, point in zip(found, points, strict=True):
        assert place(start - timedelta(microseconds=1), bucket, zone) < place(start, bucket, zone), "it began before"
        assert start.utcoffset() == start.astimezone(ZoneInfo(zone)).utcoffset()
        assert point["start"].endswith(start.isoformat()[19:])
    values = ("count", "average_temperature", "min", "max")
    assert [tuple(point[name] for name in values) for point in points] == [values for _, values in groups]


@st.composite
def histories(draw: st.DrawFn, zone: str, change: date) -> History:
    """What happens near a change of the clocks of a zone."""
    midnight = datetime.combine(change, datetime.min.time(), ZoneInfo(zone)).astimezone(UTC)
    utc = datetime.combine(change, datetime.min.time(), UTC)
    instants = st.builds(
        lambda base, days, minutes, microseconds: (
            base + timedelta(days=days, minutes=minutes, microseconds=microseconds)
        ),
        st.sampled_from([midnight, midnight, utc]),
        st.integers(-2, 2),
        st.sampled_from([-60, -59, -30, -1, 0, 0, 1, 29, 30, 59, 60, 120, 180, 360, 420]),
        st.sampled_from([-1, 0, 1]),
    )
    steps = draw(st.lists(st.tuples(readings_at(instants, least=20), st.booleans()), min_size=1, max_size=3))
    everything = st.just((midnight - timedelta(days=4), midnight + timedelta(days=4)))
    start, end = draw(everything | st.tuples(instants, instants).map(lambda ends: (min(ends), max(ends))))
    return zone, steps, start, end


def assert_exact(client: TestClient, connection: psycopg.Connection[Any], history: History) -> None:
    """Store the readings, and compare series of each size over the interval with what they say."""
    zone, steps, start, end = history
    connection.execute("TRUNCATE temperatures")
    for rows, summed_up in steps:
        insert(connection, rows)
        if summed_up:
            connection.execute("CALL summarize()")
    stored = {row for rows, _ in steps for row in rows}
    for room, bucket in [("101", bucket) for bucket in BUCKETS] + [(None, "6h"), (None, "1d"), (None, "1mo")]:
        query = {"building_id": "B1", "tz": zone, "start": start.isoformat(), "end": end.isoformat(), "bucket": bucket}
        answer = client.get("/v1/temperature/series", params={**query, **({"room_id": room} if room else {})})
        assert answer.status_code == 200, answer.text
        meant = sorted(
            (row[2], row[3]) for row in stored if row[0] == "B1" and room in {None, row[1]} and start <= row[2] < end
        )
        assert_points(answer.json()["series"], meant, bucket, zone)
