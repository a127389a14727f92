-- All readings of a room, since <= timestamp < before, put together.
CREATE OR REPLACE FUNCTION room_readings(building text, room text, since timestamptz, before timestamptz)
RETURNS TABLE (count bigint, sum numeric, min double precision, max double precision)
LANGUAGE sql STABLE AS $$
    SELECT count, sum, min, max
    FROM readings_summary(building, ARRAY[room], since, before, NULL::interval)
$$;
