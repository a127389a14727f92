-- What the version before made of revision 0003 on TimescaleDB's community edition: the averages by hour and day were
-- continuous aggregates too, each built from the finer one, and policies refreshed them and dropped readings.
DROP VIEW avg_temperature_stale, avg_temperature_hourly, avg_temperature_daily;
CREATE MATERIALIZED VIEW avg_temperature_hourly
WITH (timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false) AS
SELECT time_bucket(interval '1 hour', bucket) AS bucket, building_id, room_id,
       sum(sum) / sum(count)::float8 AS avg_temp, sum(sum) AS sum, sum(count)::bigint AS count, min(min) AS min,
       max(max) AS max
FROM avg_temperature_time_interval GROUP BY 1, building_id, room_id WITH NO DATA;
CREATE MATERIALIZED VIEW avg_temperature_daily
WITH (timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false) AS
SELECT time_bucket(interval '1 day', bucket) AS bucket, building_id, room_id,
       sum(sum) / sum(count)::float8 AS avg_temp, sum(sum) AS sum, sum(count)::bigint AS count, min(min) AS min,
       max(max) AS max
FROM avg_temperature_hourly GROUP BY 1, building_id, room_id WITH NO DATA;
SELECT add_continuous_aggregate_policy(
    name::regclass, start_offset => interval '7 days', end_offset => interval '10 seconds',
    schedule_interval => interval '2 minutes', buckets_per_batch => 1000
)
FROM unnest(ARRAY['avg_temperature_hourly', 'avg_temperature_daily']) AS name;
SELECT add_retention_policy('temperatures', drop_after => interval '7 days');
CREATE VIEW avg_temperature_stale AS SELECT width, tstzrange(NULL, NULL) AS span
FROM unnest(ARRAY[avg_temperature_bucket_width(), '1 hour', '1 day']) AS level (width);
GRANT SELECT ON avg_temperature_hourly, avg_temperature_daily, avg_temperature_stale TO temperature_reader;
