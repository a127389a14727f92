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
    @few_courses@
    -- A statement on a hypertable is planned for a few chunks: it reads spans that are near each other.
    WHILE NOT isempty(spans) LOOP
        near := @near_spans@;
        spans := spans - near;
        RETURN QUERY
        SELECT
            split.room_id, split.at, count(*), exact_total(sum(high), sum(low), sum(tiny)), min(temperature), max(temperature),
            coalesce(
                sum(high * high) * 8.8817841970012523233890533447265625E-16
                + sum(high * low) * 4.13590306276513837435704346034981426782906055450439453125E-25
                + sum(low * low) * 4.8148248609680896326399448564623182963452541205384704880998469889163970947265625E-35, 0
            ) + coalesce(sum(tiny * tiny), 0),
            min(timestamp), min(temperature) FILTER (WHERE first), max(timestamp), max(temperature) FILTER (WHERE gap IS NULL),
            coalesce(max(gap), 0) * interval '1 microsecond',
            coalesce(sum(held), 0), exact_total(sum(high * held), sum(low * held), sum(tiny * held)),
            coalesce(sum(held) FILTER (WHERE temperature > above_limit), 0),
            exact_total(
                sum(high * held) FILTER (WHERE temperature > above_limit),
                sum(low * held) FILTER (WHERE temperature > above_limit),
                sum(tiny * held) FILTER (WHERE temperature > above_limit)
            ),
            coalesce(sum(held) FILTER (WHERE temperature < below_limit), 0),
            exact_total(
                sum(high * held) FILTER (WHERE temperature < below_limit),
                sum(low * held) FILTER (WHERE temperature < below_limit),
                sum(tiny * held) FILTER (WHERE temperature < below_limit)
            )
        FROM (
            SELECT
                ordered.room_id, ordered.at, timestamp, temperature, previous_at IS DISTINCT FROM ordered.at AS first, gap,
                CASE WHEN gap > most_held THEN most_held ELSE gap END AS held,
                (multiple + 2147483648) >> 32 AS high, multiple - (((multiple + 2147483648) >> 32) << 32) AS low,
                CASE WHEN multiple = 0 THEN exact_temperature(temperature) END AS tiny
            FROM unnest(near) AS span CROSS JOIN LATERAL (
                SELECT
                    part.room_id, part.at, timestamp, temperature, multiple, lag(part.at) OVER in_order AS previous_at,
                    CASE
                        WHEN lead(part.at) OVER in_order = part.at
                        THEN microseconds(lead(timestamp) OVER in_order - timestamp)
                    END AS gap
                FROM (
                    SELECT
                        reading.room_id, timestamp, temperature,
                        greatest(
                            date_bin('1 hour', timestamp, '2000-01-03 00:00+00'),
                            -- PL/pgSQL holds an array in a form that would be made flat again for each reading.
                            (SELECT array_cat(bounds, '{}'))[width_bucket(timestamp, (SELECT array_cat(bounds, '{}')))]
                        ) AS at,
                        CASE
                            WHEN temperature >= 0.03125 OR temperature <= -0.03125
                            THEN (temperature * 144115188075855872)::bigint ELSE 0
                        END AS multiple
                    FROM @readings@ AS reading
                    WHERE building_id = building AND reading.room_id = ANY (among)
                      AND timestamp >= lower(span) AND timestamp < upper(span)
                      AND timestamp >= lower(near) AND timestamp < upper(near)
                    OFFSET 0
                ) AS part
                WINDOW in_order AS (PARTITION BY part.room_id ORDER BY timestamp, temperature)
            ) AS ordered
            OFFSET 0
        ) AS split
        GROUP BY 1, 2;
    END LOOP;
END
$$;
