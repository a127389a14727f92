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
    @need_timescaledb@;
    -- No client can hold others, and who asks for all rooms, or looks for alarms, would get no answer.
    PERFORM FROM added WHERE timestamp < '0001-01-01 00:00+00' OR timestamp >= '10000-01-01 00:00+00' LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'a timestamp must be of the years 1 to 9999 in UTC' USING ERRCODE = 'check_violation';
    END IF;
    PERFORM FROM removals WHERE until > now() LIMIT 1;
    IF FOUND THEN
        -- What is measured now is later than every removal was asked for.
        PERFORM FROM added
        WHERE timestamp < (SELECT max(least(before, asked)) FROM removals WHERE until > now()) LIMIT 1;
    END IF;
    IF FOUND THEN
        FOR part IN
            SELECT building_id, room_id, array_agg(timestamp) AS instants, array_agg(temperature) AS degrees
            FROM added WHERE @kept_out@ GROUP BY building_id, room_id
        LOOP
            PERFORM delete_readings(part.building_id, part.room_id, part.instants, part.degrees);
            some_are_kept_out := true;
        END LOOP;
    END IF;
    IF some_are_kept_out THEN
        @mark_others@
    ELSE
        @mark_all@
    END IF;
    RETURN NULL;
END
$$;

-- TRUNCATE forgets everything. What retention drops does not come by here.
CREATE OR REPLACE FUNCTION forget_rooms() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    TRUNCATE rooms, room_hours, room_days, room_weeks, building_hours, building_days;
    UPDATE upkeep SET dropped_before = '-infinity';
    RETURN NULL;
END
$$;

-- Whoever may execute them could put them on a table of their own, a temporary one even, and have them change `rooms`
-- as the owner.
REVOKE EXECUTE ON FUNCTION mark_rooms(), forget_rooms() FROM PUBLIC;
