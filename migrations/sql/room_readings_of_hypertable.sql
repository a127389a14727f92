-- The readings of a room, since <= timestamp < before. What reads a hypertable is planned each time, and a statement that
-- puts nothing together in less time.
CREATE OR REPLACE FUNCTION stored_readings(building text, room text, since timestamptz, before timestamptz)
RETURNS SETOF temperatures
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
BEGIN
    @need_timescaledb@;
    RETURN QUERY
    SELECT * FROM temperatures
    WHERE building_id = building AND room_id = room AND timestamp >= since AND timestamp < before;
END
$$;

-- All readings of a room, since <= timestamp < before, put together. It is for few: thousands are put together in less time
-- where they are read.
CREATE OR REPLACE FUNCTION room_readings(building text, room text, since timestamptz, before timestamptz)
RETURNS TABLE (count bigint, sum numeric, min double precision, max double precision)
LANGUAGE sql STABLE AS $$
    SELECT
        count(*),
        @exact_sum@,
        min(temperature),
        max(temperature)
    FROM stored_readings(building, room, since, before)
$$;
