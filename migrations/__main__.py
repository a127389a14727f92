"""`python -m migrations`: bring the database to the newest schema and to what the settings say.

`python -m migrations summarize` only brings the summaries up to date, for a timer where TimescaleDB has none.
"""

import argparse
import logging
import sys
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from migrations import database, roles, settings, state, summaries
from migrations.edition import HIDES_READINGS, READINGS_ARE_HIDDEN, Edition, detect, timescaledb
from migrations.failures import EXIT_CODE, Final, final
from migrations.settings import Settings
from shared import logs
from shared.settings import SettingError

log = logging.getLogger("migrations")

OLDEST_POSTGRESQL = 15
OLDEST_TIMESCALEDB = 2, 18
"""The oldest versions that have all that the schema is made of."""


def config() -> Config:
    """Alembic's configuration, wherever the program was started."""
    alembic = Config()
    alembic.set_main_option("script_location", str(Path(__file__).parent))
    return alembic


def main(chosen: Settings | None = None) -> Edition:
    """Upgrade, apply the settings, by default those of the environment, and return what the database is.

    Raises SettingError for a database that cannot be used yet, and Final for settings or a database that cannot be
    used at all, or averages that could not be built as the settings say: then nothing is changed.
    """
    logs.configure()
    with final():
        chosen = chosen or settings.load()
    alembic = config()
    with database.transaction(chosen.url) as connection:
        _check_server(connection)
        # Whoever provides the database may make its extension, and the role's rights, a moment after it.
        if chosen.require_timescaledb and detect(connection) is Edition.PLAIN:
            raise SettingError("REQUIRE_TIMESCALEDB is true, but the database has no extension timescaledb yet")
        roles.check(connection)
        _check_revision(connection, alembic)
        state.check(connection, chosen)
    alembic.attributes["settings"] = chosen
    command.upgrade(alembic, "head")
    edition = state.bring_about(chosen)
    if unused := chosen.unused(edition):
        log.warning("%s", unused)
    log.info("the database is up to date: %s", edition.value)
    return edition


def _check_server(connection: Connection) -> None:
    version = connection.exec_driver_sql("SHOW server_version").scalar()
    if int(connection.exec_driver_sql("SHOW server_version_num").scalar_one()) < OLDEST_POSTGRESQL * 10_000:
        raise Final(f"PostgreSQL {OLDEST_POSTGRESQL} or newer is needed, and the database is of version {version}")
    if connection.exec_driver_sql("SHOW server_encoding").scalar() != "UTF8":
        raise Final("The database must have the encoding UTF8: CREATE DATABASE ... ENCODING 'UTF8'")
    extension = timescaledb(connection)
    if extension and tuple(map(int, extension.split(".")[:2])) < OLDEST_TIMESCALEDB:
        oldest = ".".join(map(str, OLDEST_TIMESCALEDB))
        raise Final(
            f"TimescaleDB {oldest} or newer is needed, and the database uses {extension}: docs/upgrades.md#timescaledb"
        )
    if extension and connection.scalar(text(f"SELECT {HIDES_READINGS}")):
        raise SettingError(READINGS_ARE_HIDDEN)


def _check_revision(connection: Connection, alembic: Config) -> None:
    if not connection.scalar(text("SELECT to_regclass(:table)"), {"table": database.REVISION_TABLE}):
        return
    found = connection.execute(text(f"SELECT version_num FROM {database.REVISION_TABLE}")).scalars()
    known = {script.revision for script in ScriptDirectory.from_config(alembic).walk_revisions()}
    if newer := set(found) - known:
        raise Final(
            f"The schema of the database is of revision {min(newer)}, which a newer version of this program made."
            f" This one knows revisions up to {max(known)}, and changed nothing: use the newer version again"
        )


def _run() -> None:
    parser = argparse.ArgumentParser(prog="python -m migrations", description=__doc__)
    parser.add_argument("task", nargs="?", choices=["summarize"], help="only bring the summaries up to date")
    task = parser.parse_args().task
    try:
        with database.explained():
            with final():
                logs.configure()
                chosen = settings.load()
            if not task:
                main(chosen)
            summaries.bring_up_to_date(chosen.url)
    except Final as refusal:
        print(refusal, file=sys.stderr)
        sys.exit(EXIT_CODE)


if __name__ == "__main__":
    _run()
