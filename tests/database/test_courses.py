"""Averages over time, time beyond limits, and statistics: what `average` answers about the course of a temperature.

That every answer is exact is played at random in test_history.py. Here are the cases that have a name.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from starlette.testclient import TestClient

from local.postgres import OWNER, READER
from tests import courses
from tests.calendars import assert_points
from tests.support import SUPERUSER, Urls, migrate

NOON = datetime(2024, 12, 1, 12, tzinfo=UTC)
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
DAY = timedelta(days=1)


@pytest.fixture
def average(serve: Callable[..., TestClient], plain: Urls) -> TestClient:
    return serve("average", DATABASE_URL=plain(READER), DEADLINE_SECONDS="5")


@pytest.fixture
def owner(plain: Urls) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(plain(OWNER), autocommit=True) as connection:
        yield connection


def store(owner: psycopg.Connection[Any], *readings: tuple[datetime, float], room: str = "101") -> None:
    rows = [("B1", room, instant, temperature) for instant, temperature in readings]
    owner.cursor().executemany("INSERT INTO temperatures VALUES (%s, %s, %s, %s)", rows)


def ask(client: TestClient, start: datetime, end: datetime, what: str = "average", **query: str | float) -> Any:
    asked = {"building_id": "B1", "start": start.isoformat(), "end": end.isoformat(), **query}
    response = client.get(f"/v1/temperature/{what}", params=asked)
    assert response.status_code == 200, response.text
    return response.json()


def test_of_readings_of_one_instant_the_highest_is_the_last_however_the_database_finds_them(
    average: TestClient, owner: psycopg.Connection[Any], plain: Urls
) -> None:
    with psycopg.connect(plain(SUPERUSER), autocommit=True) as superuser:
        for way in ("indexscan", "indexonlyscan", "bitmapscan"):
            superuser.execute(f"ALTER DATABASE {superuser.info.dbname} SET enable_{way} = off")
    store(owner, (NOON, 24.0), (NOON, 20.0))
    found = ask(average, NOON, NOON + HOUR, weighting="time", statistics="first,last")
    assert (found["first"]["temperature"], found["last"]["temperature"]) == (20.0, 24.0)
    assert found["average_temperature"] == 24.0


def test_a_reading_holds_until_the_next_one(average: TestClient, owner: psycopg.Connection[Any]) -> None:
    store(owner, (NOON, 20.0), (NOON + 45 * MINUTE, 24.0))
    by_time = ask(average, NOON, NOON + HOUR, weighting="time")
    assert by_time == {
        "average_temperature": 21.0,
        "count": 2,
        "min": 20.0,
        "max": 24.0,
        "covered_seconds": 3600,
        "weighting": "time",
        "building_id": "B1",
        "room_id": None,
        "start": "2024-12-01T12:00:00Z",
        "end": "2024-12-01T13:00:00Z",
    }
    assert ask(average, NOON, NOON + HOUR)["average_temperature"] == 22.0


def test_the_reading_before_the_interval_holds_into_it(average: TestClient, owner: psycopg.Connection[Any]) -> None:
    store(owner, (NOON - HOUR, 20.0), (NOON + 30 * MINUTE, 24.0))
    answer = ask(average, NOON, NOON + HOUR, weighting="time")
    assert (answer["average_temperature"], answer["count"]) == (22.0, 1)
    quiet = ask(average, NOON + 2 * HOUR, NOON + 3 * HOUR, weighting="time")
    assert (quiet["average_temperature"], quiet["count"], "message" in quiet) == (24.0, 0, False)


@pytest.mark.parametrize("change", [datetime(2026, 3, 29, 1, tzinfo=UTC), datetime(2026, 10, 25, 1, tzinfo=UTC)])
def test_a_day_has_24_hours_whatever_the_zone_of_the_session_is(
    serve: Callable[..., TestClient],
    plain: Urls,
    owner: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
    change: datetime,
) -> None:
    monkeypatch.setenv("PGTZ", "Europe/Berlin")
    average = serve("average", DATABASE_URL=plain(READER))
    store(owner, (change - 12 * HOUR, 20.0))
    answer = ask(average, change, change + DAY, weighting="time")
    assert (answer["average_temperature"], answer["covered_seconds"]) == (20.0, 12 * 3600)


def test_a_reading_holds_no_longer_than_is_asked_for(average: TestClient, owner: psycopg.Connection[Any]) -> None:
    store(owner, (NOON, 20.0), (NOON + 45 * MINUTE, 24.0))
    answer = ask(average, NOON, NOON + HOUR, weighting="time", max_gap="15m")
    assert (answer["average_temperature"], answer["covered_seconds"]) == (22.0, 1800)
    a_day_later = ask(average, NOON + DAY, NOON + 2 * DAY, weighting="time")
    assert (a_day_later["average_temperature"], a_day_later["covered_seconds"]) == (24.0, 45 * 60)
    nothing = ask(average, NOON + 2 * DAY, NOON + 3 * DAY, weighting="time")
    assert (nothing["average_temperature"], nothing["message"]) == (None, "No data found")


def test_nothing_holds_beyond_now(average: TestClient, owner: psycopg.Connection[Any]) -> None:
    now = datetime.now(UTC)
    store(owner, (now - HOUR, 20.0), (now + HOUR, 40.0))
    answer = ask(average, now - HOUR, now + 2 * HOUR, weighting="time", above=30, statistics="last")
    assert (answer["average_temperature"], answer["count"], answer["max"]) == (20.0, 2, 40.0)
    assert 3600 <= answer["covered_seconds"] < 3700
    assert answer["above"] == {"seconds": 0, "degree_hours": 0}
    assert answer["last"]["temperature"] == 40.0


def test_each_room_of_a_building_counts_for_the_time_it_is_known(
    average: TestClient, owner: psycopg.Connection[Any]
) -> None:
    store(owner, (NOON, 20.0))
    store(owner, (NOON + 30 * MINUTE, 26.0), room="102")
    answer = ask(average, NOON, NOON + HOUR, weighting="time")
    assert (answer["average_temperature"], answer["covered_seconds"]) == (22.0, 5400)


def test_time_and_degree_hours_beyond_limits(average: TestClient, owner: psycopg.Connection[Any]) -> None:
    store(owner, (NOON, 20.0), (NOON + 15 * MINUTE, 26.0), (NOON + 30 * MINUTE, 28.5), (NOON + 45 * MINUTE, 17.0))
    answer = ask(average, NOON, NOON + HOUR, above=26, below=18)
    assert answer["above"] == {"seconds": 900, "degree_hours": 0.625}
    assert answer["below"] == {"seconds": 900, "degree_hours": 0.25}
    assert answer["average_temperature"] == 22.875
    assert "weighting" not in answer


def test_statistics_are_those_of_the_readings(average: TestClient, owner: psycopg.Connection[Any]) -> None:
    store(owner, (NOON, 20.0), (NOON + 15 * MINUTE, 26.0))
    store(owner, (NOON, 20.5), (NOON + 15 * MINUTE, 27.5), room="102")
    answer = ask(average, NOON, NOON + HOUR, statistics="stddev,first,last")
    [(expected,)] = owner.execute("SELECT stddev_pop(temperature) FROM temperatures").fetchall()
    assert answer["stddev"] == expected
    # Of readings at the same instant the colder one is the first, the warmer one the last, as everywhere.
    assert answer["first"] == {"temperature": 20.0, "timestamp": "2024-12-01T12:00:00Z"}
    assert answer["last"] == {"temperature": 27.5, "timestamp": "2024-12-01T12:15:00Z"}
    nothing = ask(average, NOON + DAY, NOON + 2 * DAY, statistics="last,stddev")
    assert (nothing["stddev"], nothing["last"], "first" in nothing) == (None, None, False)


@pytest.mark.parametrize("temperature", [0.01, -0.03, 1e-9, 0.1, 49.9])
def test_the_average_of_what_never_changes_is_just_that(
    average: TestClient, owner: psycopg.Connection[Any], temperature: float
) -> None:
    store(owner, *[(NOON + number * timedelta(seconds=37), temperature) for number in range(500)])
    for _ in range(2):
        answer = ask(average, NOON, NOON + 5 * HOUR, weighting="time", statistics="stddev")
        assert (answer["average_temperature"], answer["stddev"]) == (temperature, 0)
        owner.execute("CALL summarize()")


def test_a_series_says_how_the_temperature_was_held(average: TestClient, owner: psycopg.Connection[Any]) -> None:
    store(owner, (NOON, 20.0), (NOON + 90 * MINUTE, 23.0))
    asked: dict[str, str | float] = {"weighting": "time", "above": 22, "statistics": "first", "bucket": "1h"}
    answer = ask(average, NOON, NOON + 3 * HOUR, "series", **asked)
    assert (answer["weighting"], len(answer["series"])) == ("time", 3)
    assert [point["average_temperature"] for point in answer["series"]] == [20.0, 21.5, 23.0]
    assert [point["count"] for point in answer["series"]] == [1, 1, 0]
    query = {"building_id": "B1", "start": NOON.isoformat(), "end": (NOON + 3 * HOUR).isoformat(), **asked}
    lines = average.get("/v1/temperature/series", params=query, headers={"accept": "text/csv"}).text.splitlines()
    assert lines == [
        "start,average_temperature,count,min,max,covered_seconds,above_seconds,above_degree_hours,first",
        "2024-12-01T12:00:00Z,20.0,1,20.0,20.0,3600.0,0.0,0.0,20.0",
        "2024-12-01T13:00:00Z,21.5,1,23.0,23.0,3600.0,1800.0,0.5,23.0",
        "2024-12-01T14:00:00Z,23.0,0,,,3600.0,3600.0,1.0,",
    ]


READINGS = [(NOON + number * 7 * MINUTE, 15 + (number * 7919 % 100) / 10) for number in range(500)]
QUESTIONS: list[dict[str, str | float]] = [
    {"weighting": "time", "max_gap": "1h", "statistics": "stddev,first,last"},
    {"above": 24.5, "below": 15.5},
    {"weighting": "time", "max_gap": "5m", "above": 20, "statistics": "last"},
]
HOLDS = [HOUR, DAY, 5 * MINUTE]


def assert_exact(average: TestClient, start: datetime, end: datetime) -> None:
    for query, hold in zip(QUESTIONS, HOLDS, strict=True):
        limits = [float(query[name]) if name in query else None for name in ("above", "below")]
        meant = courses.course({"101": READINGS}, start, end, hold, *limits)
        assert courses.answered(ask(average, start, end, "average", **query)) == courses.expected(meant, query)


def assert_local_days(average: TestClient, start: datetime, end: datetime) -> None:
    """In a zone whose days begin within an hour."""
    meant = [reading for reading in READINGS if start <= reading[0] < end]
    points = ask(average, start, end, "series", bucket="1d", tz="Asia/Kathmandu")["series"]
    assert_points(points, meant, "1d", "Asia/Kathmandu")


def test_hours_of_the_version_before_get_their_course_while_they_are_asked_for(
    average: TestClient, owner: psycopg.Connection[Any], plain: Urls
) -> None:
    store(owner, *READINGS)
    owner.execute("CALL summarize()")
    for table in ("room_hours", "room_days", "room_weeks"):
        owner.execute(
            f"UPDATE {table} SET sum_of_squares = NULL, first_at = NULL, first_temperature = NULL, last_at = NULL,"
            " last_temperature = NULL, longest_gap = NULL, degree_microseconds = NULL"
        )
    owner.execute("UPDATE room_hours SET counts = NULL, sums = NULL, mins = NULL, maxs = NULL")
    owner.execute("UPDATE rooms SET courses_missing_before = 'infinity'")
    # What is dropped before it has a course would be lost to averages over time.
    owner.execute("UPDATE upkeep SET retention = '1 day'")
    while owner.execute("SELECT FROM rooms WHERE courses_missing_before IS NOT NULL").rowcount:
        assert_exact(average, NOON + 31 * MINUTE, NOON + 50 * HOUR)
        assert_local_days(average, NOON + 31 * MINUTE, NOON + 50 * HOUR)
        owner.execute("SELECT complete_courses('B1', '101', 150)")
        assert not owner.execute("SELECT FROM unsummarized").rowcount
    assert not owner.execute("SELECT FROM room_hours WHERE first_at IS NULL OR counts IS NULL").rowcount
    assert_local_days(average, NOON + 31 * MINUTE, NOON + 50 * HOUR)
    assert_exact(average, NOON + 31 * MINUTE, NOON + 50 * HOUR)
    migrate(plain(OWNER))


def test_of_readings_that_were_dropped_the_course_is_kept(average: TestClient, owner: psycopg.Connection[Any]) -> None:
    store(owner, *READINGS)
    owner.execute("UPDATE upkeep SET retention = '1 day'")
    owner.execute("CALL summarize()")
    assert not owner.execute("SELECT FROM temperatures").rowcount
    start, end = NOON + HOUR, NOON + 50 * HOUR
    meant = courses.course({"101": READINGS}, start, end, HOUR)
    query: dict[str, str | float] = {"weighting": "time", "max_gap": "1h", "statistics": "stddev,first,last"}
    assert courses.answered(ask(average, start, end, "average", **query)) == courses.expected(meant, query)
    # Whether an hour was above a limit between its lowest and highest is gone with its readings.
    assert ask(average, start, end, above=20)["above"] == {"seconds": None, "degree_hours": None}
    assert ask(average, start, end, above=25, below=14)["below"] == {"seconds": 0, "degree_hours": 0}
    # So is how long readings held that may not for longer than was between them.
    gaps = ask(average, start, end, "average", weighting="time", max_gap="5m")
    assert (gaps["average_temperature"], gaps["covered_seconds"], gaps["count"]) == (None, 0, meant["count"])
    # What comes too late counts among the readings, not in time.
    store(owner, (start + HOUR, 45.0))
    for _ in range(2):
        late = ask(average, start, end, "average", weighting="time", max_gap="1h")
        assert (late["count"], late["max"]) == (meant["count"] + 1, 45.0)
        assert late["average_temperature"] == meant["average_over_time"]
        owner.execute("CALL summarize()")
