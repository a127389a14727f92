-- Corrects what a continuous aggregate has of the readings of a room, first <= timestamp < reached, some of which are
-- gone. Its own refresh comes later, and never to what is older than the retention. It is part of other functions.
IF to_regclass('timescaledb_information.continuous_aggregates') IS NOT NULL THEN
        averages := (
            SELECT quote_ident(materialization_hypertable_schema) || '.' || quote_ident(materialization_hypertable_name)
            FROM timescaledb_information.continuous_aggregates
            WHERE view_schema = current_schema() AND view_name = 'avg_temperature_time_interval'
        );
    END IF;
    IF averages IS NOT NULL THEN
        EXECUTE replace(
            $statement$
                WITH gone AS (
                    DELETE FROM {averages} WHERE building_id = $1 AND room_id = $2 AND bucket >= $3 AND bucket < $4
                    RETURNING bucket
                )
                INSERT INTO {averages} (bucket, building_id, room_id, avg_temp, sum, count, min, max)
                SELECT bucket, $1, $2, avg, sum, count, min, max
                FROM gone JOIN (
                    SELECT
                        date_bin($5, timestamp, '2000-01-03 00:00+00') AS bucket, avg(temperature), sum(temperature),
                        count(*), min(temperature), max(temperature)
                    FROM temperatures
                    WHERE building_id = $1 AND room_id = $2 AND timestamp >= $3 AND timestamp < $4
                    GROUP BY 1
                ) AS again USING (bucket)
            $statement$,
            '{averages}', averages
        ) USING
            building, name, date_bin(width, first, '2000-01-03 00:00+00'),
            date_bin(width, reached - interval '0.000001', '2000-01-03 00:00+00') + width, width;
    END IF
