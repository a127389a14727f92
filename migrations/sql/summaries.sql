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

-- Sums up the readings of rooms anew, of each since <= timestamp < before, hour by hour. Hours of which readings were
-- dropped keep what they have, and get what came since. Says for how many readings that was work, which days of which
-- rooms have other hours now, and which hours of which buildings may have lost their lowest or highest reading.
CREATE OR REPLACE FUNCTION summarize_hours(
    buildings text[], names text[], sinces timestamptz[], befores timestamptz[],
    OUT readings bigint, OUT day_buildings text[], OUT day_rooms text[], OUT days timestamptz[],
    OUT shrunk_buildings text[], OUT shrunk_hours timestamptz[]
)
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    horizon constant timestamptz := (SELECT dropped_before FROM upkeep);
BEGIN
    WITH slice AS (
        SELECT * FROM unnest(buildings, names, sinces, befores) AS slice (building_id, room_id, since, before)
    ), found AS MATERIALIZED (
        SELECT part.building_id, course.*
        FROM (
            SELECT building_id, tstzmultirange(tstzrange(since, before)) AS span, array_agg(room_id) AS among
            FROM slice GROUP BY building_id, since, before
        ) AS part
        CROSS JOIN LATERAL courses_of_hours(building_id, among, span) AS course
    ), kept AS MATERIALIZED (
        SELECT hours.* FROM slice CROSS JOIN LATERAL (
            SELECT * FROM room_hours
            WHERE building_id = slice.building_id AND room_id = slice.room_id AND hour >= since AND hour < before OFFSET 0
        ) AS hours
    ), new AS MATERIALIZED (
        SELECT
            building_id, room_id, hour, found.count, found.sum, found.min, found.max, found.sum_of_squares,
            found.first_at, found.first_temperature, found.last_at, found.last_temperature, found.longest_gap, found.degree_microseconds,
            found.counts, found.sums, found.mins, found.maxs,
            coalesce(kept.count, 0) AS old_count, coalesce(kept.sum, 0) AS old_sum, kept.min AS old_min, kept.max AS old_max
        FROM found FULL JOIN kept USING (building_id, room_id, hour)
        WHERE CASE
            WHEN hour < horizon THEN kept.hour IS NULL
            ELSE (
                found.count, found.sum, found.min, found.max, found.sum_of_squares, found.first_at, found.first_temperature,
                found.last_at, found.last_temperature, found.longest_gap, found.degree_microseconds,
                found.counts, found.sums, found.mins, found.maxs
            ) IS DISTINCT FROM (
                kept.count, kept.sum, kept.min, kept.max, kept.sum_of_squares, kept.first_at, kept.first_temperature,
                kept.last_at, kept.last_temperature, kept.longest_gap, kept.degree_microseconds,
                kept.counts, kept.sums, kept.mins, kept.maxs
            )
        END
        UNION ALL
        SELECT
            building_id, room_id, hour, kept.count + found.count, kept.sum + found.sum, least(kept.min, found.min),
            greatest(kept.max, found.max), kept.sum_of_squares + found.sum_of_squares,
            kept.first_at, kept.first_temperature, kept.last_at, kept.last_temperature, kept.longest_gap, kept.degree_microseconds,
            NULL, NULL, NULL, NULL, kept.count, kept.sum, kept.min, kept.max
        FROM found JOIN kept USING (building_id, room_id, hour) WHERE hour < horizon
    ), of_rooms AS (
        INSERT INTO room_hours AS kept (
            building_id, room_id, hour, count, sum, min, max, sum_of_squares, first_at, first_temperature, last_at,
            last_temperature, longest_gap, degree_microseconds, counts, sums, mins, maxs
        )
        SELECT
            building_id, room_id, hour, count, sum, min, max, sum_of_squares, first_at, first_temperature, last_at,
            last_temperature, longest_gap, degree_microseconds, counts, sums, mins, maxs
        FROM new WHERE count > 0
        ON CONFLICT (building_id, room_id, hour) DO UPDATE SET
            count = excluded.count, sum = excluded.sum, min = excluded.min, max = excluded.max,
            sum_of_squares = excluded.sum_of_squares,
            first_at = excluded.first_at, first_temperature = excluded.first_temperature,
            last_at = excluded.last_at, last_temperature = excluded.last_temperature,
            longest_gap = excluded.longest_gap, degree_microseconds = excluded.degree_microseconds,
            counts = excluded.counts, sums = excluded.sums, mins = excluded.mins, maxs = excluded.maxs
    ), gone AS (
        DELETE FROM room_hours USING new
        WHERE new.count IS NULL AND room_hours.building_id = new.building_id AND room_hours.room_id = new.room_id
          AND room_hours.hour = new.hour
    ), of_buildings AS (
        INSERT INTO building_hours AS kept (building_id, hour, count, sum, min, max)
        SELECT
            building_id, hour, sum(coalesce(count, 0) - old_count)::bigint, sum(coalesce(sum, 0) - old_sum),
            coalesce(min(min), 'infinity'), coalesce(max(max), '-infinity')
        FROM new GROUP BY building_id, hour
        ON CONFLICT (building_id, hour) DO UPDATE SET
            count = kept.count + excluded.count, sum = kept.sum + excluded.sum,
            min = least(kept.min, excluded.min), max = greatest(kept.max, excluded.max)
    ), shrunk AS (
        SELECT array_agg(building_id) AS buildings, array_agg(hour) AS hours
        FROM (
            SELECT DISTINCT building_id, hour FROM new LEFT JOIN building_hours AS of_all USING (building_id, hour)
            WHERE (new.count IS NULL OR new.min > old_min OR new.max < old_max)
              AND (old_min > of_all.min AND old_max < of_all.max) IS NOT TRUE
        ) AS hour
    ), touched AS (
        SELECT array_agg(building_id) AS buildings, array_agg(room_id) AS rooms, array_agg(day) AS days
        FROM (SELECT DISTINCT building_id, room_id, date_bin('1 day', hour, '2000-01-03 00:00+00') AS day FROM new) AS day
    )
    -- To write an hour takes as long as to read ten readings.
    SELECT (SELECT coalesce(sum(count + 10), 0) FROM found), touched.buildings, rooms, touched.days, shrunk.buildings, hours
    INTO readings, day_buildings, day_rooms, days, shrunk_buildings, shrunk_hours
    FROM touched CROSS JOIN shrunk;
END
$$;

-- Finds the lowest and highest readings of hours of buildings anew, from the hours of their rooms.
CREATE OR REPLACE FUNCTION find_extremes(buildings text[], hours timestamptz[]) RETURNS void
LANGUAGE sql SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
    DELETE FROM building_hours AS kept USING unnest(buildings, hours) AS shrunk (building_id, hour)
    WHERE kept.building_id = shrunk.building_id AND kept.hour = shrunk.hour AND kept.count = 0;
    -- Of rooms that somebody deleted by hand there are hours only.
    UPDATE building_hours AS kept SET min = coalesce(extremes.min, kept.min), max = coalesce(extremes.max, kept.max)
    FROM unnest(buildings, hours) AS shrunk (building_id, hour) CROSS JOIN LATERAL (
        SELECT min(of_room.min) AS min, max(of_room.max) AS max
        FROM rooms JOIN room_hours AS of_room USING (building_id, room_id)
        WHERE rooms.building_id = shrunk.building_id AND of_room.hour = shrunk.hour
    ) AS extremes
    WHERE kept.building_id = shrunk.building_id AND kept.hour = shrunk.hour;
$$;

@roll_up_days@

@roll_up_weeks@

-- Puts the hours of days of rooms together, and those of their buildings; then the days of weeks that are over.
CREATE OR REPLACE FUNCTION summarize_days(buildings text[], names text[], days timestamptz[]) RETURNS void
LANGUAGE sql SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
    SELECT roll_up_days(buildings, names, days);
    SELECT roll_up_weeks(array_agg(building_id), array_agg(room_id), array_agg(week))
    FROM (
        SELECT DISTINCT building_id, room_id, date_bin('7 days', day, '2000-01-03 00:00+00') AS week
        FROM unnest(buildings, names, days) AS touched (building_id, room_id, day)
        JOIN rooms USING (building_id, room_id) WHERE day < weeks_until
    ) AS touched
    HAVING count(*) > 0;
    DELETE FROM building_days AS kept USING unnest(buildings, days) AS touched (building_id, day)
    WHERE kept.building_id = touched.building_id AND kept.day = touched.day AND NOT EXISTS (
        SELECT FROM building_hours AS of_day
        WHERE of_day.building_id = touched.building_id
          AND hour >= touched.day AND hour < touched.day + interval '24:00'
    );
    INSERT INTO building_days AS kept (building_id, day, count, sum, min, max)
    SELECT touched.building_id, day, together.*
    FROM (SELECT DISTINCT building_id, day FROM unnest(buildings, days) AS touched (building_id, day)) AS touched
    CROSS JOIN LATERAL (
        SELECT sum(count)::bigint AS count, sum(sum), min(min), max(max) FROM building_hours AS of_day
        WHERE of_day.building_id = touched.building_id
          AND hour >= touched.day AND hour < touched.day + interval '24:00'
    ) AS together
    WHERE count > 0
    ON CONFLICT (building_id, day) DO UPDATE SET
        count = excluded.count, sum = excluded.sum, min = excluded.min, max = excluded.max;
$$;

-- Puts the days of weeks of rooms together that are summed up as a whole now. While a week lasts, nobody reads it, and its
-- days change every hour.
CREATE OR REPLACE FUNCTION summarize_weeks(buildings text[], names text[]) RETURNS void
LANGUAGE sql SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
    SELECT roll_up_weeks(array_agg(building_id), array_agg(room_id), array_agg(week))
    FROM (
        SELECT DISTINCT building_id, room_id, date_bin('7 days', day, '2000-01-03 00:00+00') AS week
        FROM unnest(buildings, names) AS chosen (building_id, room_id)
        JOIN rooms USING (building_id, room_id)
        CROSS JOIN LATERAL (
            SELECT day FROM room_days AS of_room
            WHERE of_room.building_id = rooms.building_id AND of_room.room_id = rooms.room_id
              AND day >= weeks_until AND day < date_bin('7 days', summed_until, '2000-01-03 00:00+00') OFFSET 0
        ) AS of_room
    ) AS over
    HAVING count(*) > 0;
    UPDATE rooms SET weeks_until = date_bin('7 days', summed_until, '2000-01-03 00:00+00')
    FROM unnest(buildings, names) AS chosen (building_id, room_id)
    WHERE rooms.building_id = chosen.building_id AND rooms.room_id = chosen.room_id
      AND weeks_until < date_bin('7 days', summed_until, '2000-01-03 00:00+00');
$$;

-- Brings up to `hours` hours of some rooms up to date. Rooms that a writer has locked are left out, unless it is to wait
-- for them. Returns for how many readings that was work, and whether there is more to do for these rooms.
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
    sinces timestamptz[];
    befores timestamptz[];
    made record;
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
    SELECT array_agg(building_id), array_agg(room_id), array_agg(since),
           array_agg(least(since + hours * interval '1 hour', until))
    INTO buildings, names, sinces, befores
    FROM unsummarized JOIN unnest(buildings, names) AS chosen (building_id, room_id) USING (building_id, room_id);
    made := summarize_hours(buildings, names, sinces, befores);
    IF made.shrunk_buildings IS NOT NULL THEN
        PERFORM find_extremes(made.shrunk_buildings, made.shrunk_hours);
    END IF;
    PERFORM summarize_days(made.day_buildings, made.day_rooms, made.days);
    readings := made.readings;
    -- What came late to hours that were dropped is only in the summaries from now on. EXECUTE knows the horizon when it
    -- plans, and so leaves out all later chunks: what is compressed there would be decompressed.
    IF horizon > (SELECT min(since) FROM unnest(sinces) AS since) THEN
        EXECUTE 'DELETE FROM temperatures USING unnest($1, $2, $3, $4) AS slice (building_id, room_id, since, before)
            WHERE temperatures.building_id = slice.building_id AND temperatures.room_id = slice.room_id
              AND timestamp >= since AND timestamp < before AND timestamp < $5'
        USING buildings, names, sinces, befores, horizon;
    END IF;
    UPDATE rooms SET
        late_from = CASE WHEN before < late_to THEN before END,
        late_to = CASE WHEN before < late_to THEN late_to END,
        summed_until = CASE WHEN late_from IS NULL THEN before ELSE summed_until END
    FROM unnest(buildings, names, sinces, befores) AS slice (building_id, room_id, since, before)
    WHERE rooms.building_id = slice.building_id AND rooms.room_id = slice.room_id;
    PERFORM summarize_weeks(array_agg(building_id), array_agg(room_id))
    FROM rooms JOIN unnest(buildings, names) AS chosen (building_id, room_id) USING (building_id, room_id)
    -- Those of the version before get theirs from the migrations.
    WHERE isfinite(weeks_until) AND weeks_until < date_bin('7 days', summed_until, '2000-01-03 00:00+00')
    HAVING count(*) > 0;
    more := EXISTS (
        SELECT FROM unsummarized
        JOIN unnest(buildings, names) AS chosen (building_id, room_id) USING (building_id, room_id)
    );
END
$$;

-- Sums up hours of a room that were summed up before there were courses or quarters, the newest first, of about so many
-- readings. Nobody sees these hours as not summed up. Returns whether there are more.
CREATE OR REPLACE FUNCTION complete_courses(building text, room text, readings_wanted integer) RETURNS boolean
LANGUAGE plpgsql SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
    known constant rooms := (SELECT rooms FROM rooms WHERE building_id = building AND room_id = room FOR UPDATE SKIP LOCKED);
    slice record;
BEGIN
    IF known.courses_missing_before IS NULL THEN
        RETURN false;
    END IF;
    SELECT min(hour) AS since, max(hour) + interval '1 hour' AS before INTO slice FROM (
        SELECT hour, sum(count) OVER (ORDER BY hour DESC) - count AS later_readings
        FROM room_hours CROSS JOIN upkeep
        WHERE building_id = building AND room_id = room
          AND hour < known.courses_missing_before AND hour < known.summed_until AND hour >= dropped_before
        ORDER BY hour DESC LIMIT 1000
    ) AS newest WHERE later_readings < readings_wanted;
    UPDATE rooms SET
        courses_missing_before = slice.since,
        late_from = least(late_from, slice.since), late_to = greatest(late_to, slice.before)
    WHERE building_id = building AND room_id = room;
    IF slice.since IS NOT NULL THEN
        PERFORM summarize_rooms(ARRAY[building], ARRAY[room], 1000000, patient => true);
    END IF;
    RETURN slice.since IS NOT NULL;
END
$$;

-- The hours, days, weeks or quarters of hours, in UTC, that lie within some buckets: the first is from bounds[1] to
-- bounds[2].
CREATE OR REPLACE FUNCTION whole_parts(bounds timestamptz[], width interval) RETURNS tstzmultirange
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (
    SELECT coalesce(range_agg(tstzrange(first, last)), '{}')
    FROM (
        SELECT
            date_bin(width, since + width - interval '0.000001', '2000-01-03 00:00+00') AS first,
            date_bin(width, until, '2000-01-03 00:00+00') AS last
        FROM unnest(bounds, bounds[2:]) AS bucket (since, until)
    ) AS bucket
    WHERE first < last
);

-- The days or weeks, in UTC, that some spans of time touch. A week begins on a Monday.
CREATE OR REPLACE FUNCTION touched(spans tstzmultirange, width interval) RETURNS tstzmultirange
-- Most spans are empty, and a function in SQL begins a query even then.
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    IF isempty(spans) THEN
        RETURN spans;
    END IF;
    RETURN (
        SELECT range_agg(tstzrange(
            date_bin(width, lower(span), '2000-01-03 00:00+00'),
            date_bin(width, upper(span) + width - interval '0.000001', '2000-01-03 00:00+00')
        ))
        FROM unnest(spans) AS span
    );
END
$$;

-- An earlier version had it for days alone.
DROP FUNCTION IF EXISTS touched_days(tstzmultirange);
