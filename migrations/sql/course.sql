SELECT
    split.room_id, split.at, count(*), exact_total(sum(high), sum(low), sum(tiny)), min(temperature), max(temperature),
    coalesce(
        sum(high * high) * 8.8817841970012523233890533447265625E-16
        + sum(high * low) * 4.13590306276513837435704346034981426782906055450439453125E-25
        + sum(low * low) * 4.8148248609680896326399448564623182963452541205384704880998469889163970947265625E-35, 0
    ) + coalesce(sum(tiny * tiny), 0),
    min(timestamp), min(temperature) FILTER (WHERE first), max(timestamp), max(temperature) FILTER (WHERE gap IS NULL),
    coalesce(max(gap), 0) * interval '1 microsecond',
    coalesce(sum(held), 0), exact_total(sum(high * held), sum(low * held), sum(tiny * held))@beyond@
FROM (
    SELECT
        ordered.room_id, @group@ AS at, timestamp, temperature, first, gap,
        @held@ AS held,
        (multiple + 2147483648) >> 32 AS high, multiple - (((multiple + 2147483648) >> 32) << 32) AS low,
        CASE WHEN multiple = 0 THEN exact_temperature(temperature) END AS tiny
    FROM unnest(near) AS span CROSS JOIN LATERAL (
        SELECT
            part.room_id, part.at, timestamp, temperature, multiple, row_number() OVER in_order = 1 AS first,
            microseconds(lead(timestamp) OVER in_order - timestamp) AS gap
        FROM (
            SELECT
                reading.room_id, timestamp, temperature,
                @at@ AS at,
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
        -- A frame that does not ask which readings are equal.
        WINDOW in_order AS (
            PARTITION BY part.room_id, part.at ORDER BY timestamp, temperature ROWS UNBOUNDED PRECEDING
        )
    ) AS ordered
    OFFSET 0
) AS split
GROUP BY 1, 2
