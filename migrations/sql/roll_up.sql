-- Puts the @part@s of some @whole@s of rooms together. A @whole@ whose @part@s have not all a course has none.
CREATE OR REPLACE FUNCTION roll_up_@whole@s(buildings text[], names text[], @whole@s timestamptz[]) RETURNS void
LANGUAGE sql SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
    DELETE FROM room_@whole@s AS kept USING unnest(buildings, names, @whole@s) AS touched (building_id, room_id, @whole@)
    WHERE kept.building_id = touched.building_id AND kept.room_id = touched.room_id AND kept.@whole@ = touched.@whole@
      AND NOT EXISTS (
          SELECT FROM room_@part@s AS of_whole
          WHERE of_whole.building_id = touched.building_id AND of_whole.room_id = touched.room_id
            AND @part@ >= touched.@whole@ AND @part@ < touched.@whole@ + interval '@width@'
      );
    INSERT INTO room_@whole@s AS kept (
        building_id, room_id, @whole@, count, sum, min, max, sum_of_squares, first_at, first_temperature, last_at,
        last_temperature, longest_gap, degree_microseconds
    )
    SELECT
        touched.building_id, touched.room_id, @whole@, count, sum, min, max, CASE WHEN is_whole THEN sum_of_squares END,
        CASE WHEN is_whole THEN first_at END, CASE WHEN is_whole THEN first_temperature END,
        CASE WHEN is_whole THEN last_at END, CASE WHEN is_whole THEN last_temperature END,
        CASE WHEN is_whole THEN longest_gap END, CASE WHEN is_whole THEN degree_microseconds END
    FROM unnest(buildings, names, @whole@s) AS touched (building_id, room_id, @whole@)
    CROSS JOIN LATERAL (
        SELECT
            sum(count)::bigint AS count, sum(sum) AS sum, min(min) AS min, max(max) AS max,
            count(first_at) = count(*) AS is_whole, sum(sum_of_squares) AS sum_of_squares,
            min(first_at) AS first_at, min(first_temperature) FILTER (WHERE is_first) AS first_temperature,
            max(last_at) AS last_at, max(last_temperature) FILTER (WHERE gap IS NULL) AS last_temperature,
            greatest(max(longest_gap), max(gap)) AS longest_gap,
            sum(degree_microseconds) + coalesce(sum(exact_temperature(last_temperature) * microseconds(gap)), 0)
                AS degree_microseconds
        FROM (
            SELECT *, lag(@part@) OVER in_order IS NULL AS is_first, lead(first_at) OVER in_order - last_at AS gap
            FROM room_@part@s AS of_whole
            WHERE of_whole.building_id = touched.building_id AND of_whole.room_id = touched.room_id
              AND @part@ >= touched.@whole@ AND @part@ < touched.@whole@ + interval '@width@'
            WINDOW in_order AS (ORDER BY @part@)
        ) AS parts
    ) AS together
    WHERE count > 0
    ON CONFLICT (building_id, room_id, @whole@) DO UPDATE SET
        count = excluded.count, sum = excluded.sum, min = excluded.min, max = excluded.max,
        sum_of_squares = excluded.sum_of_squares,
        first_at = excluded.first_at, first_temperature = excluded.first_temperature,
        last_at = excluded.last_at, last_temperature = excluded.last_temperature,
        longest_gap = excluded.longest_gap, degree_microseconds = excluded.degree_microseconds;
$$;
