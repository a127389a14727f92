"""What is made once of the rows that a database has already. Writers go on meanwhile.

It comes before the grants, so nobody reads what is only half of it. It may end anywhere and begin again.
"""

import logging

from sqlalchemy import text

from migrations.database import transaction

log = logging.getLogger("migrations")

ROOMS_MADE_KNOWN_AT_ONCE = 200
"""Rooms made known in one transaction, during which their writers wait."""
ROOMS_OF_WEEKS_AT_ONCE = 10
"""Rooms whose weeks are made in one transaction. Those of ten years take some 10 ms for each room."""
ROOMS_BETWEEN_WORDS = 1_000


def complete(url: str) -> None:
    """Make all that lacks: rooms of readings, then weeks of days."""
    _make_rooms_known(url)
    _make_weeks_known(url)


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


def _make_rooms_known(url: str) -> None:
    """Make known the rooms of readings that came before there were rooms."""
    last, known = ("", ""), 0
    while True:
        with transaction(url) as connection:
            if connection.scalar(text("SELECT rooms_known FROM upkeep")):
                return
            found = connection.execute(
                text(_NEXT_ROOMS), {"building_id": last[0], "room_id": last[1], "number": ROOMS_MADE_KNOWN_AT_ONCE}
            ).all()
            if not found:
                connection.execute(text("UPDATE upkeep SET rooms_known = true"))
                return
            buildings, names = ([str(room[place]) for room in found] for place in (0, 1))
            connection.execute(text(_KNOW_ROOMS), {"buildings": buildings, "rooms": names})
        last = buildings[-1], names[-1]
        known += len(found)
        log.info("%d rooms are known", known)


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


def _make_weeks_known(url: str) -> None:
    """Put together the weeks of days that were summed up before there were weeks.

    Whoever changes a day of a room has locked its row, with the functions of this version or of the one before.
    """
    last, known = ("", ""), 0
    while True:
        with transaction(url) as connection:
            if connection.scalar(text("SELECT weeks_known FROM upkeep")):
                return
            found = connection.execute(
                text(_ROOMS_AFTER), {"building_id": last[0], "room_id": last[1], "number": ROOMS_OF_WEEKS_AT_ONCE}
            ).all()
            if not found:
                connection.execute(text("UPDATE upkeep SET weeks_known = true"))
                return
            buildings, names = ([str(room[place]) for room in found] for place in (0, 1))
            connection.execute(text(_MAKE_WEEKS), {"buildings": buildings, "rooms": names})
        last = buildings[-1], names[-1]
        known += len(found)
        if known % ROOMS_BETWEEN_WORDS == 0:
            log.info("the weeks of %d rooms are known", known)
