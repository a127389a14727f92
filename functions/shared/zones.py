"""Time zones by their IANA names. Their rules come from the package tzdata alone, whatever the machine knows."""

from bisect import bisect_left
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

_BEGIN = datetime(1800, 1, 1, tzinfo=UTC)
"""Before any zone."""
_SECOND = timedelta(seconds=1)
_STEP_SECONDS = 3 * 24 * 60 * 60
"""No zone has changed its offset twice within so long: Recife did within a week, in 2000."""


@cache
def load(name: str) -> "ZoneInfo":
    """The time zone of that name, such as Europe/Zurich. Raises ValueError if there is none."""
    # Most requests and rules name none, and a start would pay for it.
    from zoneinfo import ZoneInfo

    if name not in _names():
        raise ValueError(f"{name!r} is no IANA time zone; one is Europe/Zurich")
    with (_folder() / "zoneinfo" / name).open("rb") as file:
        return ZoneInfo.from_file(file, key=name)


class Change(NamedTuple):
    """A change of the offset from UTC that a zone has."""

    since: datetime
    offset: timedelta


def changes(name: str) -> Sequence[Change]:
    """All changes of a zone until the end of next year, in order; the first is the offset that it begins with.

    With them a database counts by these rules, and needs none of its own. Raises ValueError if there is no such zone.
    """
    return _changes(name, datetime.now(UTC).year + 2)


@cache
def _changes(name: str, end_year: int) -> Sequence[Change]:
    zone = load(name)

    def offset(second: int) -> timedelta:
        return zone.utcoffset((_BEGIN + second * _SECOND).astimezone(zone)) or timedelta()

    found = [Change(datetime.min.replace(tzinfo=UTC), offset(0))]
    seconds = (datetime(end_year, 1, 1, tzinfo=UTC) - _BEGIN) // _SECOND
    for begin in range(0, seconds, _STEP_SECONDS):
        before, after = found[-1].offset, offset(begin + _STEP_SECONDS)
        if before != after:
            step = range(begin, begin + _STEP_SECONDS)
            second = begin + bisect_left(step, True, key=lambda each: offset(each) != before)
            found.append(Change(_BEGIN + second * _SECOND, after))
    return found


@cache
def _names() -> frozenset[str]:
    return frozenset((_folder() / "zones").read_text(encoding="utf-8").split())


def _folder() -> Path:
    import tzdata

    return Path(tzdata.__file__).parent
