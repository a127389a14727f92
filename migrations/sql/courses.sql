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

@courses@

-- The same of rooms that nobody writes to meanwhile. Each of its statements has a snapshot of its own, taken when it is
-- planned. With an earlier one, a chunk that TimescaleDB compresses meanwhile would lack what had come to it since it was
-- compressed before: the plan leaves that out, and the snapshot does not see where it is by now.
@courses_now@
