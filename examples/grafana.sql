-- Grafana's PostgreSQL data source, as the role temperature_reader: a time series of one room, of the averages that
-- are kept. $__timeFilter and $__interval_ms are Grafana's, $building and $room variables of the dashboard.
SELECT
    date_bin(greatest(make_interval(secs => $__interval_ms / 1000.0), avg_temperature_bucket_width()), bucket, 'epoch') AS time,
    sum(sum) / sum(count) AS average,
    min(min) AS lowest,
    max(max) AS highest
FROM avg_temperature_time_interval
WHERE building_id = '$building' AND room_id = '$room' AND $__timeFilter(bucket)
GROUP BY 1
ORDER BY 1;
