-- Whoever adds readings, in whatever way, brings the rows of their rooms up to date in the same transaction. The lock on
-- these rows makes writers, summarize_rooms() and `watch` take turns, room by room. Readings that are there already mark
-- nothing. What was removed does not come back: it is stored and deleted at once, and whoever stores it sees a success.
--
-- `watch` has looked at the readings up to `watched_until`. Those that came since are the later ones, and some of
-- came_from <= timestamp <= came_to before it; `low` and `high` are the lowest and highest temperature among them.
CREATE OR REPLACE FUNCTION mark_rooms() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    some_are_kept_out boolean := false;
    part record;
BEGIN
    IF EXISTS (SELECT FROM removals WHERE until > now()) THEN
        FOR part IN
            SELECT building_id, room_id, array_agg(timestamp) AS instants, array_agg(temperature) AS degrees
            FROM added WHERE @kept_out@ GROUP BY building_id, room_id
        LOOP
            PERFORM delete_readings(part.building_id, part.room_id, part.instants, part.degrees);
            some_are_kept_out := true;
        END LOOP;
    END IF;
    INSERT INTO rooms AS room (building_id, room_id, timestamp, temperature, summed_until, watched_until, low, high)
    SELECT
        building_id, room_id, max(timestamp), (array_agg(temperature ORDER BY timestamp, temperature))[count(*)],
        date_bin('1 hour', min(timestamp), '2000-01-03 00:00+00'), min(timestamp), min(temperature), max(temperature)
    FROM added WHERE NOT (some_are_kept_out AND @kept_out@) GROUP BY building_id, room_id
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
