"""Buckets at both ends of time, where Python has no more instants, and where a zone leaves days out."""

import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from average.intervals import Bucket, Buckets
from shared import zones

EARLIEST, LATEST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
LOCAL = datetime(1, 1, 2, tzinfo=UTC)
"""The first instant that has a local time in every zone."""


def at(year: int, month: int = 1, day: int = 1) -> datetime:
    return datetime(year, month, day, tzinfo=UTC)


@pytest.mark.parametrize(
    ("bucket", "zone", "start", "end", "starts"),
    [
        ("3650d", None, EARLIEST, at(1, 3), [EARLIEST]),
        ("3650d", None, at(9999), LATEST, [at(9994, 9, 11)]),
        ("1y", None, at(9998, 6), LATEST, [at(9998), at(9999)]),
        ("1mo", None, at(9999, 11), LATEST, [at(9999, 11), at(9999, 12)]),
        ("10y", None, at(1, 2), at(1, 3), [EARLIEST]),
        ("10y", "Asia/Tokyo", LOCAL, at(1, 3), [LOCAL]),
    ],
)
def test_the_first_and_the_last_bucket_are_as_long_as_there_is_time(
    bucket: str, zone: str | None, start: datetime, end: datetime, starts: list[datetime]
) -> None:
    buckets = Buckets(Bucket.parse(bucket), zones.load(zone) if zone else None, start, end)
    assert list(buckets.starts) == starts
    assert buckets.bounds == (start, *starts[1:], end)


def test_months_begin_in_january_however_many_make_a_bucket() -> None:
    """Counted from January 2000, the month of the origin."""
    for bucket, starts in (
        ("1mo", [at(2026, 1), at(2026, 2), at(2026, 3), at(2026, 4)]),
        ("3mo", [at(2026, 1), at(2026, 4)]),
        ("7mo", [at(2025, 9), at(2026, 4)]),
        ("1y", [at(2026)]),
    ):
        assert list(Buckets(Bucket.parse(bucket), None, at(2026, 1, 15), at(2026, 4, 15)).starts) == starts


@pytest.mark.parametrize(
    ("zone", "before", "after"),
    [
        ("Pacific/Apia", datetime(2011, 12, 29, 10, tzinfo=UTC), datetime(2012, 1, 1, 10, tzinfo=UTC)),
        ("Pacific/Kwajalein", datetime(1993, 8, 20, 12, tzinfo=UTC), datetime(1993, 8, 23, 12, tzinfo=UTC)),
    ],
)
def test_a_day_that_a_zone_skips_is_no_bucket(zone: str, before: datetime, after: datetime) -> None:
    starts = Buckets(Bucket(1, "d"), ZoneInfo(zone), before, after).starts
    assert len(starts) == len(set(starts))
    assert [end - start for start, end in pairwise(starts)] == [timedelta(days=1)] * (len(starts) - 1)


def test_the_end_of_a_day_costs_no_more_than_its_begin() -> None:
    zone, day = ZoneInfo("Europe/Zurich"), datetime(2026, 11, 26, 23, tzinfo=UTC)

    def seconds(start: datetime) -> float:
        began = time.process_time()
        assert len(Buckets(Bucket(1, "s"), zone, start, start + timedelta(minutes=10)).starts) == 600
        return time.process_time() - began

    begin = min(seconds(day) for _ in range(3))
    assert min(seconds(day + timedelta(hours=23, minutes=50)) for _ in range(3)) < 10 * begin
