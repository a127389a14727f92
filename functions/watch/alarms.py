"""Raises and clears alarms: looks at the readings that arrived since the last check.

The database has all that a check must know, and a check commits slice by slice. So a check may end at any time, the
next one goes on, and several may run at once.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple
from uuid import UUID

import psycopg

from shared.alarms import Kind
from shared.confirmation import confirming
from shared.database import Database, connected, fetch, within
from watch import statements, thresholds
from watch.excursions import ENDLESS, AlarmSpan, Run, reconcile
from watch.rules import Rules, Threshold, Thresholds

UNWATCHED_AFTER = timedelta(minutes=3)
"""So long without a check means that the database or `watch` was away, and readings could perhaps not arrive."""
ROOMS_LISTED_AT_ONCE = 50_000
"""Rooms that wait for a look, in one answer of the database."""
ROOMS_LOCKED_AT_ONCE = 500
"""In one transaction."""
ALARMS_AT_ONCE = 10_000
"""Alarms that are kept, cleared or forgotten in one transaction where no room is locked."""
READINGS_AT_ONCE = 50_000
"""About so many are looked at in one transaction, during which the writers of their rooms wait."""
FIRST_ROOM_HOURS, MOST_ROOM_HOURS = 256, 100_000
"""Rooms times hours of one transaction: so many in the first, then as many as hold READINGS_AT_ONCE."""
MOST_HOURS = 672
"""Of one room, which may have much more to say from an hour on."""
EARLIEST = datetime.min.replace(tzinfo=UTC)
USUAL_PAUSE = timedelta(days=28)
"""Of readings of a room: the one before a longer pause is looked for by itself."""


class _Key(NamedTuple):
    """What the alarms of a room and kind have in common."""

    building_id: str
    room_id: str
    kind: Kind


class Addressee(NamedTuple):
    """Who is told of the alarms of a check, and what goes with that."""

    sink: str | None
    """The digest of the sink, None without one."""
    dataschema: str
    """Where the schema of the events' data is."""
    traceparent: str | None
    """That of the request, as W3C Trace Context has it."""


@dataclass(slots=True)
class Counts:
    """What a check did, and what is left."""

    raised: int = 0
    cleared: int = 0
    due: int = 0
    """Events that it is time to send."""
    unsent: int = 0
    """Events that the sink has not taken, those among them."""
    unfinished: bool = False
    """Whether rooms are left to the next check."""


class _WaitingRoom(NamedTuple):
    """A row of WAITING."""

    building_id: str
    room_id: str
    to_take: bool
    """Whether its readings are to be looked at."""
    fell_silent: bool
    heard_again: bool


class _TakenRoom(NamedTuple):
    """A row of TAKE: what came to a room since the last check."""

    building_id: str
    room_id: str
    profile: int | None
    """The place of its thresholds among those of all rooms, None if no rule is for it."""
    look_high: bool
    look_low: bool
    since: datetime
    until: datetime | None
    """None while some of those that came late are left."""
    late_since: datetime | None
    late_until: datetime | None
    """Readings that came late."""
    late_seen_until: datetime
    """How far the readings that follow those were looked at."""
    has_more: bool


@dataclass(frozen=True, slots=True)
class _Span:
    """Readings of a room that came since the last check, and for which threshold they are to be looked at."""

    building_id: str
    room_id: str
    threshold: Threshold
    since: datetime
    until: datetime
    seen_until: datetime
    """How far the readings that follow were looked at."""

    @property
    def key(self) -> _Key:
        return _Key(self.building_id, self.room_id, self.threshold.kind)


async def check(
    database: Database, rules: Rules, addressee: Addressee, retention: timedelta | None, seconds: float
) -> Counts:
    """Look at all that came since the last check, for so many seconds; committed slice by slice.

    Raises TimeoutError or psycopg.Error if the database does not answer; what was committed by then stays. Raises
    Unconfirmed if not all that it saw and did is on as many copies as are promised.
    """
    options = dict(database.options)
    if "options" in options:
        # How much is asked for differs from one time to the next, and so does which chunks of a hypertable are meant.
        options["options"] += " -c plan_cache_mode=force_custom_plan"
    async with connected(database, options) as connection:
        # A slice sees what was committed while it waited for the one before; behind a pooler no option says so.
        await connection.set_isolation_level(psycopg.IsolationLevel.READ_COMMITTED)
        confirm = confirming(connection)
        counts = await _Check(connection, database, rules, addressee, seconds).run(retention)
        confirm()
        return counts


class _Check:
    def __init__(
        self,
        connection: psycopg.AsyncConnection,
        database: Database,
        rules: Rules,
        addressee: Addressee,
        seconds: float,
    ) -> None:
        self._connection = connection
        self._deadline_seconds = database.deadline_seconds
        self._bounds = database.bounds
        self._ends = time.monotonic() + seconds
        self._rules = rules
        self._profiles: Sequence[Thresholds] = [*rules.places.values()]
        self._parameters: dict[str, Any] = addressee._asdict()
        self._counts = Counts()
        self._room_hours = FIRST_ROOM_HOURS

    @property
    def _time_is_up(self) -> bool:
        return time.monotonic() > self._ends

    async def run(self, retention: timedelta | None) -> Counts:
        [(now,)] = await self._slice(statements.NOTE_CHECK, pause=UNWATCHED_AFTER)
        self._parameters |= thresholds.of_rules(self._rules, now)
        await self._clear_without_rule()
        await self._look_at_rooms()
        await self._forget(retention)
        if self._parameters["sink"]:
            [(self._counts.due, self._counts.unsent)] = await self._slice(statements.UNSENT)
        # Its commit waits until all that was seen is on every copy, also what others stored.
        await self._slice(statements.NOTE_LOOK, began=now, pause=UNWATCHED_AFTER)
        return self._counts

    async def _clear_without_rule(self) -> None:
        cleared = ALARMS_AT_ONCE
        while cleared == ALARMS_AT_ONCE and not self._time_is_up:
            cleared = await self._clear(statements.CLEAR_WITHOUT_RULE, limit=ALARMS_AT_ONCE)

    async def _look_at_rooms(self) -> None:
        building_id = room_id = ""
        while rooms := await self._waiting(building_id, room_id):
            await self._raise_silences([room for room in rooms if room.fell_silent])
            await self._clear_silences([room for room in rooms if room.heard_again])
            await self._take([room for room in rooms if room.to_take])
            building_id, room_id, *_ = rooms[-1]
            if self._time_is_up:
                self._counts.unfinished = True
                return
            if len(rooms) < ROOMS_LISTED_AT_ONCE:
                return

    async def _forget(self, retention: timedelta | None) -> None:
        forgotten = ALARMS_AT_ONCE
        # Of those that ended and of those that were removed, each as many at most.
        while forgotten >= ALARMS_AT_ONCE and not self._time_is_up:
            [(forgotten,)] = await self._slice(
                statements.FORGET,
                retention=retention,
                given_up_after=statements.GIVEN_UP_AFTER,
                limit=ALARMS_AT_ONCE,
            )

    async def _waiting(self, building_id: str, room_id: str) -> list[_WaitingRoom]:
        """The next rooms after one that are to be looked at."""
        rows = await self._slice(
            statements.WAITING, after_building=building_id, after_room=room_id, limit=ROOMS_LISTED_AT_ONCE
        )
        return [_WaitingRoom(*row) for row in rows]

    async def _slice(self, statement: str, **parameters: Any) -> list[Any]:
        """The rows of a statement that commits by itself."""
        return await within(
            self._deadline_seconds,
            fetch(self._connection, self._bounds, statement.encode(), self._parameters | parameters),
        )

    async def _rows(self, statement: str, **parameters: Any) -> list[Any]:
        return await fetch(self._connection, None, statement.encode(), self._parameters | parameters)

    async def _clear(self, statement: str, **parameters: Any) -> int:
        [(cleared,)] = await self._slice(statement, **parameters)
        self._counts.cleared += cleared
        return int(cleared)

    async def _raise_silences(self, rooms: Sequence[_WaitingRoom]) -> None:
        for chosen in _slices(rooms, ALARMS_AT_ONCE):
            [(raised, _)] = await self._slice(statements.RAISE_SILENCES, **_named(chosen))
            self._counts.raised += raised

    async def _clear_silences(self, rooms: Sequence[_WaitingRoom]) -> None:
        for chosen in _slices(rooms, ALARMS_AT_ONCE):
            await self._clear(statements.CLEAR_SILENCES, **_named(chosen))

    async def _take(self, rooms: Sequence[_WaitingRoom]) -> None:
        """Look at the rooms, some at a time. Rooms with many new readings are looked at several times."""
        first = 0
        while first < len(rooms) and not self._time_is_up:
            width = min(self._room_hours, ROOMS_LOCKED_AT_ONCE, len(rooms) - first)
            hours = min(self._room_hours // width, MOST_HOURS)
            has_more, readings = await within(
                self._deadline_seconds, self._take_some(rooms[first : first + width], hours)
            )
            if not has_more:
                first += width
            if readings > READINGS_AT_ONCE:
                # Of those that were taken: where few rooms are left, that is a part of what may be.
                self._room_hours = max(1, width * hours // 2)
            elif readings < READINGS_AT_ONCE // 2:
                self._room_hours = min(2 * self._room_hours, MOST_ROOM_HOURS)

    async def _take_some(self, rooms: Sequence[_WaitingRoom], hours: int) -> tuple[bool, int]:
        """Look at up to so many hours of each room; return whether there is more, and how many readings there were."""
        async with self._connection.transaction():
            if self._bounds:
                await self._connection.execute(self._bounds)
            await self._connection.execute(statements.LOCK)
            taken = [_TakenRoom(*row) for row in await self._rows(statements.TAKE, hours=hours, **_named(rooms))]
            spans = [span for room in taken for span in self._spans(room)]
            readings = await self._look(spans) if spans else 0
        return any(room.has_more for room in taken), readings

    def _spans(self, room: _TakenRoom) -> list[_Span]:
        if room.profile is None:
            return []
        wanted: dict[Kind, bool] = {"high": room.look_high, "low": room.look_low}
        parts = [
            (room.late_since, room.late_until, room.late_seen_until),
            (room.since, room.until, room.until),
        ]
        return [
            _Span(room.building_id, room.room_id, self._profiles[room.profile][kind], since, until, seen_until)
            for kind in wanted
            if wanted[kind]
            for since, until, seen_until in parts
            if since is not None and until is not None and seen_until is not None
        ]

    async def _look(self, spans: Sequence[_Span]) -> int:
        """Find the excursions of the spans, and keep what is new about them; return how many readings there were."""
        alarms = await self._nearby(spans)
        # An alarm of no length ended with its rule, and bounds nothing.
        begins = {key: [each.raised for each in some if each.cleared != each.raised] for key, some in alarms.items()}
        bounds = [min((each for each in begins[span.key] if each > span.until), default=None) for span in spans]
        firsts = await self._beginnings(spans)
        rows = await self._rows(
            thresholds.EXCURSIONS,
            **_numbered(spans),
            **thresholds.of_spans([span.threshold for span in spans]),
            firsts=firsts,
            until=[span.until for span in spans],
            seen_until=[span.seen_until for span in spans],
            bounds=bounds,
            earliest=min(firsts),
            latest=ENDLESS if any(bounds) else max(span.seen_until for span in spans),
        )
        found = [(number, Run(*run), readings) for number, *run, readings in rows]
        for number, of_span in groupby(found, key=itemgetter(0)):
            span = spans[number]
            reconcile(alarms[span.key], [run for _, run, _ in of_span], span.since)
        await self._keep({span.key: (span.threshold, alarms[span.key]) for span in spans})
        return int(found[0][2]) if found else 0

    async def _beginnings(self, spans: Sequence[_Span]) -> list[datetime]:
        """Since when to look at each span: an excursion that is too short yet may have begun before it."""
        since = [span.since for span in spans]
        lasting = [span.threshold.lasting_seconds for span in spans]
        if not any(lasting):
            return since
        rows = await self._rows(
            thresholds.BEGINNINGS,
            **_numbered(spans),
            lasting=lasting,
            earliest=max(min(since), EARLIEST + USUAL_PAUSE) - USUAL_PAUSE,
            latest=max(since),
        )
        return [first for (first,) in rows]

    async def _nearby(self, spans: Sequence[_Span]) -> dict[_Key, list[AlarmSpan]]:
        """The alarms that are open, or ended after the beginning of a span."""
        found: dict[_Key, dict[UUID, AlarmSpan]] = {span.key: {} for span in spans}
        for number, id_, raised, cleared in await self._rows(statements.NEARBY, **_numbered(spans)):
            found[spans[number].key].setdefault(id_, AlarmSpan(raised, cleared, id_))
        return {key: [*alarms.values()] for key, alarms in found.items()}

    async def _keep(self, found: Mapping[_Key, tuple[Threshold, Sequence[AlarmSpan]]]) -> None:
        known = [alarm for _, alarms in found.values() for alarm in alarms if alarm.id]
        if extended := [alarm for alarm in known if alarm.extended]:
            beginnings = {
                "ids": [each.id for each in extended],
                "raised": [each.raised for each in extended],
                "temperatures": [each.temperature for each in extended],
            }
            await self._connection.execute(statements.EXTEND, beginnings)
        # Before the same is raised again.
        if ended := [alarm for alarm in known if alarm.ended]:
            [(cleared,)] = await self._rows(
                statements.CLEAR, ids=[alarm.id for alarm in ended], cleared=[alarm.cleared for alarm in ended]
            )
            self._counts.cleared += cleared
        new = [(key, each, alarm) for key, (each, alarms) in found.items() for alarm in alarms if not alarm.id]
        if new:
            [(raised, cleared)] = await self._rows(statements.RAISE, **_raised(new))
            self._counts.raised += raised
            self._counts.cleared += cleared


def _raised(new: Sequence[tuple[_Key, Threshold, AlarmSpan]]) -> dict[str, Any]:
    """Alarms as RAISE takes them."""
    return {
        "buildings": [key.building_id for key, _, _ in new],
        "names": [key.room_id for key, _, _ in new],
        "kinds": [key.kind for key, _, _ in new],
        "thresholds": [threshold.limit for _, threshold, _ in new],
        "temperatures": [alarm.temperature for _, _, alarm in new],
        "raised": [alarm.raised for _, _, alarm in new],
        "cleared": [alarm.cleared for _, _, alarm in new],
        "severities": [threshold.severity for _, threshold, _ in new],
    }


def _slices(rooms: Sequence[_WaitingRoom], width: int) -> Iterator[Sequence[_WaitingRoom]]:
    return (rooms[first : first + width] for first in range(0, len(rooms), width))


def _named(those: Sequence[_WaitingRoom | _Span]) -> dict[str, list[str]]:
    """The rooms of those, as statements take them."""
    return {"buildings": [each.building_id for each in those], "names": [each.room_id for each in those]}


def _numbered(spans: Sequence[_Span]) -> dict[str, Any]:
    return {
        "numbers": [*range(len(spans))],
        **_named(spans),
        "kinds": [span.threshold.kind for span in spans],
        "since": [span.since for span in spans],
    }
