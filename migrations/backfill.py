"""What is made once of the rows that a database has already. Writers go on meanwhile.

It comes before the grants, so nobody reads what is only half of it. It may end anywhere and begin again.
"""

import logging
from dataclasses import dataclass

from sqlalchemy import text

from migrations.database import transaction

log = logging.getLogger("migrations")

ROOMS_BETWEEN_WORDS = 1_000

_NEXT_ROOMS = """
    WITH RECURSIVE room AS (
        (
            SELECT building_id, room_id FROM temperatures
            WHERE (building_id, room_id) > (:building_id, :room_id) ORDER BY building_id, room_id LIMIT 1
        )
        UNION ALL
        SELECT next.building_id, next.room_id
        FROM room CROSS JOIN LATERAL (
            SELECT building_id, room_id FROM temperatures
            WHERE (building_id, room_id) > (room.building_id, room.room_id) ORDER BY building_id, room_id LIMIT 1
        ) AS next
    )
    SELECT building_id, room_id FROM room LIMIT :number
"""
"""A jump along the primary key from room to room, instead of reading all of it."""
_KNOW_ROOMS = """
    WITH known AS MATERIALIZED (
        SELECT building_id, room_id, latest.timestamp, latest.temperature,
               date_bin('1 hour', first.timestamp, '2000-01-03 00:00+00') AS summed_until
        FROM unnest(CAST(:buildings AS text[]), CAST(:rooms AS text[])) AS chosen (building_id, room_id)
        CROSS JOIN LATERAL latest_reading(building_id, room_id, 'infinity') AS latest
        CROSS JOIN LATERAL (
            SELECT min(timestamp) AS timestamp FROM temperatures
            WHERE temperatures.building_id = chosen.building_id AND temperatures.room_id = chosen.room_id
        ) AS first
    )
    INSERT INTO rooms AS room (building_id, room_id, timestamp, temperature, summed_until)
    SELECT building_id, room_id, timestamp, temperature, summed_until FROM known
    -- All are found before the first is locked.
    ORDER BY building_id, room_id
    ON CONFLICT (building_id, room_id) DO UPDATE SET
        timestamp = greatest(room.timestamp, excluded.timestamp),
        temperature = CASE
            WHEN (excluded.timestamp, excluded.temperature) > (room.timestamp, room.temperature)
            THEN excluded.temperature ELSE room.temperature
        END,
        -- What a writer marked meanwhile may have come after `known` was looked up.
        summed_until = least(room.summed_until, excluded.summed_until, room.late_from),
        late_from = NULL, late_to = NULL
"""


_ROOMS_AFTER = """
    SELECT building_id, room_id FROM rooms WHERE (building_id, room_id) > (:building_id, :room_id)
    ORDER BY building_id, room_id LIMIT :number FOR UPDATE
"""
_MAKE_WEEKS = """
    SELECT roll_up_weeks(array_agg(building_id), array_agg(room_id), array_agg(week))
    FROM (
        SELECT DISTINCT building_id, room_id, date_bin('7 days', day, '2000-01-03 00:00+00') AS week
        FROM unnest(CAST(:buildings AS text[]), CAST(:rooms AS text[])) AS chosen (building_id, room_id)
        JOIN room_days USING (building_id, room_id)
    ) AS touched
"""


ROOMS_OF_WEEKS_AT_ONCE = 10
"""Ten years of a room take some 10 ms."""


@dataclass(frozen=True)
class _Task:
    """Something that is made of all rooms, some of them in each transaction."""

    name: str
    known: str
    """The column of `upkeep` that says whether it is done."""
    rooms: str
    """Finds the next rooms."""
    rooms_at_once: int
    make: str
    """Makes it of these. Their writers wait meanwhile."""


_TASKS = (
    _Task("the rooms", "rooms_known", _NEXT_ROOMS, 200, _KNOW_ROOMS),
    # Whoever changes a day of a room has locked its row, with the functions of this version or of the one before.
    _Task("the weeks of rooms", "weeks_known", _ROOMS_AFTER, ROOMS_OF_WEEKS_AT_ONCE, _MAKE_WEEKS),
)


def complete(url: str) -> None:
    """Make all that lacks: rooms of readings, then weeks of days."""
    for task in _TASKS:
        _carry_out(task, url)


def _carry_out(task: _Task, url: str) -> None:
    building_id, room_id, known = "", "", 0
    while True:
        with transaction(url) as connection:
            if connection.scalar(text(f"SELECT {task.known} FROM upkeep")):
                return
            found = connection.execute(
                text(task.rooms), {"building_id": building_id, "room_id": room_id, "number": task.rooms_at_once}
            ).all()
            if not found:
                connection.execute(text(f"UPDATE upkeep SET {task.known} = true"))
                return
            connection.execute(
                text(task.make),
                {"buildings": [room.building_id for room in found], "rooms": [room.room_id for room in found]},
            )
        building_id, room_id = found[-1]
        known += len(found)
        if known % ROOMS_BETWEEN_WORDS == 0:
            log.info("%s: %d are known", task.name, known)
