"""Hours of the week in which a rule counts."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from watch.schedule import DAY_NAMES, Schedule

MONDAY = datetime(2026, 11, 23, tzinfo=ZoneInfo("Europe/Berlin"))


def at(schedule: Schedule, day: str, hour: int, minute: int = 0) -> bool:
    return schedule.includes(MONDAY.replace(day=MONDAY.day + DAY_NAMES.index(day), hour=hour, minute=minute))


def test_hours_begin_and_end_to_the_minute() -> None:
    schedule = Schedule.parse("mon-fri 07:00-18:00, Sat 08:30-12:00", "Europe/Berlin")
    assert [at(schedule, "mon", *time) for time in ((6, 59), (7, 0), (17, 59), (18, 0))] == [False, True, True, False]
    assert at(schedule, "fri", 12) and at(schedule, "sat", 8, 30)
    assert not at(schedule, "sat", 12) and not at(schedule, "sun", 10)


def test_each_day_of_the_week_has_its_name() -> None:
    for number, day in enumerate(("mon", "tue", "wed", "thu", "fri", "sat", "sun")):
        schedule = Schedule.parse(f"{day} 07:00-08:00", "Europe/Berlin")
        counts = [schedule.includes(MONDAY.replace(day=MONDAY.day + each, hour=7)) for each in range(7)]
        assert counts == [each == number for each in range(7)]


def test_hours_go_on_into_the_next_day_and_the_next_week() -> None:
    schedule = Schedule.parse("fri-sun 22:00-06:00", "Europe/Berlin")
    assert at(schedule, "sat", 5) and at(schedule, "sun", 23) and at(schedule, "mon", 5, 59)
    assert not at(schedule, "mon", 6) and not at(schedule, "fri", 21, 59)
    assert Schedule.parse("sun-mon 00:00-24:00", "UTC").multirange == "{[0,1440),[8640,10080)}"


@pytest.mark.parametrize(
    ("hours", "zone", "may"),
    [
        ("mon 07:00-18:00", "UTC", True),
        ("mon 17:59-18:00", "UTC", True),
        ("mon 18:00-19:00, sat 07:00-18:00", "UTC", False),
        ("sun 22:00-07:01", "UTC", True),
        ("sun 22:00-07:00", "UTC", False),
        ("sat 07:00-18:00", "Europe/Berlin", True),
    ],
)
def test_hours_meet_where_both_may_count(hours: str, zone: str, may: bool) -> None:
    schedule, other = Schedule.parse("mon-fri 07:00-18:00", "UTC"), Schedule.parse(hours, zone)
    assert (schedule.may_meet(other), other.may_meet(schedule)) == (may, may)


@pytest.mark.parametrize(
    "hours", ["", "mon", "mon 7-8", "mon 08:00-08:00", "moo 07:00-08:00", "mon 07:00-24:01", "mon 07:00-08:00,"]
)
def test_other_hours_are_refused(hours: str) -> None:
    with pytest.raises(ValueError, match="must be days and hours such as mon-fri 07:00-18:00"):
        Schedule.parse(hours, "UTC")


@pytest.mark.parametrize("zone", ["", "Mars", "../etc/passwd", "/etc/passwd"])
def test_other_zones_are_refused(zone: str) -> None:
    with pytest.raises(ValueError, match="are in no time zone"):
        Schedule.parse("mon 07:00-08:00", zone)
