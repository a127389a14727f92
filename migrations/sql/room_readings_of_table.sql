-- All readings of a room, since <= timestamp < before, put together. It has no settings of its own, so that PostgreSQL
-- plans it as part of the statement that calls it.
CREATE OR REPLACE FUNCTION room_readings(building text, room text, since timestamptz, before timestamptz)
RETURNS TABLE (count bigint, sum numeric, min double precision, max double precision)
LANGUAGE sql STABLE AS $$
    SELECT
        count(*),
        @exact_sum@,
        min(temperature),
        max(temperature)
    FROM temperatures
    WHERE building_id = building AND room_id = room AND timestamp >= since AND timestamp < before
$$;
