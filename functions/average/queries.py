"""The statements of `average`, each exact to the reading."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache, partial
from time import perf_counter
from typing import Any

import psycopg
from prometheus_client import Gauge, Histogram
from psycopg.sql import SQL, Composed
from psycopg_pool import AsyncConnectionPool

from average.intervals import DAY, EPOCH, HOUR, Segment, cover
from shared.database import Database, fetch, within
from shared.metrics import SECONDS
from shared.problems import unavailable
from shared.rooms import ROOMS, ROOMS_OF_BUILDING

log = logging.getLogger("average")

FIRST_PAUSE = 0.05
"""Seconds before a statement is tried again on another connection; the pause doubles."""

QUERIES = Histogram(
    "temperature_query_seconds", "Statements, from the wait for a connection to the rows", buckets=SECONDS
)
POOL = Gauge("temperature_pool", "Connections there are, those that are free, and questions that wait for one", ["of"])


@dataclass(frozen=True, slots=True)
class Scope:
    """The readings that a question is about: one room, or all rooms of a building, in [start, end), in UTC."""

    building_id: str
    room_id: str | None
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Summary:
    """Some readings put together: how many, and their average, lowest and highest temperature in degrees Celsius."""

    count: int
    average: float
    min: float
    max: float


@dataclass(frozen=True, slots=True)
class Alarm:
    """A room that is, or was, too warm or cold for a threshold in degrees Celsius, or silent for one in seconds."""

    building_id: str
    room_id: str
    kind: str
    threshold: float
    temperature: float
    raised: datetime
    cleared: datetime | None


class Temperatures:
    """The readings in the database. It belongs to the event loop in which it was made.

    Every method raises Problem 503 if the database does not answer within the deadline.
    """

    def __init__(self, database: Database) -> None:
        self._deadline = database.deadline
        self._bounds = database.bounds
        self._pool = AsyncConnectionPool(
            database.url,
            kwargs=database.options,
            min_size=0,
            max_size=database.connections,
            # Left alone, the pool waits longer and longer between its attempts to connect, and so does every question
            # once the database is back.
            timeout=2,
            reconnect_timeout=1,
            open=False,
            name="average",
        )
        for label, name in (
            ("connections", "pool_size"),
            ("free", "pool_available"),
            ("waiting", "requests_waiting"),
        ):
            POOL.labels(label).set_function(partial(self._pool_now, name))
        # Unknown until the first answer, which is exact without buckets too.
        self._bucket: timedelta | None = None

    async def summary(self, scope: Scope) -> Summary | None:
        """The summary of all readings in the scope, None if there are none."""
        rows = await self._summaries(scope, None)
        return Summary(*rows[0][1:]) if rows and rows[0][1] else None

    async def series(self, scope: Scope, bucket: timedelta) -> list[tuple[datetime, Summary]]:
        """The start and the summary of each bucket of the scope that has readings, in order."""
        return [(start, Summary(*summary)) for start, *summary in await self._summaries(scope, bucket)]

    async def rooms(self, building_id: str | None) -> list[tuple[str, str, datetime, float]]:
        """The rooms of a building, or of all, that have readings, with instant and temperature of the latest one."""
        rooms: list[tuple[str, str, datetime, float]] = await self._fetch(
            _ROOMS_OF_ALL if building_id is None else _ROOMS_OF_BUILDING, {"building_id": building_id}
        )
        return rooms

    async def alarms(self, building_id: str | None, room_id: str | None) -> list[Alarm]:
        """The alarms of the rooms that are meant, the newest first: those that are open, or were within a week."""
        rows = await self._fetch(_ALARMS, {"building_id": building_id, "room_id": room_id})
        return [Alarm(*row) for row in rows]

    async def _summaries(self, scope: Scope, bucket: timedelta | None) -> list[tuple[Any, ...]]:
        while True:
            assumed = self._bucket
            widths = [width for width in (DAY, HOUR, assumed) if width and not (bucket and bucket % width)]
            segments = cover(scope.start, scope.end, widths) or [Segment(None, scope.start, scope.end)]
            statement = _statement(
                tuple(segment.width for segment in segments),
                one_room=scope.room_id is not None,
                in_buckets=bucket is not None,
            )
            rows = await self._fetch(statement, _parameters(scope, segments, bucket))
            if rows:
                self._bucket = rows[0][0]
            # The width is different from what the statement was made for: the averages were built anew meanwhile.
            if assumed in {None, self._bucket}:
                return [row[1:] for row in rows]

    async def _fetch(self, statement: bytes, parameters: dict[str, Any]) -> list[Any]:
        """The rows of a statement, within the deadline."""
        started = perf_counter()
        try:
            rows = await within(self._deadline, self._rows(statement, parameters))
        except psycopg.errors.QueryCanceled as error:
            raise unavailable("deadline", "The answer took too long to compute; ask for a shorter interval") from error
        except (TimeoutError, psycopg.Error) as error:
            raise unavailable("deadline", "The database does not answer; ask again", 5) from error
        QUERIES.observe(perf_counter() - started)
        return rows

    def _pool_now(self, name: str) -> float:
        return self._pool.get_stats().get(name, 0)

    async def _rows(self, statement: bytes, parameters: dict[str, Any]) -> list[Any]:
        await self._pool.open()
        pause = FIRST_PAUSE
        while True:
            try:
                async with self._pool.connection() as connection:
                    return await fetch(connection, self._bounds, statement, parameters)
            except psycopg.errors.QueryCanceled:
                raise
            except psycopg.OperationalError as error:
                log.warning("the database did not answer, trying again: %s", error)
                await asyncio.sleep(pause)
                pause *= 2


def _parameters(scope: Scope, segments: Sequence[Segment], bucket: timedelta | None) -> dict[str, Any]:
    parameters = {"building_id": scope.building_id, "room_id": scope.room_id, "epoch": EPOCH, "bucket": bucket}
    for number, segment in enumerate(segments):
        parameters |= {f"{name}{number}": getattr(segment, name) for name in ("width", "start", "end")}
    return parameters


@lru_cache(1000)
def _statement(widths: tuple[timedelta | None, ...], *, one_room: bool, in_buckets: bool) -> bytes:
    """The statement that sums segments of these widths up: in one row, or in one for each bucket that has readings.

    Each row holds the width of the database's narrowest averages, the start of the bucket, and a Summary.
    """
    room = SQL(
        "building_id = %(building_id)s AND room_id = %(room_id)s" if one_room else "building_id = %(building_id)s"
    )
    readings = _EACH if in_buckets else _TOGETHER
    parts: list[Composed] = []
    kept: list[Composed] = []
    for number, width in enumerate(widths):
        names = {name: SQL(f"%({name}{number})s") for name in ("width", "start", "end")}
        if width is None:
            parts.append(_READINGS.format(readings=readings, room=room, **names))
        else:
            parts.append(_AVERAGES.format(room=room, view=_VIEWS.get(width, _NARROWEST), **names))
            kept.append(SQL("({width}::interval, {start}::timestamptz, {end}::timestamptz)").format(**names))
    with_stale = SQL("").format()
    if kept:
        with_stale = _WITH_STALE.format(kept=SQL(", ").join(kept))
        parts.append(_READINGS_WHERE_STALE.format(readings=readings, room=room))
    return _text(
        _SUM.format(
            with_stale=with_stale,
            # A bucket that reaches back before the year 1 begins with it, as far as clients can tell.
            at=SQL(
                "greatest(date_bin(%(bucket)s, at, %(epoch)s), '0001-01-01 00:00+00')"
                if in_buckets
                else "NULL::timestamptz"
            ),
            group=SQL("GROUP BY 2 ORDER BY 2" if in_buckets else ""),
            parts=SQL(" UNION ALL ").join(parts),
        )
    )


def _text(statement: Composed) -> bytes:
    """The statement without its indentation: psycopg analyses one of more than 4096 characters each time."""
    return b" ".join(statement.as_bytes().split())


_VIEWS = {DAY: SQL("avg_temperature_daily"), HOUR: SQL("avg_temperature_hourly")}
_NARROWEST = SQL("avg_temperature_time_interval")

_SUM = SQL("""
    {with_stale}
    SELECT avg_temperature_bucket_width(), {at}, sum(count)::bigint, sum(sum) / sum(count)::float8, min(min), max(max)
    FROM ({parts}) AS part
    {group}
""")
# The spans of the segments in which the averages may differ from the readings, widened to whole buckets.
_WITH_STALE = SQL("""
    WITH stale AS MATERIALIZED (
        SELECT width, range_agg(tstzrange(
            date_bin(width, lower(span), %(epoch)s),
            date_bin(width, upper(span) - interval '1 microsecond', %(epoch)s) + width
        )) AS spans
        FROM (
            SELECT width, span * tstzrange(segment_start, segment_end) AS span
            FROM (VALUES {kept}) AS segment (width, segment_start, segment_end)
            JOIN avg_temperature_stale USING (width)
        ) AS stale_part
        WHERE NOT isempty(span)
        GROUP BY width
    )
""")
# The condition without a column spares the scan where a whole segment is stale.
_AVERAGES = SQL("""
    SELECT bucket AS at, sum, count, min, max FROM {view}
    WHERE {room} AND bucket >= {start} AND bucket < {end}
      AND NOT bucket <@ coalesce((SELECT spans FROM stale WHERE width = {width}), '{{}}')
      AND NOT tstzrange({start}, {end}) <@ coalesce((SELECT spans FROM stale WHERE width = {width}), '{{}}')
""")
_READINGS = SQL("SELECT {readings} FROM temperatures WHERE {room} AND timestamp >= {start} AND timestamp < {end}")
# OFFSET 0 keeps the inner query apart, so that each span is one range of the index.
_READINGS_WHERE_STALE = SQL("""
    SELECT reading.* FROM (SELECT unnest(range_agg(spans)) AS span FROM stale) AS stale_span
    CROSS JOIN LATERAL (
        SELECT {readings} FROM temperatures
        WHERE {room} AND timestamp >= lower(span) AND timestamp < upper(span) OFFSET 0
    ) AS reading
""")
_EACH = SQL("timestamp AS at, temperature AS sum, 1 AS count, temperature AS min, temperature AS max")
# Summed up where they are read: taking a million rows through UNION ALL takes as long as reading them.
_TOGETHER = SQL("""
    NULL::timestamptz AS at, sum(temperature) AS sum, count(*) AS count, min(temperature) AS min,
    max(temperature) AS max
""")
# More are more than anybody looks at.
_ALARMS = b"""
    SELECT building_id, room_id, kind, threshold, temperature, raised, cleared FROM alarms
    WHERE (cleared IS NULL OR cleared > now() - interval '7 days')
      AND (%(building_id)s::text IS NULL OR building_id = %(building_id)s)
      AND (%(room_id)s::text IS NULL OR room_id = %(room_id)s)
    ORDER BY raised DESC, building_id, room_id, kind LIMIT 1000
"""
_LATEST = SQL("""
    {rooms}
    SELECT building_id, room_id, timestamp, temperature
    FROM room CROSS JOIN LATERAL (
        SELECT timestamp, temperature FROM temperatures AS reading
        WHERE reading.building_id = room.building_id AND reading.room_id = room.room_id
        ORDER BY timestamp DESC LIMIT 1
    ) AS latest
""")
_ROOMS_OF_ALL = _text(_LATEST.format(rooms=ROOMS))
_ROOMS_OF_BUILDING = _text(_LATEST.format(rooms=ROOMS_OF_BUILDING))
