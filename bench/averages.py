"""Exact averages: `average` against avg() over the readings, and against the bucket aggregate alone."""

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from statistics import median
from urllib.parse import quote

import psycopg
from matplotlib.axes import Axes

from average.queries import Scope, Temperatures
from bench import load, stack
from bench.report import Figure, Row, say
from local.postgres import OWNER, READER
from migrations.policies import BUCKET, DAY, HOUR
from shared.database import Database
from tests.support import TimescaleMissing, Urls, alembic, migrate, timescale

ROOMS, DAYS, STEP = 10, 350, 30
FIRST = datetime(2025, 12, 1, tzinfo=UTC)
INTERVALS = {
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
    "month": timedelta(days=30),
    "year": timedelta(days=349),
}
CONNECTIONS = (1, 8, 32)
SECONDS, REPEATS = 2.0, 15

RAW = """
    SELECT count(*), avg(temperature) FROM temperatures
    WHERE building_id = 'B1' AND room_id = %s AND timestamp >= %s AND timestamp < %s
"""
BUCKETS = """
    SELECT sum(count), sum(sum) / sum(count) FROM avg_temperature_time_interval
    WHERE building_id = 'B1' AND room_id = %s AND bucket >= %s AND bucket < %s
"""
Ask = Callable[[str, datetime, datetime], Awaitable[int]]
"""Averages a room over an interval and returns how many readings that were."""


def measure(scale: float) -> Iterator[Figure]:
    """Milliseconds of a statement over the interval, and answers per second over the number of connections."""
    days = DAYS if scale >= 1 else 7
    statements: list[Row] = []
    answers: list[Row] = []
    with stack.postgres() as postgres:
        _measure("PostgreSQL", postgres.url, days, scale, statements, answers)
    try:
        with timescale(None) as urls, _migrated(urls):
            _measure("TimescaleDB in WebAssembly", urls, days, scale, statements, answers)
    except TimescaleMissing as missing:
        say(f"left out: {missing}")
    if url := os.environ.get("TIMESCALE_URL"):
        with timescale(url) as urls, _migrated(urls):
            _measure("TimescaleDB", urls, days, scale, statements, answers)
    readings = f"{ROOMS * days * 86_400 // STEP:,} readings"
    yield Figure("averages", f"Average of a room, one of {ROOMS} with {readings}", statements, _draw_statements)
    yield Figure("answers", "Averages over HTTP", answers, _draw_answers)


@contextmanager
def _migrated(urls: Urls) -> Iterator[None]:
    migrate(urls(OWNER))
    yield
    alembic(urls(OWNER), "downgrade", "base")


def _measure(database: str, urls: Urls, days: int, scale: float, statements: list[Row], answers: list[Row]) -> None:
    community = database != "PostgreSQL"
    _fill(urls(OWNER), days, community)
    intervals = {name: length for name, length in INTERVALS.items() if length.days < days}
    say(f"{database}: statements")
    statements += asyncio.run(_statements(database, urls(READER), intervals, community, max(3, round(REPEATS * scale))))
    with stack.function("average", urls(READER)) as average:
        for name, length in intervals.items():
            for connections in CONNECTIONS:
                say(f"{database}: averages of one {name}, connections: {connections}")
                outcome = load.run(
                    average.port,
                    _questions(length, days),
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


def _fill(url: str, days: int, community: bool) -> None:
    started = time.monotonic()
    with psycopg.connect(url, autocommit=True) as connection:
        for day in range(0, days, 7):
            say(f"storing readings: day {day} of {days}")
            connection.execute(
                "INSERT INTO temperatures SELECT 'B1', room::text, at, 20 + extract(minute FROM at) / 8"
                " FROM generate_series(1, %s) room, generate_series(%s::timestamptz, %s, %s) at",
                (
                    ROOMS,
                    FIRST + timedelta(days=day),
                    FIRST + timedelta(days=min(day + 7, days), seconds=-STEP),
                    timedelta(seconds=STEP),
                ),
            )
        for aggregate in (BUCKET, HOUR, DAY) if community else ():
            say(f"refreshing {aggregate}")
            connection.execute(f"CALL refresh_continuous_aggregate('{aggregate}', NULL, NULL)")
        connection.execute("VACUUM ANALYZE temperatures")
    say(f"stored in {time.monotonic() - started:.0f} s")


async def _statements(
    database: str, url: str, intervals: dict[str, timedelta], community: bool, repeats: int
) -> list[Row]:
    rows: list[Row] = []
    # Ragged at both ends: days, hours, buckets and single readings all take part.
    start = FIRST + timedelta(hours=5, minutes=17, seconds=29.5)
    async with _asks(url) as asks:
        if not community:
            del asks["bucket aggregate ms"]
        for name, length in intervals.items():
            milliseconds: dict[str, list[float]] = {column: [] for column in asks}
            for repeat in range(repeats):
                # Another room each time, as if nobody had just asked for the same, and another one first: it brings
                # pages to memory for the others.
                room = str(repeat % ROOMS + 1)
                first = repeat % len(asks)
                found = {}
                for column, ask in [*asks.items()][first:] + [*asks.items()][:first]:
                    started = time.perf_counter()
                    found[column] = await ask(room, start, start + length)
                    milliseconds[column].append(1000 * (time.perf_counter() - started))
                assert found["average ms"] == found["avg() ms"], "the average is not exact"
            medians = {column: median(measured) for column, measured in milliseconds.items()}
            rows.append(
                {
                    "database": database,
                    "interval": name,
                    "readings": found["average ms"],
                    "bucket aggregate ms": "",
                    **medians,
                    "times avg()": medians["avg() ms"] / medians["average ms"],
                }
            )
    return rows


@asynccontextmanager
async def _asks(url: str) -> AsyncIterator[dict[str, Ask]]:
    temperatures = Temperatures(Database(url, connections=1, pooled=False, deadline=60))

    async def exact(room: str, start: datetime, end: datetime) -> int:
        summary = await temperatures.summary(Scope("B1", room, start, end))
        assert summary
        return summary.count

    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:

        def of(statement: str) -> Ask:
            async def ask(room: str, start: datetime, end: datetime) -> int:
                cursor = await connection.execute(statement.encode(), (room, start, end))
                row = await cursor.fetchone()
                assert row
                return int(row[0])

            return ask

        yield {"average ms": exact, "avg() ms": of(RAW), "bucket aggregate ms": of(BUCKETS)}


def _questions(length: timedelta, days: int) -> Iterator[bytes]:
    """Requests for the average of some room over some interval of the length."""
    chance = random.Random(1)  # noqa: S311 - the same questions in each run
    latest = (timedelta(days=days) - length).total_seconds()
    while True:
        start = FIRST + timedelta(seconds=chance.uniform(0, latest))
        interval = f"start={quote(start.isoformat())}&end={quote((start + length).isoformat())}"
        yield load.request(
            "GET", f"/v1/temperature/average?building_id=B1&room_id={chance.randint(1, ROOMS)}&{interval}"
        )


def _draw_statements(axes: Axes, rows: Sequence[Row]) -> None:
    for database in dict.fromkeys(row["database"] for row in rows):
        own = [row for row in rows if row["database"] == database]
        intervals = [row["interval"] for row in own]
        axes.plot(intervals, [row["avg() ms"] for row in own], "--", marker="o", label=f"avg(): {database}")
        axes.plot(intervals, [row["average ms"] for row in own], marker="o", label=f"average: {database}")
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
