"""The connection of the migrations: as the owner, one runner at a time."""

import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta

import psycopg
from sqlalchemy import Connection, NullPool, create_engine, text
from sqlalchemy.exc import DBAPIError

from migrations.failures import LIBRARY_IS_GONE, library_is_gone
from shared.confirmation import Unconfirmed, confirming
from shared.masking import masked
from shared.settings import SettingError

log = logging.getLogger("migrations")

REVISION_TABLE = "temperature_revision"
"""Where Alembic keeps the revision of the schema; `alembic_version` may be another application's."""

COMMIT_WAITS_SECONDS = 10
"""After so long it is said that a commit waits."""
COMMIT_WAITS = (
    "the database has not answered a commit for %s seconds: it waits for its disk, or for a standby that"
    " synchronous_standby_names says is to confirm it. docs/reliability.md#commits-are-slow"
)
READ_ONLY = (
    "The database only reads: it is a standby, or default_transaction_read_only is on. Name the primary in"
    " DATABASE_URL, or have it write again"
)
_SETTINGS = """
    SELECT set_config(name, wanted, true)
    FROM pg_settings JOIN (VALUES
        -- The migrations may take long, whatever the settings of the role or the database say.
        ('statement_timeout', '0'), ('transaction_timeout', '0'), ('idle_in_transaction_session_timeout', '0'),
        -- That a commit is on the primary only is a warning.
        ('client_min_messages', 'warning'), ('jit', 'off'),
        -- Rows that a policy hides from the owner too would be taken for none.
        ('row_security', 'off'),
        -- psycopg and SQLAlchemy understand these.
        ('IntervalStyle', 'postgres'), ('DateStyle', 'ISO'), ('TimeZone', 'UTC'),
        ('quote_all_identifiers', 'off')
    ) AS chosen (name, wanted) USING (name)
"""
"""For a transaction; not every version has all of them."""


def connect(url: str) -> "psycopg.Connection[tuple[object, ...]]":
    """A connection to the database."""
    # The encoding whatever the variables of libpq, the role or the database say; and nothing that a pooler would lose.
    return psycopg.connect(url, client_encoding="UTF8", prepare_threshold=None)


@contextmanager
def transaction(url: str) -> Iterator[Connection]:
    """A transaction on the database.

    A second runner (a Job that was retried, another machine) waits here until the first has committed. Raises
    Unconfirmed if not all that the transaction found and did is on as many copies as are promised, and SettingError for
    a database that only reads.
    """
    raw = connect(url)
    confirm = confirming(raw)
    engine = create_engine(
        "postgresql+psycopg://", creator=lambda: raw, poolclass=NullPool, isolation_level="READ COMMITTED"
    )
    with ExitStack() as committed, engine.begin() as connection:
        connection.execute(text(_SETTINGS))
        if connection.scalar(text("SHOW transaction_read_only")) == "on":
            raise SettingError(READ_ONLY)
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('temperature migrations'))"))
        # The commit of a transaction that changes nothing waits for no copy: one before it may have been cut short.
        connection.execute(text("SELECT pg_logical_emit_message(true, 'temperature', '')"))
        yield connection
        waits = threading.Timer(COMMIT_WAITS_SECONDS, log.warning, (COMMIT_WAITS, COMMIT_WAITS_SECONDS))
        committed.callback(waits.cancel)
        waits.start()
    confirm()


@contextmanager
def explained() -> Iterator[None]:
    """Say in a sentence why the database refused what is done here. Raises SettingError."""
    try:
        yield
    except (DBAPIError, psycopg.Error, Unconfirmed) as error:
        log.debug("the database refused what the migrations do", exc_info=True)
        refusal = error.orig if isinstance(error, DBAPIError) else error
        if isinstance(refusal, psycopg.errors.ReadOnlySqlTransaction):
            raise SettingError(READ_ONLY) from None
        if library_is_gone(refusal):
            raise SettingError(LIBRARY_IS_GONE) from None
        said = refusal.diag.message_primary if isinstance(refusal, psycopg.Error) else None
        words = " ".join((said or str(refusal)).split())
        raise SettingError(f"The database could not be brought to its newest schema: {masked(words)}") from None


def run(connection: Connection, statement: str) -> None:
    """Run a statement as it stands: names in it may have colons and percent signs, which else mean parameters."""
    connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


_EARLIER_TABLE = "alembic_version"
_EARLIER_REVISIONS = {"0001", "0002", "0003"}


def name_revision_table(connection: Connection) -> None:
    """Give the table of revisions its own name where an earlier version of the migrations called it alembic_version.

    It is that version's where there are readings and it names one of that version's revisions.
    """
    own, found, readings = connection.execute(
        text(
            "SELECT to_regclass(quote_ident(current_schema()) || '.' || name) IS NOT NULL"
            " FROM unnest(CAST(:names AS text[])) WITH ORDINALITY AS wanted (name, place) ORDER BY place"
        ),
        {"names": [REVISION_TABLE, _EARLIER_TABLE, "temperatures"]},
    ).scalars()
    if own or not (found and readings):
        return
    if set(connection.execute(text(f"SELECT version_num FROM {_EARLIER_TABLE}")).scalars()) <= _EARLIER_REVISIONS:
        _rename(connection, _EARLIER_TABLE, REVISION_TABLE)


def give_revision_table_back(connection: Connection) -> None:
    """Give it the earlier name where the schema is that version's again, which would begin from nothing without it."""
    found = set(connection.execute(text(f"SELECT version_num FROM {REVISION_TABLE}")).scalars())
    taken = connection.scalar(
        text(f"SELECT to_regclass(quote_ident(current_schema()) || '.{_EARLIER_TABLE}') IS NOT NULL")
    )
    if found and found <= _EARLIER_REVISIONS and not taken:
        _rename(connection, REVISION_TABLE, _EARLIER_TABLE)


def _rename(connection: Connection, before: str, after: str) -> None:
    connection.execute(text(f"ALTER TABLE {before} RENAME TO {after}"))
    connection.execute(text(f"ALTER INDEX {before}_pkc RENAME TO {after}_pkc"))


def interval(width: timedelta) -> str:
    """The width as an SQL literal, in hours and minutes: a day may be longer in the zone of a session."""
    minutes = int(width.total_seconds()) // 60
    return f"interval '{minutes // 60}:{minutes % 60:02}'"
