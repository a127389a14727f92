"""Raises and clears alarms: looks at what arrived since the last check.

All that a check has to know is in the database, and it commits slice by slice. So one may end at any time, the next
one goes on, and several may run at once.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from math import inf
from typing import Any

import psycopg

from shared.confirmation import confirming
from shared.database import Database, fetch, within
from watch import statements
from watch.excursions import ENDLESS, Alarm, Run, reconcile
from watch.rules import SIGNS, Place, Rules, Threshold, Thresholds

PAUSE = timedelta(minutes=3)
"""So long without a look means that the database or `watch` was away, and readings could perhaps not arrive."""
ROOMS_READ = 50_000
"""Rooms of which it is asked at a time whether they are to be looked at."""
MOST_ROOMS = 500
"""Rooms that are taken, and locked, in one transaction."""
FIRST_ROOM_HOURS = 256
"""Rooms times hours that are looked at in the first transaction; after it, as many as hold the readings wanted."""
READINGS_WANTED = 50_000
"""Readings that are looked at in one transaction, during which the writers of their rooms wait."""
FOREVER_SECONDS = 1e10
MOST_ALARMS = 10_000
"""Alarms that are kept, cleared or forgotten in one transaction where no room is locked."""


@dataclass(frozen=True, slots=True)
class Told:
    """Who is told of the alarms of a check, and what goes with that."""

    sink: str | None
    """A digest of the URL of the sink, None without one."""
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


@dataclass(frozen=True, slots=True)
class _Span:
    """Readings of a room that came since the last check, and for which threshold they are to be looked at."""

    building_id: str
    room_id: str
    threshold: Threshold
    since: datetime
    until: datetime

    @property
    def of(self) -> tuple[str, str, str]:
        return self.building_id, self.room_id, self.threshold.kind


async def check(database: Database, rules: Rules, told: Told, retention: timedelta | None, seconds: float) -> Counts:
    """Look at all that came since the last check, for so many seconds; committed slice by slice.

    Raises TimeoutError or psycopg.Error if the database does not answer; what was committed by then stays. Raises
    Unconfirmed if not all that it saw and did is on as many copies as are promised.
    """
    options = dict(database.options)
    if "options" in options:
        # How much is asked for differs from one time to the next, and so does which chunks of a hypertable are meant.
        options["options"] += " -c plan_cache_mode=force_custom_plan"
    async with await psycopg.AsyncConnection.connect(database.url, **options) as connection:
        # A slice sees what was committed while it waited for the one before; behind a pooler no option says so.
        await connection.set_isolation_level(psycopg.IsolationLevel.READ_COMMITTED)
        confirm = confirming(connection)
        counts = await _Check(connection, database, rules, told, seconds).run(retention)
        confirm()
        return counts


class _Check:
    def __init__(
        self, connection: psycopg.AsyncConnection, database: Database, rules: Rules, told: Told, seconds: float
    ) -> None:
        self._connection = connection
        self._deadline = database.deadline
        self._bounds = database.bounds
        self._ends = time.monotonic() + seconds
        self._profiles: Sequence[Thresholds] = [*rules.places.values()]
        self._places: Sequence[Place] = [*rules.places]
        self._parameters: dict[str, Any] = {
            "sink": told.sink,
            "dataschema": told.dataschema,
            "traceparent": told.traceparent,
        }
        self._counts = Counts()
        self._room_hours = FIRST_ROOM_HOURS

    @property
    def _over(self) -> bool:
        return time.monotonic() > self._ends

    async def run(self, retention: timedelta | None) -> Counts:
        [(now,)] = await self._slice(statements.LISTEN, pause=PAUSE)
        self._parameters |= _parameters(self._places, self._profiles, now)
        while await self._clear(statements.CLEAR_WITHOUT_RULE, limit=MOST_ALARMS) == MOST_ALARMS and not self._over:
            pass
        after = ("", "")
        while rooms := await self._slice(
            statements.WAITING, after_building=after[0], after_room=after[1], limit=ROOMS_READ
        ):
            await self._silences([room[:2] for room in rooms if room[3]], [room[:2] for room in rooms if room[4]])
            await self._take([room[:2] for room in rooms if room[2]])
            after = rooms[-1][:2]
            if self._over:
                self._counts.unfinished = True
                break
            if len(rooms) < ROOMS_READ:
                break
        while not self._over:
            [(forgotten,)] = await self._slice(statements.FORGET, retention=retention, limit=MOST_ALARMS)
            if forgotten < MOST_ALARMS:
                break
        if self._parameters["sink"]:
            [(self._counts.due, self._counts.unsent)] = await self._slice(statements.UNSENT)
        # Its commit waits until all that was seen is on every copy, also what others stored.
        await self._slice(statements.CONFIRM)
        return self._counts

    async def _slice(self, statement: str, **parameters: Any) -> list[Any]:
        """The rows of a statement that commits by itself."""
        return await within(
            self._deadline,
            fetch(self._connection, self._bounds, statement.encode(), self._parameters | parameters),
        )

    async def _rows(self, statement: str, **parameters: Any) -> list[Any]:
        cursor = await self._connection.execute(statement, self._parameters | parameters, binary=True)
        return await cursor.fetchall()

    async def _clear(self, statement: str, **parameters: Any) -> int:
        [(cleared,)] = await self._slice(statement, **parameters)
        self._counts.cleared += cleared
        return int(cleared)

    async def _silences(self, silent: Sequence[tuple[str, str]], heard: Sequence[tuple[str, str]]) -> None:
        for chosen in _slices(silent, MOST_ALARMS):
            [(raised, _)] = await self._slice(statements.RAISE_SILENCES, **_named(chosen))
            self._counts.raised += raised
        for chosen in _slices(heard, MOST_ALARMS):
            await self._clear(statements.CLEAR_SILENCES, **_named(chosen))

    async def _take(self, rooms: Sequence[tuple[str, str]]) -> None:
        """Look at the rooms, some at a time; at those of which much came several times."""
        first = 0
        while first < len(rooms) and not self._over:
            width = min(self._room_hours, MOST_ROOMS)
            more, readings = await within(
                self._deadline, self._take_some(rooms[first : first + width], self._room_hours // width)
            )
            if not more:
                first += width
            if readings > READINGS_WANTED:
                self._room_hours = max(1, self._room_hours // 2)
            elif readings < READINGS_WANTED // 2:
                self._room_hours = min(2 * self._room_hours, 100_000)

    async def _take_some(self, rooms: Sequence[tuple[str, str]], hours: int) -> tuple[bool, int]:
        """Look at up to so many hours of each room; return whether there is more, and how many readings it were."""
        async with self._connection.transaction():
            if self._bounds:
                await self._connection.execute(self._bounds)
            await self._connection.execute(statements.LOCK)
            taken = await self._rows(statements.TAKE, hours=hours, **_named(rooms))
            spans = [span for row in taken for span in self._spans(*row[:-1])]
            readings = await self._look(spans) if spans else 0
        return any(more for *_, more in taken), readings

    def _spans(
        self,
        building_id: str,
        room_id: str,
        profile: int | None,
        high: bool,
        low: bool,
        since: datetime,
        until: datetime,
        came_from: datetime | None,
        came_to: datetime | None,
    ) -> list[_Span]:
        if profile is None:
            return []
        kinds = [kind for kind, wanted in (("high", high), ("low", low)) if wanted]
        parts = [(came_from, came_to), (since, until)]
        return [
            _Span(building_id, room_id, self._profiles[profile][kind], first, last)
            for kind in kinds
            for first, last in parts
            if first is not None and last is not None
        ]

    async def _look(self, spans: Sequence[_Span]) -> int:
        """Find the excursions of the spans, and keep what is new about them; return how many readings it were."""
        kept: dict[tuple[str, str, str], dict[Any, Alarm]] = {span.of: {} for span in spans}
        numbers = _numbered(spans)
        for number, id_, raised, cleared in await self._rows(statements.NEAR, **numbers):
            kept[spans[number].of].setdefault(id_, Alarm(raised, cleared, id_))
        alarms = {of: [*found.values()] for of, found in kept.items()}
        bounds = [
            min((alarm.raised for alarm in alarms[span.of] if alarm.raised > span.until), default=ENDLESS)
            for span in spans
        ]
        rows = await self._rows(statements.EXCURSIONS, **numbers, **_thresholds(spans), bounds=bounds)
        for number, runs in groupby(rows, key=lambda row: row[0]):
            span = spans[number]
            reconcile(alarms[span.of], [Run(*row[1:6]) for row in runs], span.since)
        await self._keep({span.of: (span.threshold, alarms[span.of]) for span in spans})
        return int(rows[0][-1]) if rows else 0

    async def _keep(self, found: Mapping[tuple[str, str, str], tuple[Threshold, Sequence[Alarm]]]) -> None:
        known = [alarm for _, alarms in found.values() for alarm in alarms if alarm.id]
        if extended := [alarm for alarm in known if alarm.extended]:
            await self._connection.execute(
                statements.EXTEND, {"ids": [each.id for each in extended], "raised": [each.raised for each in extended]}
            )
        # Before the same is raised again.
        if ended := [alarm for alarm in known if alarm.ended]:
            [(cleared,)] = await self._rows(
                statements.CLEAR, ids=[alarm.id for alarm in ended], cleared=[alarm.cleared for alarm in ended]
            )
            self._counts.cleared += cleared
        new = [(of, each, alarm) for of, (each, alarms) in found.items() for alarm in alarms if not alarm.id]
        if new:
            [(raised, cleared)] = await self._rows(
                statements.RAISE,
                buildings=[building_id for (building_id, _, _), _, _ in new],
                names=[room_id for (_, room_id, _), _, _ in new],
                kinds=[kind for (_, _, kind), _, _ in new],
                thresholds=[threshold.limit for _, threshold, _ in new],
                temperatures=[alarm.temperature for _, _, alarm in new],
                raised=[alarm.raised for _, _, alarm in new],
                cleared=[alarm.cleared for _, _, alarm in new],
                severities=[threshold.severity for _, threshold, _ in new],
            )
            self._counts.raised += raised
            self._counts.cleared += cleared


def _slices(rooms: Sequence[tuple[str, str]], width: int) -> Iterator[Sequence[tuple[str, str]]]:
    return (rooms[first : first + width] for first in range(0, len(rooms), width))


def _named(rooms: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    return {"buildings": [building_id for building_id, _ in rooms], "names": [room_id for _, room_id in rooms]}


def _numbered(spans: Sequence[_Span]) -> dict[str, Any]:
    return {
        "numbers": [*range(len(spans))],
        **_named([(span.building_id, span.room_id) for span in spans]),
        "kinds": [span.threshold.kind for span in spans],
        "since": [span.since for span in spans],
    }


def _thresholds(spans: Sequence[_Span]) -> dict[str, Any]:
    found = [span.threshold for span in spans]
    return {
        "until": [span.until for span in spans],
        "signs": [SIGNS[each.kind] for each in found],
        "limits": [SIGNS[each.kind] * each.limit for each in found],
        "clears": [SIGNS[each.kind] * each.clear for each in found],
        "lasting": [each.lasting for each in found],
        "zones": [each.schedule.zone if each.schedule else None for each in found],
        "hours": [each.schedule.multirange if each.schedule else None for each in found],
    }


def _parameters(places: Sequence[Place], profiles: Sequence[Thresholds], now: datetime) -> dict[str, Any]:
    """The rules as the statements take them."""
    numbers = {place: number for number, place in enumerate(places)}
    of_rooms = [(place, number) for place, number in numbers.items() if place[1] is not None]
    of_buildings = [
        (place[0], number) for place, number in numbers.items() if place[0] is not None and place[1] is None
    ]
    silent = [profile.get("silent") for profile in profiles]
    calm = {
        kind: min((SIGNS[kind] * each[kind].clear for each in profiles if kind in each), default=inf) for kind in SIGNS
    }
    return {
        "calm_high": calm["high"],
        "calm_low": calm["low"],
        "calm_silence": min((each.limit for each in silent if each), default=FOREVER_SECONDS),
        "rule_buildings": [place[0] for place, _ in of_rooms],
        "rule_rooms": [place[1] for place, _ in of_rooms],
        "rule_profiles": [number for _, number in of_rooms],
        "building_rules": [building_id for building_id, _ in of_buildings],
        "building_profiles": [number for _, number in of_buildings],
        "everywhere": numbers.get((None, None)),
        "profiles": [*numbers.values()],
        **{
            f"{kind}_{name}s": [
                SIGNS[kind] * getattr(profile[kind], name) if kind in profile else None for profile in profiles
            ]
            for kind in SIGNS
            for name in ("limit", "clear")
        },
        "silent_limits": [each.limit if each else None for each in silent],
        "silent_now": [bool(each and (each.schedule is None or each.schedule.at(now))) for each in silent],
        "silent_severities": [each.severity if each else None for each in silent],
    }
