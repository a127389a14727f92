-- An earlier version had another parameter.
DROP FUNCTION IF EXISTS readings_summary(text, text[], timestamptz, timestamptz, interval, timestamptz);

-- Fails where readings are hidden. Whoever asks the table itself, and would take them for none, calls this before.
CREATE OR REPLACE FUNCTION need_readings() RETURNS void
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
BEGIN
    @need_timescaledb@;
END
$$;

-- Readings of some rooms of a building, since <= timestamp < before, put together for each room and bucket of a width;
-- without a width in one bucket.
CREATE OR REPLACE FUNCTION readings_summary(
    building text, among text[], since timestamptz, before timestamptz, width interval
)
RETURNS TABLE (room_id text, at timestamptz, count bigint, sum numeric, min double precision, max double precision)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
#variable_conflict use_column
BEGIN
    @need_timescaledb@;
    IF width IS NULL AND cardinality(among) = 1 THEN
        -- The same without groups, for the question that is asked most.
        RETURN QUERY
        SELECT
            among[1],
            NULL::timestamptz,
            count(*),
            @exact_sum@,
            min(temperature),
            max(temperature)
        FROM temperatures AS reading
        WHERE building_id = building AND reading.room_id = among[1] AND timestamp >= since AND timestamp < before
        HAVING count(*) > 0;
    ELSE
        RETURN QUERY
        SELECT
            reading.room_id,
            date_bin(width, reading.timestamp, '2000-01-03 00:00+00'),
            count(*),
            @exact_sum@,
            min(temperature),
            max(temperature)
        FROM temperatures AS reading
        WHERE building_id = building AND reading.room_id = ANY (among) AND timestamp >= since AND timestamp < before
        GROUP BY 1, 2;
    END IF;
END
$$;

-- The first of some spans of time, and those that are near it.
CREATE OR REPLACE FUNCTION first_spans(spans tstzmultirange) RETURNS tstzmultirange
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (
    SELECT spans * tstzmultirange(tstzrange(
        lower(spans), greatest(lower(spans) + interval '672 hours', upper(first))
    )) FROM unnest(spans) AS first LIMIT 1
);

-- Readings of some rooms of a building in spans of time, put together for each bucket: the first one is from bounds[1] to
-- bounds[2]. `at` is when the first reading was.
CREATE OR REPLACE FUNCTION readings_by_bucket(
    building text, among text[], spans tstzmultirange, bounds timestamptz[]
)
RETURNS TABLE (at timestamptz, count bigint, sum numeric, min double precision, max double precision)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
#variable_conflict use_column
DECLARE
    near tstzmultirange;
BEGIN
    @need_timescaledb@;
    -- A statement on a hypertable is planned for a few chunks: it reads spans that are near each other.
    WHILE NOT isempty(spans) LOOP
        near := @near_spans@;
        spans := spans - near;
        RETURN QUERY
        SELECT min(timestamp), count(*), @exact_sum@, min(temperature), max(temperature)
        FROM unnest(near) AS span CROSS JOIN LATERAL (
            SELECT timestamp, temperature FROM temperatures
            WHERE building_id = building AND room_id = ANY (among)
              AND timestamp >= lower(span) AND timestamp < upper(span)
              AND timestamp >= lower(near) AND timestamp < upper(near) OFFSET 0
        ) AS reading
        -- PL/pgSQL holds an array in a form that would be made flat again for each reading.
        GROUP BY width_bucket(timestamp, (SELECT array_cat(bounds, '{}')));
    END LOOP;
END
$$;

-- How many readings there are of some rooms of a building, since <= timestamp < before, but at most `most`.
CREATE OR REPLACE FUNCTION readings_up_to(
    building text, among text[], since timestamptz, before timestamptz, most integer
) RETURNS bigint
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
BEGIN
    @need_timescaledb@;
    RETURN (
        SELECT count(*) FROM (
            SELECT FROM temperatures AS reading
            WHERE building_id = building AND room_id = ANY (among)
              AND reading.timestamp >= since AND reading.timestamp < before
            LIMIT most
        ) AS found
    );
END
$$;

-- The latest reading of a room up to an instant.
CREATE OR REPLACE FUNCTION latest_reading(building text, room text, until timestamptz)
RETURNS TABLE ("timestamp" timestamptz, temperature double precision)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
#variable_conflict use_column
DECLARE
    since timestamptz;
BEGIN
    @need_timescaledb@;
    -- A statement on a hypertable is planned for a few chunks, and for all only where these have no reading.
    FOREACH since IN ARRAY ARRAY[until - interval '672 hours', '-infinity'] LOOP
        RETURN QUERY
        SELECT reading.timestamp, max(reading.temperature) FROM (
            SELECT stored.timestamp, stored.temperature FROM temperatures AS stored
            WHERE building_id = building AND room_id = room AND stored.timestamp > since AND stored.timestamp <= until
            -- The columnstore is ordered by the timestamp alone.
            ORDER BY stored.timestamp DESC FETCH FIRST ROW WITH TIES
        ) AS reading
        GROUP BY reading.timestamp;
        EXIT WHEN FOUND;
    END LOOP;
END
$$;

-- The first `most` readings of some rooms of a building, since <= timestamp < before, in order: the number of a room in
-- `among`, readings of it as text, how many they are, and when the last one was. Those of the first room come after a
-- reading, and may be several rows. The statement has a snapshot of its own, as in courses_of_hours().
CREATE OR REPLACE FUNCTION page_of_readings(
    building text, among text[], since timestamptz, before timestamptz,
    after_timestamp timestamptz, after_temperature double precision, most integer
)
RETURNS TABLE (number bigint, text bytea, count bigint, last timestamptz)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
#variable_conflict use_column
DECLARE
    chosen text[] := among[1:1];
    width interval := '672 hours';
    begins timestamptz := after_timestamp;
    ends timestamptz := least(begins + width, before);
    missing bigint := most;
BEGIN
    @need_timescaledb@;
    LOOP
        FOR number, text, count, last IN
            SELECT
                array_position(among, page.room_id)::bigint,
                convert_to(string_agg(to_json(timestamp AT TIME ZONE 'UTC')::text || temperature, chr(10)), 'UTF8'),
                count(*), max(timestamp)
            FROM (
                SELECT room.room_id, number, timestamp, temperature
                FROM unnest(chosen) WITH ORDINALITY AS room (room_id, number)
                CROSS JOIN LATERAL (
                    SELECT timestamp, temperature FROM temperatures
                    WHERE building_id = building AND temperatures.room_id = room.room_id
                      AND timestamp >= begins AND timestamp < ends
                      AND (timestamp, temperature) > (after_timestamp, after_temperature)
                    -- The columnstore is ordered by the timestamp alone.
                    ORDER BY timestamp FETCH FIRST (missing) ROWS WITH TIES
                ) AS reading
                ORDER BY number, timestamp, temperature LIMIT missing
            ) AS page
            GROUP BY page.number, page.room_id ORDER BY page.number
        LOOP
            RETURN NEXT;
            missing := missing - count;
        END LOOP;
        IF missing = 0 THEN
            RETURN;
        ELSIF ends < before THEN
            -- A statement on a hypertable is planned for a few chunks, for more only where these have few readings.
            width := 2 * width;
            begins := ends;
            ends := least(begins + width, before);
        ELSIF chosen = among[1:1] AND cardinality(among) > 1 THEN
            chosen := among[2:];
            begins := since;
            after_timestamp := since;
            after_temperature := '-Infinity';
        ELSE
            RETURN;
        END IF;
    END LOOP;
END
$$;
