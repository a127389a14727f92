"""How cost grows: with the rooms there are, and with the readings that are stored."""

import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from http import HTTPStatus
from itertools import repeat

import psycopg
from matplotlib.axes import Axes

from bench import bodies, load, stack
from bench.report import Figure, Row, say
from local.postgres import OWNER, READER, WRITER, Postgres

ROOMS, STORED = (3, 100, 10_000, 100_000), (100_000, 1_000_000, 10_000_000)
USUAL_ROOMS = 100
STEP = timedelta(seconds=30)
NOW = datetime(2026, 11, 1, tzinfo=UTC)
"""The instant of the newest reading that is stored before a measurement."""
SECONDS = 3.0

FILL = """
    INSERT INTO temperatures
    SELECT 'B' || room %% 5, room::text, %(now)s - number * %(step)s, 20 + number %% 40 / 8.0
    FROM generate_series(0, %(rooms)s - 1) room, generate_series(0, %(each)s - 1) number
    ORDER BY 1, 2, 3
"""


def measure(scale: float) -> Iterator[Figure]:
    """Readings per second, and latency of questions, over rooms and over stored readings."""
    many_rooms, many_stored = (ROOMS, STORED) if scale >= 1 else (ROOMS[:2], (10_000, STORED[0]))
    usual_stored = many_stored[-2]
    with (
        stack.postgres() as postgres,
        stack.function("ingest", postgres.url(WRITER)) as ingest,
        stack.function("average", postgres.url(READER)) as average,
    ):
        for name, over, title, tables in (
            (
                "rooms",
                "rooms",
                f"{usual_stored:,} stored readings, more and more rooms",
                [(rooms, usual_stored) for rooms in many_rooms],
            ),
            (
                "stored",
                "stored readings",
                f"{USUAL_ROOMS} rooms, more and more stored readings",
                [(USUAL_ROOMS, stored) for stored in many_stored],
            ),
        ):
            rows: list[Row] = []
            for rooms, stored in tables:
                say(f"{rooms:,} rooms, {stored:,} readings")
                _fill(postgres, rooms, stored // rooms)
                rows.append(_measured(postgres, ingest.port, average.port, rooms, SECONDS * scale))
            yield Figure(name, title, rows, partial(_draw, over=over))


def _fill(postgres: Postgres, rooms: int, each: int) -> None:
    """Have just the last readings of each room, so many of each."""
    stack.empty(postgres.url)
    with psycopg.connect(postgres.url(OWNER), autocommit=True) as connection:
        connection.execute(FILL, {"now": NOW, "step": STEP, "rooms": rooms, "each": each})
        connection.execute("CALL summarize()")
        connection.execute("VACUUM ANALYZE")


def _measured(postgres: Postgres, ingest: int, average: int, rooms: int, seconds: float) -> Row:
    """What `ingest` and `average`, at their ports, do with the table as it is."""
    with psycopg.connect(postgres.url(OWNER), autocommit=True) as connection:
        found = connection.execute(
            "SELECT count(*), pg_total_relation_size('temperatures') / count(*) FROM temperatures"
        ).fetchone()
        assert found
    asked = partial(load.run, average, seconds=seconds, expected={HTTPStatus.OK})
    hour = asked(_questions(rooms, "room_id={room}&building_id={building}"), connections=8)
    building = asked(_questions(rooms, "building_id={building}"), connections=1)
    pages = {
        limit: asked(repeat(load.request("GET", f"/v1/temperature/rooms?limit={limit}")), connections=1)
        for limit in (500, 10_000)
    }
    sent = partial(load.run, ingest, seconds=seconds)
    singles = sent(bodies.singles(rooms), connections=32)
    size = 1_000
    arrays = sent(iter(bodies.arrays(size, int(250_000 * seconds / size), rooms)), connections=4)
    return {
        "rooms": rooms,
        "stored readings": found[0],
        "bytes of each": found[1],
        "single readings/s": singles.rate,
        "p99 ms": singles.percentile(99),
        f"in arrays of {size:,}/s": arrays.rate * size,
        "average of a room's hour, ms": hour.percentile(50),
        "p99": hour.percentile(99),
        "of a building's hour, ms": building.percentile(50),
        **{f"page of {limit:,} rooms, ms": page.percentile(50) for limit, page in pages.items()},
    }


def _questions(rooms: int, scope: str) -> Iterator[bytes]:
    chance = random.Random(1)  # noqa: S311 - the same questions in each run
    interval = f"start={NOW - timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}&end={NOW:%Y-%m-%dT%H:%M:%SZ}"
    while True:
        room = chance.randrange(rooms)
        asked = scope.format(room=room, building=f"B{room % 5}")
        yield load.request("GET", f"/v1/temperature/average?{asked}&{interval}")


def _draw(axes: Axes, rows: Sequence[Row], over: str) -> None:
    numbers = [row[over] for row in rows]
    for column in ("in arrays of 1,000/s", "single readings/s"):
        axes.plot(numbers, [row[column] for row in rows], marker="o", label=column)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel(over)
    axes.set_ylabel("readings per second")
    axes.set_ylim(1_000, 1_000_000)
