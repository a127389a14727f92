"""Exact averages: what `average` asks the database, against avg() over the readings themselves."""

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from http import HTTPStatus
from statistics import median
from urllib.parse import quote

import psycopg
from matplotlib.axes import Axes
from psycopg_pool import AsyncConnectionPool

from average.courses import CourseOptions
from average.intervals import DAY, HOUR, Bucket, Buckets
from average.queries import Scope, Temperatures
from bench import load, stack
from bench.report import Figure, Row, say
from local.postgres import OWNER, READER
from shared import zones
from shared.database import Database, within
from tests.support import TimescaleMissing, Urls, timescale

BUILDING, ROOMS, STEP_SECONDS = "Y", 20, 30
"""A building with a reading of each room every 30 seconds."""
LARGE_BUILDING, MANY_ROOMS, LARGE_STEP_SECONDS = "Z", 1_000, 3 * 3600
"""One with many rooms, of which a reading comes every three hours."""
NEVER_ABOVE, DAILY_ABOVE = 26.0, 24.9
"""Degrees Celsius: readings are from 15 to 25."""
DAYS, DAYS_IN_WEBASSEMBLY, DAYS_OF_A_TRIAL = 365, 100, 2
FIRST = datetime(2025, 11, 20, tzinfo=UTC)
INTERVALS = {"hour": HOUR, "day": DAY, "month": 30 * DAY, "year": 364 * DAY}
CONNECTIONS = (1, 8, 32)
SECONDS, REPEATS, ROUNDS = 2.0, 20, 3
DEADLINE_SECONDS = 60
SLOW_MS = 500
"""What takes longer is asked three times only."""

AVERAGE = """
    SELECT count(*), avg(temperature) FROM temperatures
    WHERE building_id = %(building)s AND room_id = %(room)s AND timestamp >= %(start)s AND timestamp < %(end)s
"""
AVERAGE_OF_BUILDING = AVERAGE.replace("AND room_id = %(room)s ", "")
SERIES = AVERAGE.replace("SELECT", "SELECT date_bin('1 day', timestamp, '2000-01-03 00:00+00'),") + " GROUP BY 1"
SERIES_IN_ZONE = AVERAGE.replace("SELECT", "SELECT date_trunc('day', timestamp, '{zone}'),") + " GROUP BY 1"
SERIES_OF_BUILDING, SERIES_OF_BUILDING_IN_ZONE = (
    series.replace("AND room_id = %(room)s ", "") for series in (SERIES, SERIES_IN_ZONE)
)
HELD = """
    SELECT count(*) FILTER (WHERE timestamp >= %(start)s), sum({of} * extract(epoch FROM length)) / 3600
    FROM (
        SELECT timestamp, temperature, least(
            lead(timestamp, 1, %(end)s) OVER (ORDER BY timestamp, temperature), timestamp + interval '24:00', %(end)s
        ) - greatest(timestamp, %(start)s) AS length
        FROM temperatures
        WHERE building_id = %(building)s AND room_id = %(room)s
          AND timestamp >= %(start)s::timestamptz - interval '24:00' AND timestamp < %(end)s
    ) AS held WHERE length > interval '0'
"""
"""Degree hours: readings hold until the next one."""
NOTHING = "SELECT 0, 0"
"""What takes as long as the way to the database and back."""
LIST_OF_ALL = "SELECT building_id, room_id, timestamp, temperature FROM rooms ORDER BY building_id, room_id"


@dataclass(frozen=True)
class Question:
    """What is asked of `average`, and the SQL whose answer it is compared with."""

    name: str
    ask: Callable[[Temperatures, str], Awaitable[int]]
    """Asks about a room and returns how many readings, or rows, that were."""
    reference: str
    building: str = BUILDING
    length: timedelta = DAYS * DAY


def measure(scale: float) -> Iterator[Figure]:
    """Milliseconds of a question, and answers per second over the number of connections."""
    days = DAYS if scale >= 1 else DAYS_OF_A_TRIAL
    statements: list[Row] = []
    answers: list[Row] = []
    with stack.postgres() as postgres:
        _measure("PostgreSQL", postgres.url, days, ROOMS, scale, statements, answers)
    try:
        with timescale(None) as urls, stack.migrated(urls):
            _measure("TimescaleDB in WebAssembly", urls, min(days, DAYS_IN_WEBASSEMBLY), 2, scale, statements, answers)
    except TimescaleMissing as missing:
        say(f"left out: {missing}")
    if url := os.environ.get("TIMESCALE_URL"):
        with timescale(url) as urls, stack.migrated(urls):
            _measure("TimescaleDB", urls, days, ROOMS, scale, statements, answers)
    title = f"{ROOMS} rooms with a reading every {STEP_SECONDS} s, and {MANY_ROOMS:,} rooms"
    yield Figure("averages", title, statements, _draw_statements)
    yield Figure("answers", "Averages over HTTP", answers, _draw_answers)


def _measure(
    database: str, urls: Urls, days: int, rooms: int, scale: float, statements: list[Row], answers: list[Row]
) -> None:
    large = MANY_ROOMS if rooms == ROOMS else 0
    _fill(urls(OWNER), days, rooms, large)
    intervals = {name: length for name, length in INTERVALS.items() if length.days < days}
    say(f"{database}: statements")
    asked = [*_averages(intervals), *_of_buildings(max(intervals.values()), bool(large))]
    statements += asyncio.run(_statements(database, urls(READER), asked, rooms, max(3, round(REPEATS * scale))))
    with stack.function("average", urls(READER)) as average:
        for name, length in intervals.items():
            for connections in CONNECTIONS:
                say(f"{database}: averages of one {name}, connections: {connections}")
                outcome = load.run(
                    average.port,
                    _questions(length, days, rooms),
                    connections=connections,
                    seconds=SECONDS * scale,
                    expected={HTTPStatus.OK},
                )
                answers.append(
                    {
                        "database": database,
                        "interval": name,
                        "connections": connections,
                        "answers/s": outcome.rate,
                        "median ms": outcome.percentile(50),
                        "p99 ms": outcome.percentile(99),
                    }
                )


def _fill(url: str, days: int, rooms: int, large: int) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for building, number, step in ((BUILDING, rooms, STEP_SECONDS), (LARGE_BUILDING, large, LARGE_STEP_SECONDS)):
            started = time.monotonic()
            for day in range(0, days, 7):
                say(f"storing readings of {number} rooms: day {day} of {days}")
                connection.execute(
                    "INSERT INTO temperatures"
                    " SELECT %s, room::text, at, (20 + 5 * sin(extract(epoch FROM at) / 13000 + room))::numeric(3, 1)"
                    " FROM generate_series(1, %s) room, generate_series(%s::timestamptz, %s, %s) at",
                    (
                        building,
                        number,
                        FIRST + timedelta(days=day),
                        FIRST + timedelta(days=min(day + 7, days), seconds=-step),
                        timedelta(seconds=step),
                    ),
                )
            say(f"stored in {time.monotonic() - started:.0f} s")
            started = time.monotonic()
            connection.execute("CALL summarize(0, '{\"seconds\": 3600}')")
            say(f"summed up in {time.monotonic() - started:.0f} s")
        connection.execute("VACUUM ANALYZE")


# Ragged at both ends, so that days, hours and single readings all take part.
_RAGGED_START = FIRST + timedelta(hours=5, minutes=17, seconds=29.5)


def _averages(intervals: dict[str, timedelta]) -> Iterator[Question]:
    for name, length in intervals.items():
        yield Question(f"average of a room, {name}", _average(BUILDING, length), AVERAGE, length=length)


def _of_buildings(length: timedelta, large: bool) -> Iterator[Question]:
    yield Question(
        "average of the building", _average(BUILDING, length, whole=True), AVERAGE_OF_BUILDING, length=length
    )
    yield Question("days of a room", _days(BUILDING, length), SERIES, length=length)
    for zone in ("Europe/Zurich", "Asia/Kathmandu"):
        local = SERIES_IN_ZONE.format(zone=zone)
        yield Question(f"days of a room in {zone}", _days(BUILDING, length, zone=zone), local, length=length)
    yield Question(
        "average of a room over time",
        _course(CourseOptions(by_time=True), length),
        HELD.format(of="temperature"),
        length=length,
    )
    for name, limit in (("never is above", NEVER_ABOVE), ("every day is above", DAILY_ABOVE)):
        beyond = HELD.format(of=f"greatest(temperature - {limit}, 0)")
        yield Question(
            f"hours above what a room {name}", _course(CourseOptions(above=limit), length), beyond, length=length
        )
    yield Question("days of the building", _days(BUILDING, length, whole=True), SERIES_OF_BUILDING, length=length)
    yield Question(
        "days of the building in Asia/Kathmandu",
        _days(BUILDING, length, whole=True, zone="Asia/Kathmandu"),
        SERIES_OF_BUILDING_IN_ZONE.format(zone="Asia/Kathmandu"),
        length=length,
    )
    if large:
        yield Question(
            f"average of a building of {MANY_ROOMS:,} rooms",
            _average(LARGE_BUILDING, length, whole=True),
            AVERAGE_OF_BUILDING,
            LARGE_BUILDING,
            length,
        )

    async def rooms(temperatures: Temperatures, room: str) -> int:
        del room
        return len(await temperatures.rooms(BUILDING, ("", ""), 10_000))

    yield Question("rooms of the building", rooms, LIST_OF_ALL)


def _average(building: str, length: timedelta, *, whole: bool = False) -> Callable[[Temperatures, str], Awaitable[int]]:
    async def ask(temperatures: Temperatures, room: str) -> int:
        scope = Scope(building, None if whole else room, _RAGGED_START, _RAGGED_START + length)
        return (await temperatures.average(scope, CourseOptions())).readings

    return ask


def _course(options: CourseOptions, length: timedelta) -> Callable[[Temperatures, str], Awaitable[int]]:
    async def ask(temperatures: Temperatures, room: str) -> int:
        scope = Scope(BUILDING, room, _RAGGED_START, _RAGGED_START + length)
        return (await temperatures.average(scope, options)).readings

    return ask


def _days(
    building: str, length: timedelta, *, whole: bool = False, zone: str | None = None
) -> Callable[[Temperatures, str], Awaitable[int]]:
    async def ask(temperatures: Temperatures, room: str) -> int:
        buckets = Buckets(Bucket(1, "d"), zones.load(zone) if zone else None, _RAGGED_START, _RAGGED_START + length)
        scope = Scope(building, None if whole else room, buckets.start, buckets.end, buckets.zone)
        return sum(course.readings for _, course in await temperatures.series(scope, buckets, CourseOptions()))

    return ask


async def _statements(database: str, url: str, asked: Sequence[Question], rooms: int, repeats: int) -> list[Row]:
    rows: list[Row] = []
    temperatures = Temperatures(Database(url, connections=1, pooled=False, deadline_seconds=DEADLINE_SECONDS))
    async with AsyncConnectionPool(url, min_size=1, max_size=1, kwargs={"autocommit": True}) as pool:
        for question in asked:
            # Another room each time, as if nobody had just asked for the same.
            names = [str(repeat % rooms + 1) for repeat in range(repeats)]
            ours: list[float] = []
            reference: list[float] = []
            way: list[float] = []
            for _ in range(ROUNDS):
                await _timed(way, partial(_reference, pool, replace(question, reference=NOTHING)), names)
                expected = await _timed(reference, partial(_reference, pool, question), names)
                found = await _timed(ours, partial(question.ask, temperatures), names)
                assert question.reference == LIST_OF_ALL or found[: len(expected)] == expected, "it is not exact"
            rows.append(
                {
                    "database": database,
                    "question": question.name,
                    "readings": "" if question.reference == LIST_OF_ALL else found[0],
                    "ms": median(ours),
                    "way ms": median(way),
                    "reference ms": median(reference),
                    "times": median(reference) / median(ours),
                }
            )
    return rows


async def _timed(milliseconds: list[float], ask: Callable[[str], Awaitable[int]], rooms: Sequence[str]) -> list[int]:
    """Ask about one room after the other, and return what was found."""
    found = []
    for room in rooms:
        if len(milliseconds) >= 3 and milliseconds[-1] > SLOW_MS:
            break
        started = time.perf_counter()
        found.append(await ask(room))
        milliseconds.append(1000 * (time.perf_counter() - started))
    return found


async def _reference(pool: AsyncConnectionPool, question: Question, room: str) -> int:
    """Ask in the way of the function: a connection of a pool, within a deadline."""
    asked = {
        "building": question.building,
        "room": room,
        "start": _RAGGED_START,
        "end": _RAGGED_START + question.length,
    }

    async def ask() -> int:
        async with pool.connection() as connection:
            cursor = await connection.execute(question.reference.encode(), asked)
            return sum(row[-2] for row in await cursor.fetchall() if isinstance(row[-2], int))

    return await within(DEADLINE_SECONDS, ask())


def _questions(length: timedelta, days: int, rooms: int) -> Iterator[bytes]:
    """Requests for the average of some room over some interval of the length."""
    chance = random.Random(1)  # noqa: S311 - the same questions in each run
    latest = (timedelta(days=days) - length).total_seconds()
    while True:
        start = FIRST + timedelta(seconds=chance.uniform(0, latest))
        interval = f"start={quote(start.isoformat())}&end={quote((start + length).isoformat())}"
        yield load.request(
            "GET", f"/v1/temperature/average?building_id={BUILDING}&room_id={chance.randint(1, rooms)}&{interval}"
        )


def _draw_statements(axes: Axes, rows: Sequence[Row]) -> None:
    for database in dict.fromkeys(row["database"] for row in rows):
        own = [row for row in rows if row["database"] == database and row["question"].startswith("average of a room, ")]
        intervals = [row["question"].rpartition(" ")[2] for row in own]
        axes.plot(intervals, [row["reference ms"] for row in own], "--", marker="o", label=f"avg(): {database}")
        axes.plot(intervals, [row["ms"] for row in own], marker="o", label=f"average: {database}")
    axes.set_yscale("log")
    axes.set_xlabel("interval")
    axes.set_ylabel("milliseconds")


def _draw_answers(axes: Axes, rows: Sequence[Row]) -> None:
    for database in dict.fromkeys(row["database"] for row in rows):
        for interval in ("hour", "year"):
            own = [row for row in rows if (row["database"], row["interval"]) == (database, interval)]
            if own:
                connections = [str(row["connections"]) for row in own]
                axes.plot(connections, [row["median ms"] for row in own], marker="o", label=f"{interval}: {database}")
    axes.set_yscale("log")
    axes.set_xlabel("connections")
    axes.set_ylabel("milliseconds, median")
