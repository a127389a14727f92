"""The averages by bucket, hour and day: continuous aggregates on TimescaleDB's community edition, views elsewhere."""

import os

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

FROM_READINGS = """
    SELECT {bucket} AS bucket, building_id, room_id, avg(temperature) AS avg_temp,
           sum(temperature) AS sum, count(*) AS count, min(temperature) AS min, max(temperature) AS max
    FROM temperatures GROUP BY 1, building_id, room_id
"""
FROM_AVERAGES = """
    SELECT {bucket} AS bucket, building_id, room_id, sum(sum) / sum(count)::float8 AS avg_temp,
           sum(sum) AS sum, sum(count)::bigint AS count, min(min) AS min, max(max) AS max
    FROM {finer} GROUP BY 1, building_id, room_id
"""
STALE = """
    CREATE VIEW avg_temperature_stale AS SELECT width, tstzrange(NULL, NULL) AS span
    FROM unnest(ARRAY[avg_temperature_bucket_width(), '1 hour', '1 day']) AS level (width)
"""


def upgrade() -> None:
    """Create the averages, and the view that says where they may not be relied on."""
    narrowest = f"interval '{os.environ.get('BUCKET_MINUTES') or 2} minutes'"
    op.execute(
        "CREATE FUNCTION avg_temperature_bucket_width() RETURNS interval LANGUAGE sql IMMUTABLE PARALLEL SAFE"
        f" RETURN {narrowest}"
    )
    finer = None
    for name, width in (
        ("avg_temperature_time_interval", narrowest),
        ("avg_temperature_hourly", "interval '1 hour'"),
        ("avg_temperature_daily", "interval '1 day'"),
    ):
        if _community():
            bucket = f"time_bucket({width}, {'bucket' if finer else 'timestamp'})"
            query = FROM_AVERAGES.format(bucket=bucket, finer=finer) if finer else FROM_READINGS.format(bucket=bucket)
            op.execute(
                f"CREATE MATERIALIZED VIEW {name} WITH (timescaledb.continuous, timescaledb.materialized_only = false,"
                f" timescaledb.create_group_indexes = false) AS {query} WITH NO DATA"
            )
            op.execute(f"CREATE INDEX ON {name} (building_id, room_id, bucket)")
            finer = name
        else:
            # time_bucket's own origin, so that buckets are the same everywhere.
            bucket = f"date_bin({width}, timestamp, '2000-01-03 00:00+00')"
            op.execute(f"CREATE VIEW {name} AS {FROM_READINGS.format(bucket=bucket)}")
    op.execute(STALE)


def downgrade() -> None:
    """Drop the averages; the readings stay."""
    op.execute("DROP VIEW avg_temperature_stale")
    for name in ("avg_temperature_daily", "avg_temperature_hourly", "avg_temperature_time_interval"):
        # A later revision may have made plain views of them.
        op.execute(f"DROP {'MATERIALIZED ' if _community() and _is_aggregate(name) else ''}VIEW {name}")
    op.execute("DROP FUNCTION avg_temperature_bucket_width()")


def _is_aggregate(name: str) -> bool:
    """Whether the view is a continuous aggregate; asked where TimescaleDB is."""
    found = op.get_bind().scalar(
        sa.text(
            "SELECT 1 FROM timescaledb_information.continuous_aggregates"
            " WHERE view_schema = current_schema() AND view_name = :name"
        ),
        {"name": name},
    )
    return bool(found)


def _community() -> bool:
    return bool(
        op.get_bind().scalar(
            sa.text(
                "SELECT current_setting('timescaledb.license', true) = 'timescale'"
                " FROM pg_extension WHERE extname = 'timescaledb'"
            )
        )
    )
