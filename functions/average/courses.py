"""The statement that puts courses of the temperature together: means over time, time beyond limits, statistics.

It is complete: with values in place of its parameters it can be pasted into psql. docs/summaries.md shows how it covers
time.
"""

OF_COURSES = b"""
    WITH asked AS MATERIALIZED (
        SELECT
            bounds, since, ending, dropped_before, least(ending, now()) AS until,
            ARRAY(SELECT cut FROM unnest(bounds || now()) AS cut ORDER BY cut) AS cuts,
            tstzmultirange(tstzrange(since, ending)) AS everything,
            coalesce(inner_hours, '{}') + tstzmultirange(tstzrange(NULL, dropped_before) * tstzrange(
                since, date_bin('1 hour', ending + interval '00:59:59.999999', '2000-01-03 00:00+00')
            )) AS hours,
            coalesce(inner_days, '{}') AS days
        FROM upkeep
        CROSS JOIN (SELECT %(bounds)s::timestamptz[] AS bounds) AS given
        CROSS JOIN LATERAL (SELECT bounds[cardinality(bounds)] AS ending) AS last_bound
        CROSS JOIN date_bin('1 hour', bounds[1] - %(longest_hold)s::interval, '2000-01-03 00:00+00') AS since
        CROSS JOIN LATERAL (
            SELECT
                range_agg(tstzrange(first_hour, last_hour)) FILTER (WHERE first_hour < last_hour) AS inner_hours,
                range_agg(tstzrange(first_day, last_day)) FILTER (WHERE first_day < last_day) AS inner_days
            FROM unnest(since || bounds, bounds) AS bucket (lower, upper)
            CROSS JOIN date_bin('1 hour', lower + interval '00:59:59.999999', '2000-01-03 00:00+00') AS first_hour
            CROSS JOIN date_bin('1 hour', upper, '2000-01-03 00:00+00') AS last_hour
            CROSS JOIN date_bin('1 day', lower + interval '23:59:59.999999', '2000-01-03 00:00+00') AS first_day
            CROSS JOIN date_bin('1 day', upper, '2000-01-03 00:00+00') AS last_day
        ) AS inner_times
    ), room AS MATERIALIZED (
        SELECT room_id, stale, days - touched_days(stale) AS days
        FROM (
            SELECT room_id, days, everything * (tstzmultirange(
                CASE WHEN late_from IS NULL THEN 'empty' ELSE tstzrange(late_from, late_to) END,
                CASE WHEN timestamp < summed_until THEN 'empty' ELSE tstzrange(summed_until, NULL) END
            ) - tstzmultirange(tstzrange(NULL, dropped_before))) AS stale
            FROM (
                SELECT * FROM rooms WHERE building_id = %(building_id)s::text AND room_id = %(room_id)s::text
                UNION ALL
                SELECT * FROM rooms WHERE building_id = %(building_id)s AND %(room_id)s IS NULL
            ) AS meant CROSS JOIN asked
        ) AS of_building
    ), day AS MATERIALIZED (
        SELECT summary.*, longest_gap <= %(longest_hold)s
            AND (min <= %(above)s::float8 AND max > %(above)s) IS NOT TRUE
            AND (min < %(below)s::float8 AND max >= %(below)s) IS NOT TRUE AS is_enough
        FROM room CROSS JOIN unnest(days) AS span CROSS JOIN LATERAL (
            SELECT * FROM room_days
            WHERE building_id = %(building_id)s AND room_days.room_id = room.room_id
              AND day >= lower(span) AND day < upper(span) OFFSET 0
        ) AS summary
    ), room_by_hours AS MATERIALIZED (
        SELECT room_id, room.days - coalesce(unclear.days, '{}') AS days,
               asked.hours - stale - (room.days - coalesce(unclear.days, '{}')) AS hours
        FROM asked CROSS JOIN room LEFT JOIN (
            SELECT room_id, range_agg(tstzrange(day, day + interval '24:00')) AS days
            FROM day WHERE is_enough IS NOT TRUE GROUP BY room_id
        ) AS unclear USING (room_id)
    ), hour AS MATERIALIZED (
        SELECT summary.*, hour < dropped_before OR longest_gap <= %(longest_hold)s
            AND (min <= %(above)s AND max > %(above)s) IS NOT TRUE
            AND (min < %(below)s AND max >= %(below)s) IS NOT TRUE AS is_enough
        FROM asked CROSS JOIN room_by_hours CROSS JOIN unnest(room_by_hours.hours) AS span CROSS JOIN LATERAL (
            SELECT * FROM room_hours
            WHERE building_id = %(building_id)s AND room_hours.room_id = room_by_hours.room_id
              AND hour >= lower(span) AND hour < upper(span) OFFSET 0
        ) AS summary
    ), room_by_readings AS MATERIALIZED (
        SELECT room_id, everything - room_by_hours.days - (room_by_hours.hours - coalesce(unclear.hours, '{}'))
            + everything * tstzmultirange(tstzrange(NULL, dropped_before)) AS readings
        FROM asked CROSS JOIN room_by_hours LEFT JOIN (
            SELECT room_id, range_agg(tstzrange(hour, hour + interval '01:00')) AS hours
            FROM hour WHERE is_enough IS NOT TRUE GROUP BY room_id
        ) AS unclear USING (room_id)
    ), summary AS (
        SELECT day AS at, day + interval '24:00' AS until, day.* FROM day WHERE is_enough
        UNION ALL
        SELECT hour, hour + interval '01:00', hour.* FROM hour WHERE is_enough
    ), piece AS MATERIALIZED (
        SELECT
            room_id, at, count, sum, min, max, sum_of_squares, first_at, first_temperature, last_at, last_temperature,
            CASE WHEN is_known THEN first_at ELSE at END AS begins, CASE WHEN is_known THEN last_at ELSE until END AS ends,
            CASE WHEN is_known THEN last_temperature END AS held, covered,
            CASE WHEN is_known THEN degree_microseconds ELSE 0 END AS degree_microseconds,
            CASE WHEN max <= %(above)s THEN 0 WHEN is_known AND min > %(above)s THEN covered END AS above,
            CASE WHEN is_known AND min > %(above)s THEN degree_microseconds ELSE 0 END AS above_degree_microseconds,
            CASE WHEN min >= %(below)s THEN 0 WHEN is_known AND max < %(below)s THEN covered END AS below,
            CASE WHEN is_known AND max < %(below)s THEN degree_microseconds ELSE 0 END AS below_degree_microseconds
        FROM (
            SELECT *, longest_gap <= %(longest_hold)s AS is_known,
                CASE WHEN longest_gap <= %(longest_hold)s THEN microseconds(last_at - first_at) ELSE 0 END AS covered
            FROM summary
        ) AS summed_up
        UNION ALL
        SELECT
            room_id, at, count, sum, min, max, sum_of_squares, first_at, first_temperature, last_at, last_temperature,
            CASE WHEN is_known THEN first_at END, CASE WHEN is_known THEN last_at END,
            CASE WHEN is_known THEN last_temperature END, CASE WHEN is_known THEN covered ELSE 0 END,
            CASE WHEN is_known THEN degree_microseconds ELSE 0 END,
            CASE WHEN is_known THEN above ELSE 0 END, CASE WHEN is_known THEN above_degree_microseconds ELSE 0 END,
            CASE WHEN is_known THEN below ELSE 0 END, CASE WHEN is_known THEN below_degree_microseconds ELSE 0 END
        FROM (
            SELECT course.*, at >= dropped_before AND at < until AS is_known
            FROM asked CROSS JOIN room_by_readings CROSS JOIN LATERAL courses(
                %(building_id)s, ARRAY[room_id], readings, cuts, %(longest_hold)s, %(above)s, %(below)s
            ) AS course
        ) AS read
    ), followed AS MATERIALIZED (
        SELECT
            width_bucket(at, bounds) AS bucket, bounds, piece.*, greatest(ends, bounds[1]) AS held_from,
            least(lead(begins) OVER (PARTITION BY room_id ORDER BY begins, ends), ends + %(longest_hold)s, until) AS held_until
        FROM piece CROSS JOIN asked
    ), part AS (
        SELECT
            bucket, count, sum, min, max, sum_of_squares, first_at, first_temperature, last_at, last_temperature, covered,
            degree_microseconds, above, above_degree_microseconds, below, below_degree_microseconds,
            held, CASE WHEN held IS NOT NULL THEN greatest(
                microseconds(least(held_until, bounds[bucket + 1]) - held_from), 0
            ) ELSE 0 END AS held_for
        FROM followed WHERE bucket > 0
        UNION ALL
        SELECT
            next, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0,
            held, microseconds(least(held_until, bounds[next + 1]) - greatest(held_from, bounds[next]))
        FROM followed CROSS JOIN LATERAL generate_series(
            bucket + 1, least(width_bucket(held_until, bounds), cardinality(bounds) - 1)
        ) AS next
        WHERE held IS NOT NULL AND held_until > bounds[bucket + 1] AND held_until > greatest(held_from, bounds[next])
    )
    SELECT
        bounds[bucket], count, sum, min, max,
        CASE WHEN is_known THEN sum_of_squares END, CASE WHEN is_known THEN first_at END, CASE WHEN is_known THEN first END,
        CASE WHEN is_known THEN last_at END, CASE WHEN is_known THEN last END,
        covered, degree_microseconds, above, above_degree_microseconds, below, below_degree_microseconds
    FROM (
        SELECT
            bucket, coalesce(sum(count), 0)::bigint AS count, sum(sum) AS sum, min(min) AS min, max(max) AS max,
            bool_and(first_at IS NOT NULL) FILTER (WHERE count > 0) AS is_known, sum(sum_of_squares) AS sum_of_squares,
            min(first_at) AS first_at,
            (array_agg(first_temperature ORDER BY first_at, first_temperature) FILTER (WHERE count > 0))[1] AS first,
            max(last_at) AS last_at,
            (array_agg(last_temperature ORDER BY last_at DESC, last_temperature DESC) FILTER (WHERE count > 0))[1] AS last,
            sum(covered) + coalesce(sum(held_for), 0) AS covered,
            sum(degree_microseconds) + coalesce(sum(held_degrees), 0) AS degree_microseconds,
            CASE WHEN bool_and(above IS NOT NULL) THEN
                sum(above) + coalesce(sum(held_for) FILTER (WHERE held > %(above)s), 0) END AS above,
            sum(above_degree_microseconds) + coalesce(sum(held_degrees) FILTER (WHERE held > %(above)s), 0)
                AS above_degree_microseconds,
            CASE WHEN bool_and(below IS NOT NULL) THEN
                sum(below) + coalesce(sum(held_for) FILTER (WHERE held < %(below)s), 0) END AS below,
            sum(below_degree_microseconds) + coalesce(sum(held_degrees) FILTER (WHERE held < %(below)s), 0)
                AS below_degree_microseconds
        FROM (SELECT *, exact_temperature(held) * held_for AS held_degrees FROM part OFFSET 0) AS part
        GROUP BY bucket
    ) AS together CROSS JOIN asked
    ORDER BY bucket
"""
