-- A temperature as it is stored, without any rounding: a double from 1/32 to 64 is a whole multiple of 2^-57, and one
-- closer to zero is taken for a multiple of 2^-109.
CREATE OR REPLACE FUNCTION exact_temperature(temperature double precision) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (temperature * 144115188075855872)::bigint * 6.938893903907228377647697925567626953125E-18
    + CASE
        WHEN temperature < 0.03125 AND temperature > -0.03125 THEN
            ((temperature * 144115188075855872 - (temperature * 144115188075855872)::bigint) * 4503599627370496)::bigint
            * 6.938893903907228377647697925567626953125E-18 * 2.220446049250313080847263336181640625E-16
        ELSE 0
    END;

-- A sum of multiples of 2^-25, one of multiples of 2^-57, and one of what is as it is.
CREATE OR REPLACE FUNCTION exact_total(high numeric, low numeric, tiny numeric) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(high, 0) * 2.98023223876953125E-8
    + coalesce(low, 0) * 6.938893903907228377647697925567626953125E-18 + coalesce(tiny, 0);

CREATE OR REPLACE FUNCTION microseconds(length interval) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (date_part('epoch', length) * 1000000)::bigint;

-- The course of the temperature of some rooms of a building in some spans of time: for each room and hour, which is cut
-- where a bucket begins if there are `bounds` of buckets. A reading holds until the next one of its part, and for
-- `longest_hold` at most; how long the last one of a part holds is not said here.
--
-- `covered`, `above` and `below` are the microseconds for which any temperature held, one above a limit, one below one.
-- Beside each is the sum of these temperatures times the microseconds that they held.
--
-- A temperature is a whole multiple of 2^-57. In two halves of 32 bits each, what is summed up fits into 64 bits, and is
-- exact. What is closer to zero than 1/32 is summed up as `tiny`.
CREATE OR REPLACE FUNCTION courses(
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
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT SET enable_sort = off AS $$
#variable_conflict use_column
DECLARE
    most_held constant bigint := microseconds(longest_hold);
    near tstzmultirange;
BEGIN
    @need_timescaledb@;
    @few_courses@
    -- A statement on a hypertable is planned for a few chunks: it reads spans that are near each other.
    WHILE NOT isempty(spans) LOOP
        near := @near_spans@;
        spans := spans - near;
        RETURN QUERY
        @course@;
    END LOOP;
END
$$;

-- The courses of whole hours of rooms that nobody writes to meanwhile, beside the counts, sums, lowest and highest readings
-- of their four quarters. Each of its statements has a snapshot of its own, taken when it is planned. With an earlier one, a
-- chunk that TimescaleDB compresses meanwhile would lack what had come to it since it was compressed before: the plan leaves
-- that out, and the snapshot does not see where it is by now.
CREATE OR REPLACE FUNCTION courses_of_hours(building text, among text[], spans tstzmultirange)
RETURNS TABLE (
    room_id text, hour timestamptz, count bigint, sum numeric, min double precision, max double precision,
    sum_of_squares numeric, first_at timestamptz, first_temperature double precision,
    last_at timestamptz, last_temperature double precision, longest_gap interval, degree_microseconds numeric,
    counts integer[], sums numeric[], mins double precision[], maxs double precision[]
)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT SET enable_sort = off AS $$
#variable_conflict use_column
DECLARE
    near tstzmultirange;
BEGIN
    @need_timescaledb@;
    WHILE NOT isempty(spans) LOOP
        near := @near_spans@;
        spans := spans - near;
        RETURN QUERY
        SELECT
            quarter.room_id, quarter.hour, sum(quarter.count)::bigint, sum(quarter.sum), min(quarter.min), max(quarter.max),
            sum(quarter.sum_of_squares), min(quarter.first_at), min(quarter.first_temperature),
            max(quarter.last_at), max(quarter.last_temperature), max(quarter.longest_gap), sum(quarter.degree_microseconds),
            ARRAY[
                sum(quarter.count) FILTER (WHERE number = 1), sum(quarter.count) FILTER (WHERE number = 2),
                sum(quarter.count) FILTER (WHERE number = 3), sum(quarter.count) FILTER (WHERE number = 4)
            ]::integer[],
            ARRAY[
                sum(quarter.sum) FILTER (WHERE number = 1), sum(quarter.sum) FILTER (WHERE number = 2),
                sum(quarter.sum) FILTER (WHERE number = 3), sum(quarter.sum) FILTER (WHERE number = 4)
            ],
            ARRAY[
                min(quarter.min) FILTER (WHERE number = 1), min(quarter.min) FILTER (WHERE number = 2),
                min(quarter.min) FILTER (WHERE number = 3), min(quarter.min) FILTER (WHERE number = 4)
            ],
            ARRAY[
                max(quarter.max) FILTER (WHERE number = 1), max(quarter.max) FILTER (WHERE number = 2),
                max(quarter.max) FILTER (WHERE number = 3), max(quarter.max) FILTER (WHERE number = 4)
            ]
        FROM (
            SELECT
                *, date_bin('1 hour', at, '2000-01-03 00:00+00') AS hour,
                date_part('minute', at AT TIME ZONE 'UTC')::integer / 15 + 1 AS number
            FROM (
                @course_of_quarters@
            ) AS of_quarter (
                room_id, at, count, sum, min, max, sum_of_squares, first_at, first_temperature, last_at, last_temperature,
                longest_gap, covered, degree_microseconds
            )
        ) AS quarter
        GROUP BY 1, 2;
    END LOOP;
END
$$;

-- Earlier versions had these.
DROP FUNCTION IF EXISTS courses_now, courses_of_few;
