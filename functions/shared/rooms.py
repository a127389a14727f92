"""Which rooms have readings: the beginning of a statement about `room`."""

from psycopg.sql import SQL

# A jump along the primary key from room to room, instead of reading all of it.
_ROOMS = SQL("""
    WITH RECURSIVE room AS (
        (SELECT building_id, room_id FROM temperatures {building} ORDER BY building_id, room_id LIMIT 1)
        UNION ALL
        SELECT next.building_id, next.room_id
        FROM room CROSS JOIN LATERAL (
            SELECT building_id, room_id FROM temperatures
            WHERE (building_id, room_id) > (room.building_id, room.room_id) {and_building}
            ORDER BY building_id, room_id LIMIT 1
        ) AS next
    )
""")
ROOMS = _ROOMS.format(building=SQL(""), and_building=SQL(""))
ROOMS_OF_BUILDING = _ROOMS.format(
    building=SQL("WHERE building_id = %(building_id)s"), and_building=SQL("AND building_id = %(building_id)s")
)
