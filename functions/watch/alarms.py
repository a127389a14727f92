"""Raises and clears alarms: compares what came since the last check with the thresholds.

All that a check has to know is in the database, so that one may end at any time and several may run at once.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg

from shared.confirmation import confirming
from shared.database import Database
from watch.rules import Rules

PAST = timedelta(days=1)
"""Readings older than this alarm nobody any more."""

UNSENT = """
    SELECT id, 'raised' AS state, raised AS instant, building_id, room_id, kind, threshold, temperature, raised
    FROM alarms WHERE raised_sent IS NULL AND raised > now() - interval '7 days'
    UNION ALL
    SELECT id, 'cleared', cleared, building_id, room_id, kind, threshold, temperature, raised
    FROM alarms WHERE cleared_sent IS NULL AND cleared > now() - interval '7 days'
"""
"""The events that no sink has taken; after a week they interest nobody any more."""

Key = tuple[str, str, str]
"""A building, a room, and a kind of alarm."""


@dataclass(slots=True)
class Alarm:
    """A room that is, or was, too warm or cold for a threshold in degrees Celsius, or silent for one in seconds."""

    key: Key
    threshold: float
    temperature: float
    """That of the reading that raised it, or of the last one before the silence."""
    raised: datetime
    cleared: datetime | None = None
    id: UUID | None = None
    """None if it is not in the database yet."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A reading at which a room may have changed.

    It is the first one looked at, the first new one, one that is on another side of a threshold than the one before it,
    or the last one.
    """

    building_id: str
    room_id: str
    timestamp: datetime
    temperature: float
    known: bool
    """Whether it was compared with the thresholds by an earlier check, which may have had other ones."""
    last: bool


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check did: how many alarms it raised and cleared; and how many events no sink has taken yet."""

    raised: int
    cleared: int
    unsent: int


async def check(database: Database, rules: Rules) -> Checked:
    """Compare all rooms with the rules, and commit.

    Raises Unconfirmed if not all that it saw and did is on as many copies as are promised.
    """
    async with await psycopg.AsyncConnection.connect(database.url, **database.options) as connection:
        confirm = confirming(connection)
        async with connection.transaction():
            if database.bounds:
                await connection.execute(database.bounds)
            # One check at a time: the next one goes on from where this ends. What it reads, it reads after that.
            await connection.execute(_LOCK)
            checked = await _check(connection, rules)
        confirm()
        return checked


async def _check(connection: psycopg.AsyncConnection, rules: Rules) -> Checked:
    [(now,)] = await _rows(connection, "SELECT clock_timestamp()")
    ledger = _Ledger(now, await _open(connection))
    rooms = await _rooms(connection, rules)
    last: list[Turn] = []
    for turn in await _turns(connection, rooms, now):
        thresholds = rooms[turn.building_id, turn.room_id]
        ledger.compare(turn, thresholds)
        if turn.last:
            ledger.compare_silence(turn, thresholds)
            last.append(turn)
    ledger.clear_without_rule(rules)
    await _keep(connection, ledger, [turn for turn in last if not turn.known])
    return Checked(ledger.raised, ledger.cleared, await unsent(connection))


async def unsent(connection: psycopg.AsyncConnection) -> int:
    """How many events no sink has taken yet."""
    [(count,)] = await _rows(connection, f"SELECT count(*) FROM ({UNSENT}) AS unsent")  # noqa: S608 - a constant
    return int(count)


class _Ledger:
    """The alarms that are open, and what becomes of them."""

    def __init__(self, now: datetime, open_: Mapping[Key, Alarm]) -> None:
        self._now = now
        self._open = dict(open_)
        self.changed: list[Alarm] = []
        self.raised = self.cleared = 0

    def compare(self, turn: Turn, thresholds: Mapping[str, float]) -> None:
        """Raise and clear what the temperature of a reading does."""
        for kind in thresholds.keys() & {"high", "low"}:
            over = turn.temperature - thresholds[kind]
            alarming = over > 0 if kind == "high" else over < 0
            # Another side of the same reading comes of another rule, and that is so from now on.
            self._set(turn, kind, thresholds[kind], self._now if turn.known else turn.timestamp, alarming=alarming)

    def compare_silence(self, latest: Turn, thresholds: Mapping[str, float]) -> None:
        """Raise or clear what the time since the latest reading of a room does."""
        if (silent := thresholds.get("silent")) is not None:
            alarming = self._now - latest.timestamp > timedelta(seconds=silent)
            # A silence begins and ends for whoever waits: readings of its time may still come.
            self._set(latest, "silent", silent, self._now, alarming=alarming)

    def clear_without_rule(self, rules: Rules) -> None:
        """Clear the alarms that no rule is there for any more."""
        for building_id, room_id, kind in [*self._open]:
            if kind not in rules.thresholds(building_id, room_id):
                self._clear((building_id, room_id, kind), self._now)

    def _set(self, turn: Turn, kind: str, threshold: float, instant: datetime, *, alarming: bool) -> None:
        key = (turn.building_id, turn.room_id, kind)
        if not alarming and key in self._open:
            self._clear(key, instant)
        elif alarming and key not in self._open and (kind == "silent" or turn.timestamp > self._now - PAST):
            self._open[key] = Alarm(key, threshold, turn.temperature, instant)
            self.changed.append(self._open[key])
            self.raised += 1

    def _clear(self, key: Key, instant: datetime) -> None:
        alarm = self._open.pop(key)
        # A reading can be older than the rule that raised the alarm, and a clock be set back.
        alarm.cleared = max(instant, alarm.raised)
        if alarm.id:
            self.changed.append(alarm)
        self.cleared += 1


async def _open(connection: psycopg.AsyncConnection) -> dict[Key, Alarm]:
    rows = await _rows(
        connection,
        "SELECT building_id, room_id, kind, threshold, temperature, raised, id FROM alarms WHERE cleared IS NULL",
    )
    return {
        (building_id, room_id, kind): Alarm((building_id, room_id, kind), threshold, temperature, raised, None, id_)
        for building_id, room_id, kind, threshold, temperature, raised, id_ in rows
    }


async def _rooms(connection: psycopg.AsyncConnection, rules: Rules) -> dict[tuple[str, str], Mapping[str, float]]:
    """The rooms that have readings and thresholds, with these."""
    found = await _rows(connection, _ROOMS) if rules else []
    rooms = {(building_id, room_id): rules.thresholds(building_id, room_id) for building_id, room_id in found}
    return {room: thresholds for room, thresholds in rooms.items() if thresholds}


async def _turns(
    connection: psycopg.AsyncConnection, rooms: Mapping[tuple[str, str], Mapping[str, float]], now: datetime
) -> Iterator[Turn]:
    """The turns of each room, in order, from the reading at which the last check ended."""
    rows = await _rows(
        connection,
        _TURNS,
        {
            "building_ids": [building_id for building_id, _ in rooms],
            "room_ids": [room_id for _, room_id in rooms],
            "above": [thresholds.get("high") for thresholds in rooms.values()],
            "below": [thresholds.get("low") for thresholds in rooms.values()],
            "past": now - PAST,
            "now": now,
        },
    )
    return (Turn(*row) for row in rows)


async def _keep(connection: psycopg.AsyncConnection, ledger: _Ledger, last: list[Turn]) -> None:
    async with connection.cursor() as cursor:
        # Before the same is raised again.
        await cursor.executemany(
            "UPDATE alarms SET cleared = %s WHERE id = %s",
            [(alarm.cleared, alarm.id) for alarm in ledger.changed if alarm.id],
        )
        await cursor.executemany(
            "INSERT INTO alarms (building_id, room_id, kind, threshold, temperature, raised, cleared)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s)",
            [
                (*alarm.key, alarm.threshold, alarm.temperature, alarm.raised, alarm.cleared)
                for alarm in ledger.changed
                if not alarm.id
            ],
        )
        await cursor.executemany(
            "INSERT INTO watched (building_id, room_id, timestamp, temperature) VALUES (%s, %s, %s, %s)"
            " ON CONFLICT (building_id, room_id)"
            " DO UPDATE SET timestamp = excluded.timestamp, temperature = excluded.temperature",
            [(turn.building_id, turn.room_id, turn.timestamp, turn.temperature) for turn in last],
        )


async def _rows(connection: psycopg.AsyncConnection, statement: Any, parameters: Any = None) -> list[Any]:
    return await (await connection.execute(statement, parameters, binary=True)).fetchall()


# With what a commit waits for, also of a transaction that changes nothing: that all it read is on every copy.
_LOCK = """
    SELECT pg_advisory_xact_lock(hashtext('temperature watch')), pg_logical_emit_message(true, 'temperature', '')
"""
_ROOMS = "SELECT building_id, room_id FROM rooms"
# A reading whose instant is still to come is looked at when it has come. Of a room that no check has looked at before,
# the latest one counts.
_TURNS = """
    WITH room AS (
        SELECT * FROM unnest(
            %(building_ids)s::text[], %(room_ids)s::text[], %(above)s::float8[], %(below)s::float8[]
        ) AS room (building_id, room_id, above, below)
    ), reading AS (
        SELECT room.building_id, room.room_id, reading.timestamp, reading.temperature, known,
               coalesce(reading.temperature > above, false)::int
               + 2 * coalesce(reading.temperature < below, false)::int AS side
        FROM room LEFT JOIN watched USING (building_id, room_id)
        CROSS JOIN LATERAL (
            SELECT watched.timestamp, watched.temperature, true AS known WHERE watched.timestamp IS NOT NULL
            UNION ALL
            SELECT new.timestamp, new.temperature, false FROM temperatures AS new
            WHERE new.building_id = room.building_id AND new.room_id = room.room_id
              AND (new.timestamp, new.temperature) > (watched.timestamp, watched.temperature)
              AND new.timestamp > %(past)s AND new.timestamp <= %(now)s
            UNION ALL
            (
                SELECT latest.timestamp, latest.temperature, false FROM temperatures AS latest
                WHERE watched.timestamp IS NULL
                  AND latest.building_id = room.building_id AND latest.room_id = room.room_id
                  AND latest.timestamp <= %(now)s
                ORDER BY latest.timestamp DESC, latest.temperature DESC LIMIT 1
            )
        ) AS reading
    ), ordered AS (
        SELECT *, side IS DISTINCT FROM lag(side) OVER room OR lag(known) OVER room AS turn,
               lead(side) OVER room IS NULL AS last
        FROM reading WINDOW room AS (PARTITION BY building_id, room_id ORDER BY timestamp, temperature)
    )
    SELECT building_id, room_id, timestamp, temperature, known, last FROM ordered
    WHERE turn OR last ORDER BY building_id, room_id, timestamp, temperature
"""
