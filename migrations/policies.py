"""What the settings decide about the averages, brought up to date by every run of the migrations.

The averages of the three widths have the same names and columns in every edition. On TimescaleDB's community edition
they are continuous aggregates, each built from the finer one; elsewhere they are views.

`avg_temperature_stale` says for which spans of time an average may not be relied on, so that a query can go to the
readings there and stay exact: on the community edition the spans changed since the last refresh, elsewhere all of time.
"""

from datetime import timedelta

from sqlalchemy import Connection, text

from migrations.edition import Edition
from migrations.settings import Settings

BUCKET, HOUR, DAY = "avg_temperature_time_interval", "avg_temperature_hourly", "avg_temperature_daily"
STALE = "avg_temperature_stale"
BATCH = 1000
"""Buckets refreshed in one transaction. With the default of 10, the backlog of a device makes thousands of them."""


def apply(connection: Connection, edition: Edition, settings: Settings) -> None:
    """Bring refresh, columnstore and retention to what the settings say."""
    # Named now: the search path of a reader may begin elsewhere.
    schema = connection.scalar(text("SELECT quote_literal(current_schema())"))
    connection.execute(text(f"CREATE OR REPLACE VIEW {STALE} AS {_stale(edition, settings, schema)}"))
    if edition is not Edition.COMMUNITY:
        return
    # Everything that changed is refreshed, however old: devices send days later what they read. But never beyond
    # retention, where a refresh would find no readings any more and empty the averages.
    start = interval(settings.retention) if settings.retention else "NULL"
    for name in (BUCKET, HOUR, DAY):
        connection.execute(text(f"SELECT remove_continuous_aggregate_policy('{name}', if_exists => true)"))
        connection.execute(
            text(
                f"SELECT add_continuous_aggregate_policy('{name}', start_offset => {start},"
                f" end_offset => interval '10 seconds', schedule_interval => {interval(settings.bucket)},"
                f" buckets_per_batch => {BATCH})"
            )
        )
    connection.execute(text("CALL remove_columnstore_policy('temperatures', if_exists => true)"))
    if settings.columnstore_after:
        connection.execute(
            text(
                "ALTER TABLE temperatures SET (timescaledb.enable_columnstore,"
                " timescaledb.segmentby = 'building_id, room_id', timescaledb.orderby = 'timestamp, temperature')"
            )
        )
        after = interval(settings.columnstore_after)
        connection.execute(text(f"CALL add_columnstore_policy('temperatures', after => {after})"))
    connection.execute(text("SELECT remove_retention_policy('temperatures', if_exists => true)"))
    if settings.retention:
        age = interval(settings.retention)
        connection.execute(text(f"SELECT add_retention_policy('temperatures', drop_after => {age})"))


def interval(width: timedelta) -> str:
    """A whole number of days, or less than a day in whole minutes, as an SQL literal."""
    return f"interval '{width.days} days'" if width.days else f"interval '{width.seconds // 60} minutes'"


def _stale(edition: Edition, settings: Settings, schema: str) -> str:
    """A query for the spans in which the averages of a width may differ from the readings."""
    if edition is not Edition.COMMUNITY:
        return (
            "SELECT width, tstzrange(NULL, NULL) AS span"
            " FROM unnest(ARRAY[avg_temperature_bucket_width(), '1 hour', '1 day']) AS level (width)"
        )
    # Readings older than the retention are gone, or about to go: there the averages are all there is.
    oldest = f"now() - {interval(settings.retention)}" if settings.retention else "'-infinity'::timestamptz"
    # TimescaleDB logs what was changed below the watermark: first for the source of an aggregate, in the transaction of
    # the change, then for the aggregate, then as a range that is being refreshed. Above the watermark a real-time
    # aggregate reads its source itself.
    # What is stale in a fine average is stale in the coarser ones too.
    return f"""
        WITH aggregate AS (
            SELECT mat_hypertable_id AS id, raw_hypertable_id AS source_id, bucket_width::interval AS width, watermark
            FROM _timescaledb_catalog.continuous_agg
            JOIN _timescaledb_catalog.continuous_aggs_bucket_function USING (mat_hypertable_id)
            JOIN _timescaledb_catalog.continuous_aggs_watermark USING (mat_hypertable_id)
            WHERE user_view_schema = {schema} AND user_view_name IN ('{BUCKET}', '{HOUR}', '{DAY}')
        ), changed AS (
            SELECT width, watermark, lowest_modified_value AS lowest, greatest_modified_value AS greatest
            FROM aggregate
            JOIN _timescaledb_catalog.continuous_aggs_hypertable_invalidation_log ON hypertable_id = source_id
            UNION ALL
            SELECT width, watermark, lowest_modified_value, greatest_modified_value
            FROM aggregate
            JOIN _timescaledb_catalog.continuous_aggs_materialization_invalidation_log ON materialization_id = id
            UNION ALL
            SELECT width, watermark, lowest_modified_value, greatest_modified_value
            FROM aggregate
            JOIN _timescaledb_catalog.continuous_aggs_materialization_ranges ON materialization_id = id
        ), span AS (
            SELECT width, _timescaledb_functions.to_timestamp(lowest) AS first,
                   _timescaledb_functions.to_timestamp(
                       CASE WHEN greatest < watermark THEN greatest + 1 ELSE watermark END
                   ) AS past
            FROM changed WHERE lowest < watermark
        )
        SELECT aggregate.width, tstzrange(greatest(span.first, {oldest}), span.past) AS span
        FROM aggregate JOIN span ON span.width <= aggregate.width
        WHERE span.past > {oldest}
    """
