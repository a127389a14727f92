"""Which database this is, and what the schema in it was made as. The one place that asks; the functions never do."""

from enum import Enum

from sqlalchemy import Connection, text


class Edition(Enum):
    """What the database can do for time series."""

    COMMUNITY = "TimescaleDB, community edition"
    """Hypertables, continuous aggregates, jobs, columnstore."""
    APACHE = "TimescaleDB, Apache edition"
    """Hypertables."""
    PLAIN = "PostgreSQL"


HIDES_READINGS = """
    'on' IN (current_setting('timescaledb.restoring', true), current_setting('timescaledb.disable_load', true))
    OR 'off' IN (
        current_setting('timescaledb.enable_columnarscan', true),
        -- As earlier versions call it.
        current_setting('timescaledb.enable_transparent_decompression', true)
    )
"""
"""An SQL condition: whether TimescaleDB is told to leave a session without what is in chunks, or compressed."""
READINGS_ARE_HIDDEN = (
    "TimescaleDB hides readings in this session: timescaledb.restoring is on, which a superuser ends with SELECT"
    " timescaledb_post_restore(), timescaledb.disable_load is on, or timescaledb.enable_columnarscan is off"
)


def timescaledb(connection: Connection) -> str | None:
    """The version of TimescaleDB's extension that the database uses, None without one."""
    version: str | None = connection.scalar(text("SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'"))
    return version


def detect(connection: Connection) -> Edition:
    """The edition of the database behind the connection.

    TimescaleDB counts when its extension exists in this database; to create it is the business of who provides the
    database, since it takes a superuser.
    """
    if not timescaledb(connection):
        return Edition.PLAIN
    licence = connection.scalar(text("SELECT current_setting('timescaledb.license', true)"))
    return Edition.COMMUNITY if licence == "timescale" else Edition.APACHE


def has_hypertable(connection: Connection) -> bool:
    """Whether the readings are in a hypertable: not where the extension came after them."""
    return _listed(connection, "hypertables", "hypertable_schema", "hypertable_name", "temperatures")


def has_aggregate(connection: Connection, name: str) -> bool:
    """Whether this is a continuous aggregate, not a plain view."""
    return _listed(connection, "continuous_aggregates", "view_schema", "view_name", name)


def _listed(connection: Connection, view: str, schema_column: str, name_column: str, name: str) -> bool:
    if detect(connection) is Edition.PLAIN:
        return False
    statement = f"SELECT 1 FROM timescaledb_information.{view} WHERE {schema_column} = current_schema()"
    return bool(connection.scalar(text(f"{statement} AND {name_column} = :name"), {"name": name}))
