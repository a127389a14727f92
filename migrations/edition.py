"""Which database this is. The one place that asks; the functions never do."""

from enum import Enum

from sqlalchemy import Connection, text


class Edition(Enum):
    """What the database can do for time series."""

    COMMUNITY = "TimescaleDB, community edition"
    """Hypertables, continuous aggregates, policies, columnstore."""
    APACHE = "TimescaleDB, Apache edition"
    """Hypertables."""
    PLAIN = "PostgreSQL"


def detect(connection: Connection) -> Edition:
    """The edition of the database behind the connection.

    TimescaleDB counts when its extension exists in this database; to create it is the business of who provides the
    database, since it takes a superuser.
    """
    if not connection.scalar(text("SELECT 1 FROM pg_extension WHERE extname = 'timescaledb'")):
        return Edition.PLAIN
    licence = connection.scalar(text("SELECT current_setting('timescaledb.license', true)"))
    return Edition.COMMUNITY if licence == "timescale" else Edition.APACHE
