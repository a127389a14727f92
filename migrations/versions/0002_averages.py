"""The averages by bucket, hour and day, as views.

On TimescaleDB's community edition earlier versions made continuous aggregates here, which revision 0004 may still meet.
"""

import os

from alembic import op

revision = "0002"
down_revision = "0001"

VIEW = """
    CREATE VIEW {name} AS
    SELECT date_bin({width}, timestamp, '2000-01-03 00:00+00') AS bucket, building_id, room_id,
           avg(temperature) AS avg_temp, sum(temperature) AS sum, count(*) AS count, min(temperature) AS min,
           max(temperature) AS max
    FROM temperatures GROUP BY 1, building_id, room_id
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
    for name, width in (
        ("avg_temperature_time_interval", narrowest),
        ("avg_temperature_hourly", "interval '1 hour'"),
        ("avg_temperature_daily", "interval '1 day'"),
    ):
        op.execute(VIEW.format(name=name, width=width))
    op.execute(STALE)


def downgrade() -> None:
    """Drop the averages; the readings stay."""
    op.execute("DROP VIEW avg_temperature_stale")
    for name in ("avg_temperature_daily", "avg_temperature_hourly"):
        op.execute(f"DROP VIEW {name}")
    # What is no view any more is a continuous aggregate.
    op.execute(
        """
        DO $$ BEGIN
            DROP VIEW avg_temperature_time_interval;
        EXCEPTION WHEN OTHERS THEN
            DROP MATERIALIZED VIEW avg_temperature_time_interval;
        END $$
        """
    )
    op.execute("DROP FUNCTION avg_temperature_bucket_width()")
