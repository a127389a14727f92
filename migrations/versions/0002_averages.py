"""The averages by bucket, hour and day."""

from datetime import timedelta

from alembic import op

from migrations import policies, roles, settings
from migrations.edition import Edition, detect
from migrations.policies import BUCKET, DAY, HOUR, STALE, interval

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


def upgrade() -> None:
    """Create the averages and the policies that keep them."""
    connection = op.get_bind()
    chosen = settings.load()
    edition = detect(connection)
    op.execute(
        "CREATE FUNCTION avg_temperature_bucket_width() RETURNS interval LANGUAGE sql IMMUTABLE PARALLEL SAFE"
        f" RETURN {interval(chosen.bucket)}"
    )
    finer = None
    for name, width in ((BUCKET, chosen.bucket), (HOUR, timedelta(hours=1)), (DAY, timedelta(days=1))):
        if edition is Edition.COMMUNITY:
            bucket = f"time_bucket({interval(width)}, {'bucket' if finer else 'timestamp'})"
            query = FROM_AVERAGES.format(bucket=bucket, finer=finer) if finer else FROM_READINGS.format(bucket=bucket)
            op.execute(
                f"CREATE MATERIALIZED VIEW {name} WITH (timescaledb.continuous, timescaledb.materialized_only = false,"
                f" timescaledb.create_group_indexes = false) AS {query} WITH NO DATA"
            )
            op.execute(f"CREATE INDEX ON {name} (building_id, room_id, bucket)")
            finer = name
        else:
            # time_bucket's own origin, so that buckets are the same everywhere.
            bucket = f"date_bin({interval(width)}, timestamp, '2000-01-03 00:00+00')"
            op.execute(f"CREATE VIEW {name} AS {FROM_READINGS.format(bucket=bucket)}")
    policies.apply(connection, edition, chosen)
    roles.grant(connection, "SELECT", [BUCKET, HOUR, DAY, STALE], chosen.reader)


def downgrade() -> None:
    """Drop the averages; the readings stay."""
    community = detect(op.get_bind()) is Edition.COMMUNITY
    op.execute(f"DROP VIEW {STALE}")
    for name in (DAY, HOUR, BUCKET):
        op.execute(f"DROP {'MATERIALIZED ' if community else ''}VIEW {name}")
    op.execute("DROP FUNCTION avg_temperature_bucket_width()")
    if community:
        op.execute("CALL remove_columnstore_policy('temperatures', if_exists => true)")
        op.execute("SELECT remove_retention_policy('temperatures', if_exists => true)")
