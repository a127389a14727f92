"""Hours of the week in a time zone, in which a rule counts: `mon-fri 07:00-18:00, sat 08:00-12:00`."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from shared import zones

DAY_NAMES = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MINUTES = 24 * 60
WEEK_MINUTES = 7 * DAY_MINUTES
HOURS_MUST_BE = "must be days and hours such as mon-fri 07:00-18:00, sat 08:00-12:00"

_PART = re.compile(r"([a-z]{3})(?:-([a-z]{3}))? ([0-2]\d):([0-5]\d)-([0-2]\d):([0-5]\d)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Schedule:
    """The hours of a week in which a rule counts."""

    zone: str
    """An IANA time zone."""
    spans: tuple[tuple[int, int], ...]
    """From which minute of the local week, which begins on Monday, to which; the end does not belong to it."""

    @classmethod
    def parse(cls, hours: str, zone: str) -> Self:
        """Read hours of days. Those that end before they begin go on into the next day.

        Raises ValueError, whose message says what they must be.
        """
        try:
            zones.load(zone)
        except ValueError:
            raise ValueError(f"are in no time zone: {zone!r}; one is Europe/Berlin") from None
        spans: list[tuple[int, int]] = []
        for part in hours.lower().split(","):
            found = _PART.fullmatch(part.strip())
            if not found or not {found[1], found[2] or found[1]} <= {*DAY_NAMES}:
                raise ValueError(HOURS_MUST_BE)
            first, last = DAY_NAMES.index(found[1]), DAY_NAMES.index(found[2] or found[1])
            begin, end = (60 * int(found[hour]) + int(found[hour + 1]) for hour in (3, 5))
            if max(begin, end) > DAY_MINUTES or begin == end:
                raise ValueError(HOURS_MUST_BE)
            length = end - begin if end > begin else end - begin + DAY_MINUTES
            for day in range(first, last + 1 if last >= first else last + 8):
                start = day % 7 * DAY_MINUTES + begin
                spans.append((start, min(start + length, WEEK_MINUTES)))
                if start + length > WEEK_MINUTES:
                    spans.append((0, start + length - WEEK_MINUTES))
        return cls(zone, tuple(sorted(spans)))

    @property
    def multirange(self) -> str:
        """The minutes as an int4multirange of PostgreSQL."""
        return "{" + ",".join(f"[{begin},{end})" for begin, end in self.spans) + "}"

    def may_meet(self, other: Self) -> bool:
        """Whether both may count at one instant: in two zones they may, which change their clocks apart."""
        return self.zone != other.zone or any(
            begin < other_end and other_begin < end
            for begin, end in self.spans
            for other_begin, other_end in other.spans
        )

    def includes(self, instant: datetime) -> bool:
        """Whether the rule counts at an instant."""
        local = instant.astimezone(zones.load(self.zone))
        minute = local.weekday() * DAY_MINUTES + local.hour * 60 + local.minute
        return any(begin <= minute < end for begin, end in self.spans)
