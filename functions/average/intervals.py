"""Intervals of time: which one a request means, and where its buckets begin."""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple, Self

BUCKET_ORIGIN = datetime(2000, 1, 3, tzinfo=UTC)
"""Where buckets of every fixed width begin: a Monday, midnight in UTC (TimescaleDB's origin too)."""
QUARTER_HOUR, HOUR, DAY, WEEK = timedelta(minutes=15), timedelta(hours=1), timedelta(days=1), timedelta(weeks=1)
SECOND = timedelta(seconds=1)
MONTHS_OF_UNIT = {"mo": 1, "y": 12}
"""Of the units that consist of months."""
WIDTH_OF_UNIT = {
    "s": SECOND,
    "m": timedelta(minutes=1),
    "h": HOUR,
    "d": DAY,
    "w": WEEK,
    # In 400 years there are 146,097 days.
    "mo": 146_097 * DAY / 4_800,
    "y": 146_097 * DAY / 400,
}
"""Of the units, without any change of a clock; on average where they consist of months."""
_EARLIEST, _LATEST = datetime.min.replace(tzinfo=UTC) + DAY, datetime.max.replace(tzinfo=UTC) - DAY
"""Instants that have a local time in every zone."""


def floor(instant: datetime, width: timedelta) -> datetime:
    """The last boundary between buckets of the width that is not after the instant."""
    return instant - (instant - BUCKET_ORIGIN) % width


def default_start(end: datetime, alignment: timedelta) -> datetime:
    """The start of an interval that names none: one alignment interval before the last boundary not after `end`.

    Raises OverflowError if that is before the year 1.
    """
    return floor(end, alignment) - alignment


def has_local_time(instant: datetime) -> bool:
    """Whether the instant is within the years 1 to 9999 in every zone."""
    return _EARLIEST <= instant <= _LATEST


def first_instant(day: date, zone: tzinfo) -> datetime:
    """When the day begins in the zone, in UTC: at midnight, the first one if there are two, else after the gap.

    Raises OverflowError if that is not within the years 1 to 9999.
    """
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
    instant = midnight.astimezone(UTC)
    if instant.astimezone(zone).replace(tzinfo=zone) == midnight:
        return instant
    # The gap may begin before midnight, as in Toronto in 1919. Fold 1 takes the offset after it: an instant before it.
    before = midnight.replace(fold=1).astimezone(UTC)
    offset = zone.utcoffset(before.astimezone(zone))
    seconds = range(int((instant - before) / SECOND) + 1)
    return before + SECOND * bisect_left(
        seconds, True, key=lambda second: zone.utcoffset((before + SECOND * second).astimezone(zone)) != offset
    )


class Bucket(NamedTuple):
    """So many units of time: `s`, `m`, `h`, `d`, `w`, `mo` or `y`."""

    number: int
    unit: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what is written such as `15m` or `1mo`."""
        digits = text.rstrip("smhdwoy")
        return cls(int(digits), text[len(digits) :])

    @property
    def text(self) -> str:
        """What `parse` reads."""
        return f"{self.number}{self.unit}"

    @property
    def width(self) -> timedelta:
        """How long it is on average."""
        return self.number * WIDTH_OF_UNIT[self.unit]

    def fixed_width(self, zone: tzinfo | None) -> timedelta | None:
        """How long each is in the zone, or in UTC where there is none; None for units of the calendar."""
        return None if self.unit in MONTHS_OF_UNIT or (zone and self.unit in {"d", "w"}) else self.width


class Buckets:
    """The buckets of [start, end), counted in a zone, or in UTC where there is none."""

    # No dataclass, which would make a start longer by a millisecond.
    def __init__(self, bucket: Bucket, zone: tzinfo | None, start: datetime, end: datetime) -> None:
        self.bucket = bucket
        self.zone = zone
        self.start = start
        self.end = end

    @cached_property
    def starts(self) -> tuple[datetime, ...]:
        """The boundary at which each bucket begins, in UTC and in order; of the first one it may be before `start`."""
        return tuple(self._starts())

    @property
    def count(self) -> int:
        """How many there are."""
        width = self.bucket.fixed_width(self.zone)
        if self.zone or width is None:
            return len(self.starts)
        # Without making any: there may be millions.
        return -((self.start - self.end - (self.start - BUCKET_ORIGIN) % width) // width)

    @property
    def bounds(self) -> tuple[datetime, ...]:
        """`start`, the boundaries within the interval, and `end`."""
        return (self.start, *self.starts[1:], self.end)

    @cached_property
    def grid(self) -> timedelta | None:
        """Their width if they begin at each multiple of it since BUCKET_ORIGIN; else None, and `bounds` say where."""
        width = self.bucket.width
        if self.zone is None or self.bucket.unit in MONTHS_OF_UNIT:
            return self.bucket.fixed_width(self.zone)
        try:
            first = floor(self.start, width)
        except OverflowError:
            # It would be before the year 1, where no bucket begins.
            return None
        return width if all(start == first + width * number for number, start in enumerate(self.starts)) else None

    def _starts(self) -> Iterator[datetime]:
        found: datetime | None = None
        for boundary in self._boundaries():  # pragma: no branch - no interval ends behind the last one
            # Some days are skipped, and clocks that are put back at midnight begin a day twice.
            if found is not None and found < boundary and self.start < boundary:
                yield found
            if boundary >= self.end:
                return
            found = boundary if found is None else max(found, boundary)

    def _boundaries(self) -> Iterator[datetime]:
        width = self.bucket.fixed_width(self.zone)
        if width is None:
            yield from self._days()
        elif self.zone is None or DAY % width:
            yield from _multiples(width, self.start)
        else:
            days = Buckets(Bucket(1, "d"), self.zone, self.start, self.end)._days()
            for midnight, next_midnight in pairwise(days):  # pragma: no branch - they go on beyond the end
                # From the last one that is not behind the start: a day may have 86,400.
                first = max(0, (self.start - midnight) // width)
                yield from (
                    midnight + width * number for number in range(first, -((midnight - next_midnight) // width))
                )

    def _days(self) -> Iterator[datetime]:
        """The instants at which the days begin that begin a bucket."""
        zone = self.zone or UTC
        day = self.start.astimezone(zone).date()
        number, dated, step = _numbered(self.bucket)
        first = number(day) - (number(day) - number(BUCKET_ORIGIN.date())) % step
        for boundary in range(first, number(date.max) + 1, step):
            try:
                yield first_instant(dated(max(boundary, number(date.min))), zone)
            except OverflowError:
                # East of Greenwich the year 1 begins before the first instant there is.
                yield _EARLIEST
        yield datetime.max.replace(tzinfo=UTC)


def _numbered(bucket: Bucket) -> tuple[Callable[[date], int], Callable[[int], date], int]:
    """The number of a day, or of its month; the day, or the first one of the month; and how many are a bucket."""
    if bucket.unit in MONTHS_OF_UNIT:
        return (
            lambda day: 12 * day.year + day.month - 1,
            lambda number: date(number // 12, number % 12 + 1, 1),
            bucket.number * MONTHS_OF_UNIT[bucket.unit],
        )
    return date.toordinal, date.fromordinal, bucket.width.days


def _multiples(width: timedelta, start: datetime) -> Iterator[datetime]:
    number = (start - BUCKET_ORIGIN) // width
    while True:
        try:
            yield BUCKET_ORIGIN + width * number
        except OverflowError:
            yield datetime.max.replace(tzinfo=UTC) if number > 0 else datetime.min.replace(tzinfo=UTC)
        number += 1
