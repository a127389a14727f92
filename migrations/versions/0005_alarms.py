"""What arrived since alarms were last looked for, alarms that say when they were noticed, and the events for sinks.

Rooms that are there are watched from their latest reading on. The events of the last week that no sink has taken are
carried over where a sink took some: elsewhere there is none, and one that is set later is not told of the past.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

INSTANT = sa.TIMESTAMP(timezone=True)
UNSENT = """
    INSERT INTO alarm_events (alarm, state, sink, raised, cleared)
    SELECT id, 'raised', '', raised, NULL FROM alarms
    WHERE raised_sent IS NULL AND raised > now() - interval '7 days'
    UNION ALL
    SELECT id, 'cleared', '', raised, cleared FROM alarms
    WHERE cleared_sent IS NULL AND cleared > now() - interval '7 days'
      AND (raised_sent IS NOT NULL OR raised > now() - interval '7 days')
"""


def upgrade() -> None:
    """Add the columns and tables, and carry over the events."""
    op.add_column("rooms", sa.Column("watched_until", INSTANT, server_default=sa.text("'-infinity'"), nullable=False))
    for name, kind in (("came_from", INSTANT), ("came_to", INSTANT), ("low", sa.Double()), ("high", sa.Double())):
        op.add_column("rooms", sa.Column(name, kind))
    op.add_column("alarms", sa.Column("noticed", INSTANT))
    op.execute("UPDATE alarms SET noticed = raised")
    op.alter_column("alarms", "noticed", server_default=sa.text("now()"), nullable=False)
    op.add_column("alarms", sa.Column("severity", sa.Text(), server_default=sa.text("'warning'"), nullable=False))
    op.add_column("alarms", sa.Column("sink", sa.Text()))
    op.create_check_constraint("alarm_severe", "alarms", "severity IN ('info', 'warning', 'critical')")
    op.create_index("alarms_raised", "alarms", ["raised", "id"])
    op.create_index("alarms_of_room", "alarms", ["building_id", "room_id", "raised"])
    op.create_table(
        "alarm_events",
        sa.Column("alarm", sa.Uuid(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("sink", sa.Text(), nullable=False),
        sa.Column("raised", INSTANT, nullable=False),
        sa.Column("cleared", INSTANT),
        sa.Column("dataschema", sa.Text()),
        sa.Column("traceparent", sa.Text()),
        sa.Column("made", INSTANT, server_default=sa.text("now()"), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("next_attempt", INSTANT, server_default=sa.text("now()"), nullable=False),
        sa.Column("given_up", INSTANT),
        sa.Column("reason", sa.Text()),
        sa.PrimaryKeyConstraint("alarm", "state", name="alarm_events_pkey"),
        sa.ForeignKeyConstraint(["alarm"], ["alarms.id"], name="alarm_events_alarm", ondelete="CASCADE"),
        sa.CheckConstraint("state IN ('raised', 'cleared')", name="alarm_event_known"),
        # A row is written at each attempt, and gone when a sink has taken it.
        postgresql_with={"fillfactor": 80},
    )
    op.create_index(
        "alarm_events_due", "alarm_events", ["sink", "attempts", "next_attempt"], postgresql_where="given_up IS NULL"
    )
    op.create_table(
        "watching",
        # There is one row.
        sa.Column("single", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.Column("checked", INSTANT),
        sa.Column("listening_since", INSTANT, server_default=sa.text("'-infinity'"), nullable=False),
        sa.Column("rarely", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.PrimaryKeyConstraint("single", name="watching_pkey"),
        sa.CheckConstraint("single", name="watching_once"),
    )
    op.execute("INSERT INTO watching DEFAULT VALUES")
    if op.get_bind().scalar(sa.text("SELECT 1 FROM alarms WHERE raised_sent > now() - interval '7 days' LIMIT 1")):
        # Whichever sink asks first is the one that there was.
        op.execute("UPDATE alarms SET sink = ''")
        op.execute(UNSENT)
    op.drop_index("alarms_unsent", "alarms")
    op.drop_column("alarms", "raised_sent")
    op.drop_column("alarms", "cleared_sent")
    op.drop_table("watched")


def downgrade() -> None:
    """Forget what arrived since the last look, and which events are left; the alarms stay."""
    text = sa.Text(collation="C")
    op.create_table(
        "watched",
        sa.Column("building_id", text, nullable=False),
        sa.Column("room_id", text, nullable=False),
        sa.Column("timestamp", INSTANT, nullable=False),
        sa.Column("temperature", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("building_id", "room_id", name="watched_pkey"),
    )
    op.add_column("alarms", sa.Column("raised_sent", INSTANT))
    op.add_column("alarms", sa.Column("cleared_sent", INSTANT))
    op.execute("UPDATE alarms SET raised_sent = now(), cleared_sent = CASE WHEN cleared IS NOT NULL THEN now() END")
    op.create_index(
        "alarms_unsent", "alarms", ["raised"], postgresql_where="raised_sent IS NULL OR cleared_sent IS NULL"
    )
    op.drop_table("watching")
    op.drop_table("alarm_events")
    op.drop_index("alarms_of_room", "alarms")
    op.drop_index("alarms_raised", "alarms")
    op.drop_constraint("alarm_severe", "alarms")
    for name in ("noticed", "severity", "sink"):
        op.drop_column("alarms", name)
    # The trigger names columns that are gone then; the next upgrade makes it again.
    op.execute("DROP TRIGGER IF EXISTS mark_rooms ON temperatures")
    op.execute("DROP TRIGGER IF EXISTS forget_rooms ON temperatures")
    op.execute("DROP FUNCTION IF EXISTS mark_rooms()")
    op.execute("DROP FUNCTION IF EXISTS forget_rooms()")
    for name in ("watched_until", "came_from", "came_to", "low", "high"):
        op.drop_column("rooms", name)
