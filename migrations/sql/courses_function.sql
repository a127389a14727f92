-- The course of the temperature of some rooms of a building in some spans of time: for each room and hour, which is cut
-- where a bucket begins if there are `bounds` of buckets. A reading holds until the next one of its part, and for
-- `longest_hold` at most; how long the last one of a part holds is not said here.
--
-- `covered`, `above` and `below` are the microseconds for which any temperature held, one above a limit, one below one.
-- Beside each is the sum of these temperatures times the microseconds that they held.
--
-- A temperature is a whole multiple of 2^-57. In two halves of 32 bits each, what is summed up fits into 64 bits, and is
-- exact. What is closer to zero than 1/32 is summed up as `tiny`.
CREATE OR REPLACE FUNCTION @name@(
    building text, among text[], spans tstzmultirange, bounds timestamptz[] DEFAULT NULL,
    longest_hold interval DEFAULT NULL, above_limit double precision DEFAULT NULL,
    below_limit double precision DEFAULT NULL
)
RETURNS TABLE (
    room_id text, at timestamptz, count bigint, sum numeric, min double precision, max double precision,
    sum_of_squares numeric, first_at timestamptz, first_temperature double precision,
    last_at timestamptz, last_temperature double precision, longest_gap interval,
    covered numeric, degree_microseconds numeric,
    above numeric, above_degree_microseconds numeric, below numeric, below_degree_microseconds numeric
)
-- The planner expects more groups than there are, and would sort all readings for them.
LANGUAGE plpgsql @volatility@ SET search_path FROM CURRENT SET enable_sort = off AS $$
#variable_conflict use_column
DECLARE
    most_held constant bigint := microseconds(longest_hold);
    near tstzmultirange;
BEGIN
    @need_timescaledb@;
    @of_few@
    -- A statement on a hypertable is planned for a few chunks: it reads spans that are near each other.
    WHILE NOT isempty(spans) LOOP
        near := @near_spans@;
        spans := spans - near;
        RETURN QUERY
        @course@;
    END LOOP;
END
$$;
