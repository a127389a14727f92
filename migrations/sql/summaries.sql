-- What is to be summed up: for each room, from when to when. Only hours that are over.
CREATE OR REPLACE VIEW unsummarized AS
SELECT
    building_id, room_id, coalesce(late_from, summed_until) AS since,
    coalesce(late_to, least(
        date_bin('1 hour', now(), '2000-01-03 00:00+00'),
        date_bin('1 hour', timestamp, '2000-01-03 00:00+00') + interval '1 hour'
    )) AS until
FROM rooms
WHERE late_from IS NOT NULL
   OR (timestamp >= summed_until AND summed_until < date_bin('1 hour', now(), '2000-01-03 00:00+00'));

-- Whether the next `hours` hours of some rooms that are to be summed up have more readings than so many. It locks nothing.
CREATE OR REPLACE FUNCTION more_readings(buildings text[], names text[], hours integer, than integer) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
    part record;
    readings bigint := 0;
BEGIN
    FOR part IN
        SELECT building_id, since, least(since + hours * interval '1 hour', until) AS before, array_agg(room_id) AS among
        FROM unsummarized JOIN unnest(buildings, names) AS chosen (building_id, room_id) USING (building_id, room_id)
        GROUP BY building_id, since, before
    LOOP
        readings := readings + readings_up_to(part.building_id, part.among, part.since, part.before, than + 1);
        EXIT WHEN readings > than;
    END LOOP;
    RETURN readings > than;
END
$$;

-- Brings up to `hours` hours of some rooms up to date. Rooms that a writer has locked are left out, unless it is to wait
-- for them. Returns how many readings it looked at, and whether there is more to do for these rooms.
CREATE OR REPLACE FUNCTION summarize_rooms(
    buildings text[], names text[], hours integer, patient boolean, OUT readings bigint, OUT more boolean
)
LANGUAGE plpgsql
SET search_path FROM CURRENT
-- A plan that was made while the tables were small would read all of them for each slice of a backlog.
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
    horizon constant timestamptz := (SELECT dropped_before FROM upkeep);
BEGIN
    IF patient THEN
        PERFORM FROM rooms JOIN unnest(buildings, names) AS chosen (building_id, room_id) USING (building_id, room_id)
        ORDER BY building_id, room_id FOR UPDATE OF rooms;
    ELSE
        SELECT array_agg(building_id), array_agg(room_id) INTO buildings, names
        FROM (
            SELECT building_id, room_id
            FROM rooms JOIN unnest(buildings, names) AS chosen (building_id, room_id) USING (building_id, room_id)
            ORDER BY building_id, room_id FOR UPDATE OF rooms SKIP LOCKED
        ) AS locked;
    END IF;
    -- What was committed before the locks were taken is seen from here on, and nothing of these rooms comes after it.
    WITH slice AS (
        SELECT building_id, room_id, since, least(since + hours * interval '1 hour', until) AS before
        FROM unsummarized JOIN unnest(buildings, names) AS chosen (building_id, room_id) USING (building_id, room_id)
    ), found AS MATERIALIZED (
        SELECT part.building_id, summary.room_id, summary.at AS hour, count, sum, min, max
        FROM (
            SELECT building_id, since, before, array_agg(room_id) AS among FROM slice GROUP BY 1, 2, 3
        ) AS part
        CROSS JOIN LATERAL readings_summary(building_id, among, since, before, interval '1 hour', NULL::timestamptz) AS summary
    ), new AS MATERIALIZED (
        -- Where readings were dropped, those that are there came since, and are added.
        SELECT
            building_id, room_id, hour, found.count - coalesce(kept.count, 0) AS count,
            found.sum - coalesce(kept.sum, 0) AS sum, found.min, found.max
        FROM found
        LEFT JOIN (SELECT * FROM room_hours WHERE hour >= horizon) AS kept USING (building_id, room_id, hour)
        WHERE found.count IS DISTINCT FROM kept.count
    ), of_room_hours AS (
        INSERT INTO room_hours AS kept (building_id, room_id, hour, count, sum, min, max)
        SELECT building_id, room_id, hour, count, sum, min, max FROM new
        ON CONFLICT (building_id, room_id, hour) DO UPDATE SET
            count = kept.count + excluded.count, sum = kept.sum + excluded.sum,
            min = least(kept.min, excluded.min), max = greatest(kept.max, excluded.max)
    ), of_room_days AS (
        INSERT INTO room_days AS kept (building_id, room_id, day, count, sum, min, max)
        SELECT
            building_id, room_id, date_bin('1 day', hour, '2000-01-03 00:00+00') AS day,
            sum(count)::bigint, sum(sum), min(min), max(max)
        FROM new GROUP BY building_id, room_id, day
        ON CONFLICT (building_id, room_id, day) DO UPDATE SET
            count = kept.count + excluded.count, sum = kept.sum + excluded.sum,
            min = least(kept.min, excluded.min), max = greatest(kept.max, excluded.max)
    ), of_building_hours AS (
        INSERT INTO building_hours AS kept (building_id, hour, count, sum, min, max)
        SELECT building_id, hour, sum(count)::bigint, sum(sum), min(min), max(max) FROM new GROUP BY building_id, hour
        ON CONFLICT (building_id, hour) DO UPDATE SET
            count = kept.count + excluded.count, sum = kept.sum + excluded.sum,
            min = least(kept.min, excluded.min), max = greatest(kept.max, excluded.max)
    ), of_building_days AS (
        INSERT INTO building_days AS kept (building_id, day, count, sum, min, max)
        SELECT
            building_id, date_bin('1 day', hour, '2000-01-03 00:00+00') AS day,
            sum(count)::bigint, sum(sum), min(min), max(max)
        FROM new GROUP BY building_id, day
        ON CONFLICT (building_id, day) DO UPDATE SET
            count = kept.count + excluded.count, sum = kept.sum + excluded.sum,
            min = least(kept.min, excluded.min), max = greatest(kept.max, excluded.max)
    ), folded AS (
        DELETE FROM temperatures USING slice
        WHERE temperatures.building_id = slice.building_id AND temperatures.room_id = slice.room_id
          AND temperatures.timestamp >= slice.since AND temperatures.timestamp < least(slice.before, horizon)
    ), done AS (
        UPDATE rooms SET
            late_from = CASE WHEN before < late_to THEN before END,
            late_to = CASE WHEN before < late_to THEN late_to END,
            summed_until = CASE WHEN late_from IS NULL THEN before ELSE summed_until END
        FROM slice WHERE rooms.building_id = slice.building_id AND rooms.room_id = slice.room_id
        RETURNING late_from IS NOT NULL OR (
            timestamp >= summed_until AND summed_until < date_bin('1 hour', now(), '2000-01-03 00:00+00')
        ) AS unfinished
    )
    SELECT (SELECT coalesce(sum(count), 0) FROM found), coalesce(bool_or(unfinished), false)
    INTO readings, more FROM done;
END
$$;

-- The days, in UTC, that some spans of time touch.
CREATE OR REPLACE FUNCTION touched_days(spans tstzmultirange) RETURNS tstzmultirange
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (
    SELECT coalesce(range_agg(tstzrange(
        date_bin('1 day', lower(span), '2000-01-03 00:00+00'),
        date_bin('1 day', upper(span) + interval '23:59:59.999999', '2000-01-03 00:00+00')
    )), '{}')
    FROM unnest(spans) AS span
);
