"""Takes readings out of the database for good, and says which were taken out.

A removal takes steps. Each is a short transaction, after which every answer is exact. A request takes steps until the
removal is done, or until its deadline. Then `summarize()` goes on, or the next request that asks the same. This is
imported when somebody asks: a start would pay for it.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from http import HTTPStatus
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

import psycopg

from shared.confirmation import Unconfirmed, confirming
from shared.database import NOT_MIGRATED_ERRORS, Database, fetch, unanswered, within
from shared.problems import Problem, unavailable

T = TypeVar("T")

log = logging.getLogger("average")

SHARE_OF_DEADLINE = 0.7
"""Of the deadline. After it the request is answered, and the removal goes on without it."""
RETRY_SECONDS = 0.02
"""After so long, a step that had to wait for somebody else is tried again."""
DROPPED_SQLSTATE = "TD001"
"""The SQLSTATE of the schema for readings that were dropped: only their summaries are left."""
NOT_ALLOWED = (
    "The role of ADMIN_DATABASE_URL may not remove readings. Make the role that ADMIN_ROLE names, name it in"
    " ADMIN_DATABASE_URL, and run the migrations"
)
NO_CONNECTION = (
    "The database lets nobody in with ADMIN_DATABASE_URL, or does not answer; ask again, and if that stays so make the"
    " role that it names"
)
TOO_MANY_TO_COUNT = "It took too long to count what would be removed; ask about one room, or a shorter interval"
UNFINISHED = "What was asked for goes on in steps. Ask again to see it through now; otherwise summarize() does it"

_RETRIED_ERRORS = (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)
_MEANT = """
    %(building_id)s::text, %(room_id)s::text, %(start)s::timestamptz, %(end)s::timestamptz, %(above)s::float8,
    %(below)s::float8
"""
PREVIEW = f"SELECT * FROM preview_removal({_MEANT})".encode()  # noqa: S608 - constants
BEGIN = f"SELECT begin_removal({_MEANT}, %(who)s::text, %(reason)s::text, %(keep_out)s::interval)".encode()
CONTINUE = b"SELECT readings, is_finished FROM continue_removal(%(id)s::uuid)"
_ROW = """
    SELECT
        id, building_id, room_id, nullif(since, '-infinity'), nullif(before, 'infinity'), above, below, reason, asked,
        asked_by, until, removed, finished
    FROM removals
"""
ONE = f"{_ROW} WHERE id = %(id)s".encode()
LISTED = f"""{_ROW}
    WHERE coalesce(%(building_id)s::text, building_id) = building_id
      AND (%(asked)s::timestamptz IS NULL OR (asked, id) < (%(asked)s, %(id)s::uuid))
    ORDER BY asked DESC, id DESC LIMIT %(limit)s::int
""".encode()


class Removal(NamedTuple):
    """Readings that were removed, or are being removed."""

    id: UUID
    building_id: str
    room_id: str | None
    """None for all rooms of the building."""
    start: datetime | None
    """None, as `end`, where all that was known was meant."""
    end: datetime | None
    above: float | None
    below: float | None
    """Degrees Celsius: only readings beyond one of these were meant, if there are any."""
    reason: str | None
    asked: datetime
    asked_by: str
    """A digest of the token."""
    kept_out_until: datetime
    """Until then none of it is stored again."""
    removed: int
    """How many readings, so far."""
    finished: datetime | None


class RoomShare(NamedTuple):
    """What a removal would take of a room."""

    room_id: str
    readings: int
    first: datetime
    last: datetime


class Removals:
    """The removals of a database, reached as the role that may remove, one request at a time.

    Every method raises Problem: 409 if only summaries of the readings are left, 503 if the database does not answer
    within the deadline, or does not let the role do it.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        # Each holds a connection of its own, beside those of questions.
        self._turn = asyncio.Semaphore(1)

    async def preview(self, asked: Mapping[str, Any]) -> list[RoomShare]:
        """What would be removed, room by room."""
        return await self._answered(self._preview(asked), "ask again")

    async def remove(self, asked: Mapping[str, Any], who: str) -> Removal:
        """Remove it, or as much of it as there is time for."""
        return await self._answered(self._remove(asked, who), "ask again, which goes on with what was begun")

    async def listed(
        self, building_id: str | None, after: tuple[datetime, UUID] | None, limit: int
    ) -> Sequence[Removal]:
        """The removals of a building or all, the newest first, after one."""
        asked, id_ = after or (None, None)
        return await self._answered(
            self._listed({"building_id": building_id, "asked": asked, "id": id_, "limit": limit}), "ask again"
        )

    async def _preview(self, asked: Mapping[str, Any]) -> list[RoomShare]:
        async with self._connected() as connection:
            try:
                return [RoomShare(*row) for row in await self._run(connection, PREVIEW, asked)]
            except psycopg.errors.QueryCanceled as error:
                raise unavailable("deadline", TOO_MANY_TO_COUNT) from error

    async def _listed(self, parameters: Mapping[str, Any]) -> list[Removal]:
        async with self._connected() as connection:
            return [Removal(*row) for row in await self._run(connection, LISTED, parameters)]

    async def _remove(self, asked: Mapping[str, Any], who: str) -> Removal:
        clock = asyncio.get_running_loop().time
        ends = clock() + SHARE_OF_DEADLINE * self._database.deadline_seconds
        async with self._connected() as connection:
            confirm = confirming(connection)
            while not (begun := await self._tried(connection, BEGIN, {**asked, "who": who})):
                if clock() > ends:
                    raise unavailable("deadline", "The database is busy; ask again")
            [(id_,)] = begun
            before = None
            while clock() < ends:
                [(readings, is_finished)] = await self._tried(connection, CONTINUE, {"id": id_}) or [(before, False)]
                if is_finished:
                    break
                if readings == before:
                    await asyncio.sleep(RETRY_SECONDS)
                before = readings
            [row] = await self._run(connection, ONE, {"id": id_})
            # Nobody is told of what a failover could undo.
            confirm()
            return Removal(*row)

    async def _tried(
        self, connection: psycopg.AsyncConnection, statement: bytes, parameters: Mapping[str, Any]
    ) -> list[Any]:
        """The rows of a statement, none if somebody else held what it needs."""
        try:
            return await self._run(connection, statement, parameters)
        except _RETRIED_ERRORS as error:
            log.info("removing readings waits for somebody else: %s", error)
            await asyncio.sleep(RETRY_SECONDS)
            return []

    async def _run(
        self, connection: psycopg.AsyncConnection, statement: bytes, parameters: Mapping[str, Any]
    ) -> list[Any]:
        return await fetch(connection, self._database.bounds, statement, parameters)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[psycopg.AsyncConnection]:
        async with self._turn:
            try:
                connection = await psycopg.AsyncConnection.connect(self._database.url, **self._database.options)
            except psycopg.OperationalError as error:
                raise unavailable("not_set_up", NO_CONNECTION, 5) from error
            async with connection:
                yield connection

    async def _answered(self, work: Coroutine[Any, Any, T], again: str) -> T:
        try:
            return await within(self._database.deadline_seconds, work)
        except NOT_MIGRATED_ERRORS as error:
            raise unavailable("not_set_up", NOT_ALLOWED, 5) from error
        except psycopg.Error as error:
            if error.sqlstate == DROPPED_SQLSTATE:
                raise _dropped(str(error.diag.message_detail)) from None
            raise unanswered(error, again) from error
        except (TimeoutError, Unconfirmed) as error:
            raise unanswered(None, again) from error


def _dropped(before: str) -> Problem:
    return Problem(
        HTTPStatus.CONFLICT,
        f"Readings from before {before} were dropped (RETENTION_DAYS), and only the summaries of their hours are left,"
        f" of which none can be taken out. Let start be {before} or later, or forget the whole room or building with"
        " DELETE /v1/temperature/rooms",
    )
