"""Events of alarms keep the temperature that they tell: that of the alarm changes where readings come late, or go."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Add the column. Events that are waiting have that of their alarm."""
    op.add_column("alarm_events", sa.Column("temperature", sa.Double()))


def downgrade() -> None:
    """Remove the column."""
    op.drop_column("alarm_events", "temperature")
