"""What is made once of the rows that a database has already. Writers go on meanwhile.

It comes before the grants, so nobody reads what is only half of it. It may end anywhere and begin again.
"""

import logging

from sqlalchemy import text

from migrations.database import transaction

log = logging.getLogger("migrations")

ROOMS_MADE_KNOWN_AT_ONCE, ROOMS_OF_WEEKS_AT_ONCE = 200, 10
"""In one transaction, during which their writers wait. The weeks of ten years of a room take some 25 ms."""
ROOMS_BETWEEN_MESSAGES = 1_000

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

_ROOMS_WITHOUT_WEEKS = """
    SELECT building_id, room_id FROM rooms
    WHERE weeks_until = '-infinity' AND (building_id, room_id) > (:building_id, :room_id)
    ORDER BY building_id, room_id LIMIT :number FOR UPDATE
"""
"""Whoever changes a day of a room has locked its row, with the functions of this version or of the one before."""
_MAKE_WEEKS = "SELECT summarize_weeks(CAST(:buildings AS text[]), CAST(:rooms AS text[]))"


def complete(url: str) -> None:
    """Make all that lacks: rooms of readings, then weeks of days."""
    with transaction(url) as connection:
        rooms_are_known = connection.scalar(text("SELECT rooms_known FROM upkeep"))
    if not rooms_are_known:
        _of_all_rooms(url, _NEXT_ROOMS, _KNOW_ROOMS, ROOMS_MADE_KNOWN_AT_ONCE, "%d rooms are known")
        with transaction(url) as connection:
            connection.execute(text("UPDATE upkeep SET rooms_known = true"))
    _of_all_rooms(url, _ROOMS_WITHOUT_WEEKS, _MAKE_WEEKS, ROOMS_OF_WEEKS_AT_ONCE, "%d rooms have weeks")


def _of_all_rooms(url: str, find: str, make: str, at_once: int, progress: str) -> None:
    """Make something of all rooms that are found, of so many in each transaction."""
    building_id, room_id, number = "", "", 0
    while True:
        with transaction(url) as connection:
            found = connection.execute(
                text(find), {"building_id": building_id, "room_id": room_id, "number": at_once}
            ).all()
            if not found:
                return
            connection.execute(
                text(make),
                {"buildings": [room.building_id for room in found], "rooms": [room.room_id for room in found]},
            )
        building_id, room_id = found[-1]
        number += len(found)
        if number % ROOMS_BETWEEN_MESSAGES == 0:
            log.info(progress, number)
