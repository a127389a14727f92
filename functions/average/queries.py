"""What `average` asks the database."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from enum import Enum
from functools import partial
from math import inf
from time import perf_counter
from typing import Any, LiteralString, NamedTuple, Self
from uuid import UUID

import psycopg
from prometheus_client import Gauge, Histogram

from average import courses, summaries
from average.courses import Course, CourseOptions
from average.intervals import DAY, HOUR, QUARTER_HOUR, WEEK, Buckets, floor
from average.pool import Pool
from average.summaries import Statements
from average.turns import BRIEF_SECONDS, Turns
from shared.alarms import Kind, Severity, State
from shared.backoff import Backoff
from shared.database import EXTENSION_UPDATED_ERRORS, Database, Instants, fetch, unanswered, within
from shared.metrics import HISTOGRAM_SECONDS
from shared.problems import unavailable

log = logging.getLogger("average")

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.05, 10
"""Until a statement is tried again on another connection."""
LONGEST_CONNECTION_SECONDS = 60
"""An instance that was the primary answers for as long, where Patroni stands still and PostgreSQL does not.

A connection is replaced when it is given back, or after as long without a question.
"""

TOO_LONG = "The answer took too long to compute; ask for a shorter interval"

QUERIES = Histogram(
    "temperature_query_seconds",
    "Statements, from the wait for a connection to the rows or the deadline",
    buckets=HISTOGRAM_SECONDS,
)
POOL = Gauge("temperature_pool", "Connections there are, those that are free, and questions that wait for one", ["of"])


@dataclass(frozen=True, slots=True)
class Scope:
    """The readings that a question is about: one room, or all rooms of a building, in [start, end), in UTC."""

    building_id: str
    room_id: str | None
    start: datetime
    end: datetime
    zone: tzinfo | None = None
    """That in which they are asked for, None for UTC."""


class Alarm(NamedTuple):
    """A room that is, or was, too warm or cold for a threshold in degrees Celsius, or silent for one in seconds."""

    id: UUID
    building_id: str
    room_id: str
    kind: Kind
    severity: Severity
    threshold: float
    temperature: float
    raised: datetime
    cleared: datetime | None
    noticed: datetime


class Room(NamedTuple):
    """A room, and its latest reading."""

    building_id: str
    room_id: str
    timestamp: datetime
    temperature: float


class Place(NamedTuple):
    """The place of a reading in the order of the readings of a building."""

    room_id: str
    timestamp: datetime
    temperature: float


class Values(NamedTuple):
    """Readings of a room, in order."""

    room_id: str
    text: bytes
    """On each line the timestamp in UTC, without a zone but within quotation marks, and the temperature."""
    number: int
    last: datetime
    """The timestamp of the last one."""


class AlarmPlace(NamedTuple):
    """A place in the order of alarms: first those that are open, each the newest first."""

    over: bool
    raised: datetime
    building_id: str
    room_id: str
    kind: Kind
    id: UUID

    @classmethod
    def of(cls, alarm: Alarm) -> Self:
        """The place of an alarm."""
        over = alarm.cleared is not None
        return cls(over, alarm.raised, alarm.building_id, alarm.room_id, alarm.kind, alarm.id)


@dataclass(frozen=True, slots=True)
class AlarmScope:
    """The alarms that a question is about: those that were open at some time in [start, end), or are now."""

    building_id: str | None
    room_id: str | None
    kind: Kind | None
    state: State | None
    start: datetime
    end: datetime | None
    after: AlarmPlace | None
    """The last one of the answer before."""
    limit: int


class Temperatures:
    """The readings in the database. It belongs to the event loop in which it was made.

    Every method raises Problem 503 if the database does not answer within the deadline.
    """

    def __init__(self, database: Database) -> None:
        self._deadline_seconds = database.deadline_seconds
        self._bounds = database.bounds
        self._brief_bounds = database.bounds_within(BRIEF_SECONDS)
        self._turns = Turns(database.connections)
        self._pool = Pool(
            database.url,
            kwargs=database.options,
            min_size=0,
            max_size=database.connections,
            # Left alone, the pool waits longer and longer between its attempts to connect, and so does every question
            # once the database is back.
            timeout=2,
            reconnect_timeout=1,
            max_lifetime=LONGEST_CONNECTION_SECONDS,
            max_idle=LONGEST_CONNECTION_SECONDS,
            open=False,
            name="average",
        )
        # Each holds a connection for the time of a page. The others are left to questions.
        self._downloads = asyncio.Semaphore(max(1, database.connections // 2))
        for label, name in (("connections", "pool_size"), ("free", "pool_available")):
            POOL.labels(label).set_function(partial(self._pool_now, name))
        # Whoever has a turn waits for the pool while it connects only.
        POOL.labels("waiting").set_function(lambda: self._turns.waiting + self._pool_now("requests_waiting"))

    async def average(self, scope: Scope, options: CourseOptions) -> Course:
        """The course of the whole interval."""
        if not options.is_plain:
            rows = await self._courses(scope, (scope.start, scope.end), options)
        elif course := await self._short_interval(scope):
            return course
        else:
            rows = await self._by_width(scope, None)
        return next((Course(*values) for _, *values in rows), Course())

    async def series(self, scope: Scope, buckets: Buckets, options: CourseOptions) -> list[tuple[datetime, Course]]:
        """The start and the course of each bucket in which there are readings or one holds, in order."""
        if not options.is_plain:
            rows = await self._courses(scope, buckets.bounds, options)
        # The statement with bounds has quarters of hours.
        elif (width := buckets.grid) and (not width % HOUR or width % QUARTER_HOUR):
            return [(start, Course(*values)) for start, *values in await self._by_width(scope, width)]
        else:
            bounds = Instants(buckets.bounds)
            rows = await self._fetch(_of(summaries.BY_BOUNDS, scope), {**_parameters(scope), "bounds": bounds})
        return [(buckets.starts[number - 1], Course(*values)) for number, *values in rows]

    async def rooms(self, building_id: str | None, after: tuple[str, str], limit: int) -> list[Room]:
        """The first rooms after one, of a building or of all."""
        after_building, after_room = after
        rows = await self._fetch(
            _ROOMS if building_id is None else _ROOMS_OF_BUILDING,
            {"building_id": building_id, "after_building": after_building, "after_room": after_room, "limit": limit},
        )
        return [Room(*row) for row in rows]

    async def readings(self, scope: Scope, rooms: Sequence[str], after: Place | None, most: int) -> list[Values]:
        """The first readings of some rooms in the interval. Those of the first room begin after a place."""
        async with self._downloads:
            rows = await self._fetch(
                _PAGE_OF_READINGS,
                {
                    "building_id": scope.building_id,
                    "rooms": list(rooms),
                    "start": scope.start,
                    "end": scope.end,
                    "after_timestamp": after.timestamp if after else scope.start,
                    "after_temperature": after.temperature if after else -inf,
                    "most": most,
                },
            )
        return [Values(rooms[number - 1], *values) for number, *values in rows]

    async def alarms(self, scope: AlarmScope) -> list[Alarm]:
        """The alarms that are meant, `limit` at most: first those that are open, each the newest first."""
        after = (
            dict.fromkeys(_AFTER_PARAMETERS)
            if scope.after is None
            else dict(zip(_AFTER_PARAMETERS, scope.after, strict=True))
        )
        rows = await self._fetch(
            of_alarms(scope.building_id, scope.room_id), {**_filters(scope), **after, "limit": scope.limit}
        )
        return [Alarm(*row) for row in rows]

    async def open_alarms(self, scope: AlarmScope) -> int:
        """How many of the alarms that are meant are open."""
        [(count,)] = await self._fetch(_of_place(_OPEN_ALARMS, scope.building_id, scope.room_id), _filters(scope))
        return int(count)

    async def _short_interval(self, scope: Scope) -> Course | None:
        """The readings of a room in a short interval, None if it is not as short or some of them were dropped."""
        if scope.room_id is None or floor(scope.end, HOUR) - scope.start >= HOUR:
            return None
        [(were_dropped, *values)] = await self._fetch(summaries.OF_A_ROOM_WITHOUT_HOURS, _parameters(scope))
        return None if were_dropped else Course(*values)

    async def _by_width(self, scope: Scope, width: timedelta | None) -> list[Any]:
        return await self._fetch(
            _of(summaries.BY_WIDTH, scope),
            {
                **_parameters(scope),
                "bucket": width,
                "by_hours": not (width and width % HOUR),
                "by_days": not (width and width % DAY),
                "by_weeks": not (width and width % WEEK),
            },
        )

    async def _courses(self, scope: Scope, bounds: Sequence[datetime], options: CourseOptions) -> list[Any]:
        has_limits = options.above is not None or options.below is not None
        return await self._fetch(
            courses.OF_COURSES if has_limits or options.statistics else courses.OVER_TIME,
            {
                "building_id": scope.building_id,
                "room_id": scope.room_id,
                "bounds": Instants(bounds),
                "longest_hold": options.longest_hold,
                "above": options.above,
                "below": options.below,
                "first": "first" in options.statistics,
                "last": "last" in options.statistics,
            },
        )

    async def _fetch(self, statement: bytes, parameters: dict[str, Any]) -> list[Any]:
        """The rows of a statement, within the deadline."""
        started = perf_counter()
        progress = _Progress()
        try:
            return await within(self._deadline_seconds, self._rows(statement, parameters, progress))
        except psycopg.errors.QueryCanceled as error:
            raise unavailable("deadline", TOO_LONG) from error
        except psycopg.errors.TransactionTimeout as error:
            # Whether it computed or waited, nobody knows.
            raise unavailable("deadline", _Stage.ROWS.value, 5) from error
        except psycopg.Error as error:
            raise unanswered(error, "ask again") from error
        except TimeoutError as error:
            if progress.failure:
                raise unanswered(progress.failure, "ask again") from error
            raise unavailable("deadline", progress.stage.value, 5) from error
        finally:
            QUERIES.observe(perf_counter() - started)

    def _pool_now(self, name: str) -> float:
        return self._pool.get_stats().get(name, 0)

    async def _rows(self, statement: bytes, parameters: dict[str, Any], progress: "_Progress") -> list[Any]:
        await self._pool.open()
        async with self._turns.next(brief=True) as brief:
            bounds = self._brief_bounds if brief else self._bounds
            try:
                return await self._asked(bounds, statement, parameters, progress)
            except psycopg.errors.QueryCanceled:
                if not brief:
                    raise
        progress.stage = _Stage.CONNECTION
        async with self._turns.next(brief=False):
            return await self._asked(self._bounds, statement, parameters, progress)

    async def _asked(
        self, bounds: LiteralString | None, statement: bytes, parameters: dict[str, Any], progress: "_Progress"
    ) -> list[Any]:
        backoff = Backoff(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
        while True:
            progress.stage = _Stage.DATABASE
            try:
                async with self._pool.connection() as connection:
                    progress.stage = _Stage.ROWS
                    try:
                        return await fetch(connection, bounds, statement, parameters)
                    except psycopg.errors.UndefinedFile:
                        # TimescaleDB could not be loaded. It is not tried again in this session, which would go on
                        # without, and find nothing where readings are compressed.
                        await connection.close()
                        raise
            except psycopg.errors.QueryCanceled:
                raise
            except (psycopg.OperationalError, *EXTENSION_UPDATED_ERRORS) as error:
                log.warning("the database did not answer, trying again: %s", error)
                progress.failure = error
                await asyncio.sleep(backoff.pause_seconds())


class _Stage(Enum):
    """What a question waits for, and what the client is told if the time is over then."""

    CONNECTION = "The database is busy with other questions, or does not answer; ask again"
    DATABASE = "The database does not answer; ask again"
    ROWS = "The database did not answer in time; ask again, or for a shorter interval"


@dataclass(slots=True)
class _Progress:
    """How far a question has come."""

    stage: _Stage = _Stage.CONNECTION
    failure: psycopg.Error | None = None
    """The last one after which it was asked again."""


def _parameters(scope: "Scope | AlarmScope") -> dict[str, Any]:
    return {
        "building_id": scope.building_id,
        "room_id": scope.room_id,
        "start": scope.start,
        "end": scope.end,
    }


def _filters(scope: AlarmScope) -> dict[str, Any]:
    return {**_parameters(scope), "kind": scope.kind, "state": scope.state}


def _of(statements: Statements, scope: Scope) -> bytes:
    return statements.of_a_building if scope.room_id is None else statements.of_a_room


_AFTER_PARAMETERS = ("after_over", "after_raised", "after_building", "after_room", "after_kind", "after_id")
_IS_MEANT = b"""
    {place} removed IS NULL AND (%(kind)s::text IS NULL OR kind = %(kind)s)
    AND raised < coalesce(%(end)s::timestamptz, 'infinity')
"""
_OPEN_ALARMS = (
    b"SELECT count(*) FROM alarms WHERE cleared IS NULL AND %(state)s::text IS DISTINCT FROM 'cleared' AND " + _IS_MEANT
)
# Both bounds of `cleared`, from which the planner concludes that few of all alarms are meant.
_ALARMS = (
    b"""
    SELECT id, building_id, room_id, kind, severity, threshold, temperature, raised, cleared, noticed
    FROM (
        SELECT *, false AS over FROM alarms
        WHERE cleared IS NULL AND %(state)s::text IS DISTINCT FROM 'cleared' AND """
    + _IS_MEANT
    + b"""
        UNION ALL
        SELECT *, true FROM alarms
        WHERE cleared >= %(start)s::timestamptz AND cleared <= 'infinity'
          AND %(state)s::text IS DISTINCT FROM 'open' AND """
    + _IS_MEANT
    + b"""
    ) AS alarm
    WHERE %(after_over)s::bool IS NULL OR over > %(after_over)s OR (
        over = %(after_over)s AND (
            raised < %(after_raised)s OR (raised = %(after_raised)s AND (building_id, room_id, kind, id)
                > (%(after_building)s, %(after_room)s, %(after_kind)s, %(after_id)s))
        )
    )
    ORDER BY over, raised DESC, building_id, room_id, kind, id LIMIT %(limit)s
"""
)


def of_alarms(building_id: str | None, room_id: str | None) -> bytes:
    """The statement that lists alarms of a room, of a building, or all."""
    return _of_place(_ALARMS, building_id, room_id)


def _of_place(statement: bytes, building_id: str | None, room_id: str | None) -> bytes:
    """The statement about the alarms of a place, as its plan is made without knowing which."""
    given = {b"building_id": building_id, b"room_id": room_id}
    place = b"".join(b"%s = %%(%s)s AND " % (name, name) for name, value in given.items() if value is not None)
    return statement.replace(b"{place}", place)


_ROOMS = b"""
    SELECT building_id, room_id, coalesce(past.timestamp, room.timestamp), coalesce(past.temperature, room.temperature)
    FROM rooms AS room
    -- Clocks go wrong: a reading of the future is the latest one when its time has come.
    LEFT JOIN LATERAL (
        SELECT latest.* FROM upkeep CROSS JOIN latest_reading(building_id, room_id, now()) AS latest
        WHERE room.timestamp > now() OFFSET 0
    ) AS past ON true
    WHERE (building_id, room_id) > (%(after_building)s, %(after_room)s)
    ORDER BY building_id, room_id LIMIT %(limit)s
"""
_ROOMS_OF_BUILDING = _ROOMS.replace(b"WHERE (", b"WHERE building_id = %(building_id)s AND (")
_PAGE_OF_READINGS = b"""
    SELECT * FROM page_of_readings(
        %(building_id)s, %(rooms)s, %(start)s, %(end)s, %(after_timestamp)s, %(after_temperature)s, %(most)s
    )
"""
