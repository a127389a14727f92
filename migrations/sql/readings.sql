-- Readings of some rooms of a building, since <= timestamp < before, put together for each room and bucket of a width;
-- without a width in one bucket. Hours of which only the summary is left, those before `dropped_before` if it is given,
-- count where they begin; they may have a row beside that of the readings.
CREATE OR REPLACE FUNCTION readings_summary(
    building text, among text[], since timestamptz, before timestamptz, width interval,
    dropped_before timestamptz
)
RETURNS TABLE (room_id text, at timestamptz, count bigint, sum numeric, min double precision, max double precision)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
#variable_conflict use_column
BEGIN
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
    IF since < dropped_before THEN
        RETURN QUERY
        SELECT kept.room_id, date_bin(width, kept.hour, '2000-01-03 00:00+00'), kept.count, kept.sum, kept.min, kept.max
        FROM room_hours AS kept
        WHERE building_id = building AND kept.room_id = ANY (among)
          AND hour >= since AND hour < least(before, dropped_before);
    END IF;
END
$$;

-- How many readings there are of some rooms of a building, since <= timestamp < before, but at most `most`.
CREATE OR REPLACE FUNCTION readings_up_to(
    building text, among text[], since timestamptz, before timestamptz, most integer
) RETURNS bigint
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
BEGIN
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
BEGIN
    RETURN QUERY
    SELECT reading.timestamp, reading.temperature FROM temperatures AS reading
    WHERE building_id = building AND room_id = room AND reading.timestamp <= until
    ORDER BY reading.timestamp DESC, reading.temperature DESC LIMIT 1;
END
$$;
