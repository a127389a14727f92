-- Brings the rows of rooms up to date after readings of `added`. It is part of mark_rooms(), for all and for some of them.
INSERT INTO rooms AS room (building_id, room_id, timestamp, temperature, summed_until, watched_until, low, high, weeks_until)
SELECT
    building_id, room_id, max(timestamp), (array_agg(temperature ORDER BY timestamp, temperature))[count(*)],
    date_bin('1 hour', min(timestamp), '2000-01-03 00:00+00'), min(timestamp), min(temperature), max(temperature),
    date_bin('7 days', min(timestamp), '2000-01-03 00:00+00')
FROM added @chosen@ GROUP BY building_id, room_id
-- One order for all: writers that meet on the same rooms wait for each other and never deadlock.
ORDER BY building_id, room_id
ON CONFLICT (building_id, room_id) DO UPDATE SET
    timestamp = greatest(room.timestamp, excluded.timestamp),
    temperature = CASE
        WHEN (excluded.timestamp, excluded.temperature) > (room.timestamp, room.temperature)
        THEN excluded.temperature ELSE room.temperature
    END,
    late_from = CASE
        WHEN excluded.summed_until < room.summed_until
        THEN least(room.late_from, excluded.summed_until) ELSE room.late_from
    END,
    late_to = CASE
        WHEN excluded.summed_until < room.summed_until
        THEN greatest(room.late_to, least(
            room.summed_until, date_bin('1 hour', excluded.timestamp, '2000-01-03 00:00+00') + interval '1 hour'
        ))
        ELSE room.late_to
    END,
    low = least(room.low, excluded.low),
    high = greatest(room.high, excluded.high),
    came_from = CASE
        WHEN excluded.watched_until < room.watched_until
        THEN least(room.came_from, excluded.watched_until) ELSE room.came_from
    END,
    came_to = CASE
        WHEN excluded.watched_until < room.watched_until
        THEN greatest(room.came_to, least(room.watched_until, excluded.timestamp)) ELSE room.came_to
    END
WHERE (excluded.timestamp, excluded.temperature) > (room.timestamp, room.temperature)
   OR excluded.summed_until < room.summed_until OR excluded.watched_until < room.watched_until
   OR (room.low <= excluded.low AND room.high >= excluded.high) IS NOT TRUE;
