"""Intervals of time: which one a request means, and how it is covered exactly by averages kept beside the readings."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

EPOCH = datetime(2000, 1, 3, tzinfo=UTC)
"""Where buckets of every width begin: a Monday, midnight in UTC (TimescaleDB's origin too)."""
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Segment:
    """A part [start, end) of an interval: whole buckets of a width, or single readings where `width` is None."""

    width: timedelta | None
    start: datetime
    end: datetime


def floor(instant: datetime, width: timedelta) -> datetime:
    """The last boundary between buckets of the width that is not after the instant."""
    return instant - (instant - EPOCH) % width


def cover(start: datetime, end: datetime, widths: Sequence[timedelta]) -> list[Segment]:
    """Cover [start, end) without gap or overlap, each part with the widest buckets that fit.

    `widths` are ordered from wide to narrow, each a multiple of the next; `start` and `end` are in UTC.
    """
    if start >= end:
        return []
    if not widths:
        return [Segment(None, start, end)]
    width, *narrower = widths
    if end - start >= width:
        first = start + (EPOCH - start) % width
        last = floor(end, width)
        if first < last:
            return [*cover(start, first, narrower), Segment(width, first, last), *cover(last, end, narrower)]
    return cover(start, end, narrower)


def default_start(end: datetime, alignment: timedelta) -> datetime:
    """The start of an interval that names none: the boundary before `end`, minus one alignment interval.

    Raises OverflowError if that is before the year 1.
    """
    return floor(end, alignment) - alignment
