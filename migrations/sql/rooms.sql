-- Whoever adds readings, in whatever way, brings the rows of their rooms up to date in the same transaction. The lock on
-- these rows makes writers and summarize_rooms() take turns, room by room. Readings that are there already mark nothing.
CREATE OR REPLACE FUNCTION mark_rooms() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO rooms AS room (building_id, room_id, timestamp, temperature, summed_until)
    SELECT building_id, room_id, last, max(temperature), date_bin('1 hour', first, '2000-01-03 00:00+00')
    FROM (
        SELECT building_id, room_id, min(timestamp) AS first, max(timestamp) AS last
        FROM added GROUP BY building_id, room_id
    ) AS span
    JOIN added USING (building_id, room_id)
    WHERE added.timestamp = last
    GROUP BY building_id, room_id, first, last
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
        END
    WHERE (excluded.timestamp, excluded.temperature) > (room.timestamp, room.temperature)
       OR excluded.summed_until < room.summed_until;
    RETURN NULL;
END
$$;

-- TRUNCATE forgets everything. What retention drops does not come by here.
CREATE OR REPLACE FUNCTION forget_rooms() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    TRUNCATE rooms, room_hours, room_days, building_hours, building_days;
    UPDATE upkeep SET dropped_before = '-infinity';
    RETURN NULL;
END
$$;

-- Whoever may execute them could put them on a table of their own, a temporary one even, and have them change `rooms`
-- as the owner.
REVOKE EXECUTE ON FUNCTION mark_rooms(), forget_rooms() FROM PUBLIC;
