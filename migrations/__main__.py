"""`python -m migrations`: bring the database to the newest schema and to what the settings say."""

import logging
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from migrations import database, policies, settings
from migrations.edition import Edition, detect
from shared import logs
from shared.settings import SettingError

log = logging.getLogger("migrations")


def config() -> Config:
    """Alembic's configuration, wherever the program was started."""
    alembic = Config()
    alembic.set_main_option("script_location", str(Path(__file__).parent))
    return alembic


def main() -> Edition:
    """Upgrade, apply the settings and return what the database is.

    Raises SettingError for a bucket width other than the continuous aggregates have, and where TimescaleDB is required
    and missing.
    """
    logs.configure()
    chosen = settings.load()
    if chosen.require_timescaledb:
        with database.transaction() as connection:
            if detect(connection) is Edition.PLAIN:
                raise SettingError("REQUIRE_TIMESCALEDB is true, but the database has no extension timescaledb yet")
    command.upgrade(config(), "head")
    with database.transaction() as connection:
        edition = detect(connection)
        width = connection.scalar(text("SELECT avg_temperature_bucket_width()"))
    if width != chosen.bucket:
        if edition is Edition.COMMUNITY:
            raise SettingError(
                f"BUCKET_MINUTES is {chosen.bucket}, but this database has buckets of {width}. To build its averages"
                " anew from the readings it still has, and lose its alarms: alembic downgrade 0001, then run the"
                " migrations again"
            )
        with database.transaction() as connection:
            _make_averages_anew(connection)
    with database.transaction() as connection:
        policies.apply(connection, edition, chosen)
    if unused := chosen.unused(edition):
        log.warning("%s", unused)
    log.info("the database is up to date: %s", edition.value)
    return edition


def _make_averages_anew(connection: Connection) -> None:
    """Drop the averages and create them as the settings say: where they are views, nothing is lost with them."""
    averages = ScriptDirectory.from_config(config()).get_revision("0002").module
    with Operations.context(MigrationContext.configure(connection)):
        averages.downgrade()
        averages.upgrade()


if __name__ == "__main__":
    main()
