"""Many alarms at once: how long a check of `watch` takes, and how long other requests wait meanwhile."""

import asyncio
import json
import multiprocessing
import os
import random
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from statistics import median
from threading import Event
from typing import Any

import psutil
import psycopg
from matplotlib.axes import Axes

from bench import load, stack
from bench.report import Figure, Row, say
from local.postgres import OWNER, READER, WATCHER, WRITER
from shared.database import Database
from tests.support import TimescaleMissing, Urls, timescale
from watch import alarms
from watch.rules import Rules

TEMPERATURES = {"above": 28.0, "below": 5.0}
RULES = {**TEMPERATURES, "silent": 900}
OTHER_ROOMS, OLD_ROOMS, WEEKS = 1_000, 100, 104
"""Rooms to which nothing happens; some have been there for two years, which are chunks of a week on TimescaleDB."""
IN_WEBASSEMBLY = 0.05
"""Of the rooms: it has a fraction of the speed, and one session, so that nothing else is asked meanwhile."""
READINGS_PER_SECOND, QUESTIONS_PER_SECOND = 50, 20
CHECK_SECONDS = 600
ROOMS_AT_A_TIME = 10

OTHERS = """
    INSERT INTO temperatures
    SELECT 'Others', 'room ' || room, date_trunc('second', now()) - ago, 20
    FROM (
        SELECT room, interval '1 minute' FROM generate_series(1, %(others)s) AS room
        UNION ALL
        SELECT room, week * interval '7 days'
        FROM generate_series(1, %(old)s) AS room, generate_series(1, %(weeks)s - 1) AS week
    ) AS reading (room, ago)
"""
ONCE = """
    INSERT INTO temperatures
    SELECT 'B' || room %% 100, 'room ' || room, now() - %(ago)s::interval, 20 + room %% 40 / 8.0
    FROM generate_series(1, %(rooms)s) AS room ORDER BY 1, 2
"""
DAY_READINGS = 17_280
"""A reading every five seconds."""
DAY = """
    INSERT INTO temperatures
    SELECT
        'B' || room %% 100, 'room ' || room, date_trunc('second', now()) - (number * 5 + 1) * interval '1 second',
        22 + 6.5 * sin(number / 1000.0 + room) + random()
    FROM generate_series(%(first)s::int, %(last)s::int) AS room, generate_series(0, %(each)s - 1) AS number
    ORDER BY 1, 2, 3
"""


@dataclass(frozen=True)
class Incident:
    """What happens to rooms between two checks."""

    name: str
    rooms: int
    ago: str
    """When the only reading was that came before the first of them."""
    readings: int = 0
    """That come then: one of some rooms, or a day of each room, which is so many."""
    repeats: int = 1


INCIDENTS = (
    Incident("fall silent at once", 100_000, "20 minutes"),
    Incident("are calm", 300_000, "2 minutes", 3_000, repeats=5),
    Incident("send a day", 300, "25 hours", 300 * DAY_READINGS),
)


def measure(scale: float) -> Iterator[Figure]:
    """Seconds of a check, and milliseconds of other requests meanwhile."""
    scale = 1.0 if scale >= 1 else 0.01
    rows: list[Row] = []
    with stack.postgres() as postgres:
        rows += _measured("PostgreSQL", postgres.url, scale, others=True)
    # To start it takes longer than all the rest of a trial.
    if scale == 1:
        try:
            with timescale(None) as urls, stack.migrated(urls):
                rows += _measured("TimescaleDB in WebAssembly", urls, IN_WEBASSEMBLY, others=False)
        except TimescaleMissing as missing:
            say(f"left out: {missing}")
    if url := os.environ.get("TIMESCALE_URL"):
        with timescale(url) as urls, stack.migrated(urls):
            rows += _measured("TimescaleDB", urls, scale, others=True)
    yield Figure("alarms", f"A check of many rooms, readings of {WEEKS} weeks", rows, _draw)


def _measured(database: str, urls: Urls, scale: float, *, others: bool) -> Iterator[Row]:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as watch, ExitStack() as functions:
        ports = [
            functions.enter_context(stack.function(name, urls(role))).port
            for name, role in (("ingest", WRITER), ("average", READER))
            if others
        ]
        for incident in INCIDENTS:
            rooms = max(3, round(incident.rooms * scale))
            say(f"{database}: {rooms:,} rooms that {incident.name}")
            _fill(urls(OWNER), rooms, incident.ago)
            # What came before.
            watch.submit(look, urls(WATCHER), TEMPERATURES).result()
            checks = [_check(watch, urls, ports, incident, rooms, scale) for _ in range(incident.repeats)]
            latencies = [latency for check in checks for latency in check.latencies]
            yield {
                "database": database,
                "rooms": rooms,
                "that": incident.name,
                "readings since": checks[0].readings,
                "alarms": checks[0].raised,
                "check, s": median(check.seconds for check in checks),
                "processor, s": median(check.processor for check in checks) if others else "",
                "others meanwhile": len(latencies) or "",
                "the slowest, ms": 1000 * max(latencies) if latencies else "",
            }


@dataclass(frozen=True)
class Check:
    """A check, and the other requests that were answered meanwhile."""

    readings: int
    raised: int
    seconds: float
    processor: float
    """Seconds of a processor, of `watch` and of its session at a database that is on this machine."""
    latencies: Sequence[float]


def _fill(url: str, rooms: int, ago: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("TRUNCATE temperatures, alarms, alarm_events")
        connection.execute("UPDATE watching SET checked = NULL, listening_since = '-infinity', rarely = false")
        connection.execute(OTHERS, {"others": OTHER_ROOMS, "old": OLD_ROOMS, "weeks": WEEKS})
        connection.execute(ONCE, {"rooms": rooms, "ago": ago})
        # As autovacuum does.
        connection.execute("VACUUM ANALYZE rooms")


def _check(watch: Executor, urls: Urls, ports: Sequence[int], incident: Incident, rooms: int, scale: float) -> Check:
    readings = _arrive(urls(OWNER), incident, rooms, scale)
    done = Event()
    with ThreadPoolExecutor(3) as threads:
        session = threads.submit(_used_by_session, urls(OWNER), done) if ports else None
        asked: list[Future[load.Outcome]] = []
        for port, requests, rate, status in zip(
            ports,
            (_readings(done), _questions(done, rooms)),
            (READINGS_PER_SECOND, QUESTIONS_PER_SECOND),
            (HTTPStatus.CREATED, HTTPStatus.OK),
            strict=False,
        ):
            asked.append(threads.submit(_load, port, requests, rate, status))
        seconds, processor, raised = watch.submit(look, urls(WATCHER), RULES).result()
        done.set()
        latencies = [latency for each in asked for latency in each.result().latencies]
        processor += session.result() if session else 0
    return Check(readings, raised, seconds, processor, latencies)


def _used_by_session(url: str, done: Event) -> float:
    """Seconds of a processor that the sessions of `watch` used until it was done."""
    used: dict[int, float] = {}
    with psycopg.connect(url, autocommit=True) as connection:
        while not done.wait(0.02):
            for (pid,) in connection.execute(
                "SELECT pid FROM pg_stat_activity WHERE usename = %s AND datname = current_database()", (WATCHER,)
            ):
                with suppress(psutil.Error):
                    used[pid] = sum(psutil.Process(pid).cpu_times()[:2])
    return sum(used.values())


def _arrive(url: str, incident: Incident, rooms: int, scale: float) -> int:
    with psycopg.connect(url, autocommit=True) as connection:
        if not incident.readings:
            return 0
        if incident.readings < DAY_READINGS:
            some = round(incident.readings * scale)
            connection.execute(ONCE, {"rooms": some, "ago": "1 second"})
            return some
        each = DAY_READINGS if scale == 1 else DAY_READINGS // 10
        for first in range(1, rooms + 1, ROOMS_AT_A_TIME):
            last = min(first + ROOMS_AT_A_TIME - 1, rooms)
            connection.execute(DAY, {"first": first, "last": last, "each": each})
        return rooms * each


def _load(port: int, requests: Iterator[bytes], rate: float, status: HTTPStatus) -> load.Outcome:
    return load.run(port, requests, connections=2, seconds=CHECK_SECONDS, expected={status}, rate=rate)


def _readings(done: Event) -> Iterator[bytes]:
    """Readings of rooms to which nothing happens, until that is over."""
    chance = random.Random(1)  # noqa: S311 - the same rooms in each run
    while not done.is_set():
        reading = {
            "building_id": "Others",
            "room_id": f"room {chance.randint(1, OTHER_ROOMS)}",
            "temperature": 20.5,
            "timestamp": datetime.now(UTC).isoformat(),
        }
        yield load.request("POST", "/v1/temperature", json.dumps(reading).encode())


def _questions(done: Event, rooms: int) -> Iterator[bytes]:
    """Questions about the rooms to which it happens."""
    chance = random.Random(1)  # noqa: S311 - the same rooms in each run
    while not done.is_set():
        room = chance.randint(1, rooms)
        yield load.request("GET", f"/v1/temperature/average?building_id=B{room % 100}&room_id=room%20{room}")


def look(url: str, rule: dict[str, Any]) -> tuple[float, float, int]:
    """Seconds of a check, those of a processor that it used itself, and how many alarms it raised."""
    database = Database(url, connections=1, pooled=False, deadline_seconds=60)
    told = alarms.Addressee(sink="a sink", dataschema="http://localhost/watch/alarm.v1.json", traceparent=None)
    started, processor = time.perf_counter(), time.process_time()
    counts = asyncio.run(alarms.check(database, Rules([rule]), told, None, CHECK_SECONDS))
    seconds, processor = time.perf_counter() - started, time.process_time() - processor
    assert not counts.unfinished
    return seconds, processor, counts.raised


def _draw(axes: Axes, rows: Sequence[Row]) -> None:
    databases = [*dict.fromkeys(row["database"] for row in rows)]
    names = [incident.name for incident in INCIDENTS]
    for number, database in enumerate(databases):
        own = {row["that"]: row["check, s"] for row in rows if row["database"] == database}
        places = [place + number / (len(databases) + 1) for place in range(len(names))]
        axes.bar(places, [own[name] for name in names], 1 / (len(databases) + 1), label=database)
    axes.set_xticks(range(len(names)), names)
    axes.set_yscale("log")
    axes.set_ylabel("seconds")
