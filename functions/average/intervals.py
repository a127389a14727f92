"""Intervals of time: which one a request means, and where its buckets begin."""

from datetime import UTC, datetime, timedelta

EPOCH = datetime(2000, 1, 3, tzinfo=UTC)
"""Where buckets of every width begin: a Monday, midnight in UTC (TimescaleDB's origin too)."""
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def floor(instant: datetime, width: timedelta) -> datetime:
    """The last boundary between buckets of the width that is not after the instant."""
    return instant - (instant - EPOCH) % width


def default_start(end: datetime, alignment: timedelta) -> datetime:
    """The start of an interval that names none: the boundary before `end`, minus one alignment interval.

    Raises OverflowError if that is before the year 1.
    """
    return floor(end, alignment) - alignment
