"""Rooms, and summaries of them by hour and day, which are the same on every edition.

The continuous aggregates by hour and day become views. Their names and columns stay, so that the version of `average`
before this one answers until it is replaced: from the readings, since nothing else may be relied on any more.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

EPOCH = "'2000-01-03 00:00+00'"
VIEW = """
    CREATE VIEW {name} AS
    SELECT date_bin('{width}', timestamp, '2000-01-03 00:00+00') AS bucket, building_id, room_id,
           avg(temperature) AS avg_temp, sum(temperature) AS sum, count(*) AS count, min(temperature) AS min,
           max(temperature) AS max
    FROM temperatures GROUP BY 1, building_id, room_id
"""
STALE = """
    CREATE OR REPLACE VIEW avg_temperature_stale AS SELECT width, tstzrange(NULL, NULL) AS span
    FROM unnest(ARRAY[avg_temperature_bucket_width(), '1 hour', '1 day']) AS level (width)
"""
DROPPED_BEFORE = """
    SELECT date_bin('1 hour', max(bucket) + interval '1 hour', '2000-01-03 00:00+00')
    FROM (SELECT DISTINCT bucket FROM avg_temperature_hourly) AS kept
    WHERE NOT EXISTS (
        SELECT FROM timescaledb_information.chunks
        WHERE hypertable_schema = current_schema() AND hypertable_name = 'temperatures'
          AND bucket >= range_start AND bucket < range_end
    )
"""
"""Since when there are readings: hours that an aggregate knows, and no chunk, were dropped by the retention."""


def upgrade() -> None:
    """Create the tables, and carry over the averages whose readings were dropped."""
    text = sa.Text(collation="C")
    op.create_table(
        "rooms",
        sa.Column("building_id", text, nullable=False),
        sa.Column("room_id", text, nullable=False),
        sa.Column("timestamp", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("temperature", sa.Double(), nullable=False),
        sa.Column("summed_until", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("late_from", sa.TIMESTAMP(timezone=True)),
        sa.Column("late_to", sa.TIMESTAMP(timezone=True)),
        sa.PrimaryKeyConstraint("building_id", "room_id", name="rooms_pkey"),
        sa.CheckConstraint("late_from < late_to AND late_to <= summed_until", name="room_late_before_summed"),
        # With a reading of all times to come, or gone, there would be no end to what is to be summed up.
        sa.CheckConstraint("isfinite(timestamp) AND isfinite(summed_until)", name="room_within_time"),
        # A row is written with nearly every reading of its room, beside the one before.
        postgresql_with={"fillfactor": 50},
    )
    for name, of_room, instant in (
        ("room_hours", True, "hour"),
        ("room_days", True, "day"),
        ("building_hours", False, "hour"),
        ("building_days", False, "day"),
    ):
        key: list[sa.Column[Any]] = [
            sa.Column("building_id", text, nullable=False),
            *([sa.Column("room_id", text, nullable=False)] if of_room else []),
            sa.Column(instant, sa.TIMESTAMP(timezone=True), nullable=False),
        ]
        op.create_table(
            name,
            *key,
            sa.Column("count", sa.BigInteger(), nullable=False),
            sa.Column("sum", sa.Numeric(), nullable=False),
            sa.Column("min", sa.Double(), nullable=False),
            sa.Column("max", sa.Double(), nullable=False),
            # With the rest of the row, which stands far from that of the day before in the table: a year is then a few
            # pages of the index, not one of the table for each day.
            sa.PrimaryKeyConstraint(
                *(column.name for column in key),
                name=f"{name}_pkey",
                postgresql_include=["count", "sum", "min", "max"],
            ),
        )
    op.create_table(
        "upkeep",
        # There is one row.
        sa.Column("single", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.Column("retention", sa.Interval()),
        sa.Column("dropped_before", sa.TIMESTAMP(timezone=True), server_default=sa.text("'-infinity'"), nullable=False),
        sa.Column("rooms_known", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.PrimaryKeyConstraint("single", name="upkeep_pkey"),
        sa.CheckConstraint("single", name="upkeep_once"),
    )
    op.execute("INSERT INTO upkeep DEFAULT VALUES")
    if _has_aggregates():
        _carry_over()
        for name, width in (("avg_temperature_daily", "1 day"), ("avg_temperature_hourly", "1 hour")):
            op.execute(f"DROP MATERIALIZED VIEW {name}")
            op.execute(VIEW.format(name=name, width=width))
        op.execute(STALE)


def _has_aggregates() -> bool:
    connection = op.get_bind()
    if not connection.scalar(sa.text("SELECT 1 FROM pg_extension WHERE extname = 'timescaledb'")):
        return False
    return bool(
        connection.scalar(
            sa.text(
                "SELECT 1 FROM timescaledb_information.continuous_aggregates"
                " WHERE view_schema = current_schema() AND view_name = 'avg_temperature_hourly'"
            )
        )
    )


def _carry_over() -> None:
    boundary = op.get_bind().scalar(sa.text(DROPPED_BEFORE))
    if boundary is None:
        return
    before = f"'{boundary.isoformat()}'::timestamptz"
    op.execute(f"UPDATE upkeep SET dropped_before = {before}")
    # The sums of the aggregates are rounded already, some beyond the lowest or highest temperature. A cast from double
    # to numeric would round once more, to 15 digits.
    op.execute(
        "INSERT INTO room_hours SELECT building_id, room_id, bucket, count,"
        " greatest(min::text::numeric * count, least(max::text::numeric * count, sum::text::numeric)), min, max"
        f" FROM avg_temperature_hourly WHERE bucket < {before}"
    )
    # What is there in spite of that came too late for the averages, or is in them.
    op.execute(f"DELETE FROM temperatures WHERE timestamp < {before}")
    day = f"date_bin('1 day', hour, {EPOCH})"
    for name, keys, source in (
        ("room_days", f"building_id, room_id, {day}", "room_hours"),
        ("building_hours", "building_id, hour", "room_hours"),
        ("building_days", f"building_id, {day}", "room_hours"),
    ):
        op.execute(
            f"INSERT INTO {name} SELECT {keys}, sum(count), sum(sum), min(min), max(max) FROM {source} GROUP BY {keys}"
        )
    # Of a room that sends no more, the last hour is what is known.
    op.execute(
        "INSERT INTO rooms SELECT DISTINCT ON (building_id, room_id)"
        " building_id, room_id, hour, (sum / count)::float8, hour + interval '1 hour'"
        " FROM room_hours ORDER BY building_id, room_id, hour DESC"
    )


def downgrade() -> None:
    """Drop the summaries, and with them what is known of readings that were dropped; the averages stay views."""
    connection = op.get_bind()
    if connection.scalar(sa.text("SELECT 1 FROM pg_extension WHERE extname = 'timescaledb'")):
        op.execute(
            "SELECT delete_job(job_id) FROM timescaledb_information.jobs"
            " WHERE proc_schema = current_schema() AND proc_name = 'summarize'"
        )
    op.execute("DROP VIEW IF EXISTS unsummarized")
    op.execute("DROP TRIGGER IF EXISTS mark_rooms ON temperatures")
    op.execute("DROP TRIGGER IF EXISTS forget_rooms ON temperatures")
    for kind, name in (
        ("PROCEDURE", "summarize"),
        ("FUNCTION", "summarize_rooms"),
        ("FUNCTION", "drop_expired"),
        ("FUNCTION", "more_readings"),
        ("FUNCTION", "readings_summary"),
        ("FUNCTION", "readings_up_to"),
        ("FUNCTION", "latest_reading"),
        ("FUNCTION", "touched_days"),
        ("FUNCTION", "mark_rooms"),
        ("FUNCTION", "forget_rooms"),
    ):
        op.execute(f"DROP {kind} IF EXISTS {name}")
    for name in ("upkeep", "building_days", "building_hours", "room_days", "room_hours", "rooms"):
        op.drop_table(name)
