"""What an attacker could do with the secret of a function: no more than the function."""

from collections.abc import Iterator

import psycopg
import pytest

from migrations import state
from tests.cluster.cluster import connected

EVERYBODY = [
    "DELETE FROM temperatures",
    "UPDATE temperatures SET temperature = 0",
    "TRUNCATE temperatures",
    "DROP TABLE temperatures",
    "ALTER TABLE temperatures ADD COLUMN x int",
    "CREATE TABLE mine (x int)",
    "CREATE ROLE mine",
    "UPDATE temperature_revision SET version_num = 'x'",
    "UPDATE rooms SET summed_until = now()",
    "DELETE FROM room_hours",
    "INSERT INTO building_days VALUES ('e2e', '2024-12-01', 1, 1, 1, 1)",
    "UPDATE upkeep SET retention = interval '7 days'",
    "ALTER TABLE temperatures DISABLE TRIGGER mark_rooms",
    "DROP FUNCTION avg_temperature_bucket_width()",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT * FROM pg_authid",
    "SET ROLE temperature_owner",
    "SET ROLE postgres",
    "SELECT drop_chunks('temperatures', interval '1 day')",
]
READ = ("SELECT * FROM avg_temperature_daily", "SELECT * FROM room_hours", "SELECT * FROM upkeep")
READING = "INSERT INTO temperatures VALUES ('e2e', 'roles', '2024-12-01', 1) ON CONFLICT DO NOTHING"
REMOVAL = "SELECT * FROM preview_removal('e2e', 'roles', '2024-12-01', '2024-12-02', NULL, NULL)"


@pytest.fixture(scope="module")
def writer() -> Iterator[psycopg.Connection]:
    with connected("writer") as connection:
        yield connection


@pytest.fixture(scope="module")
def reader() -> Iterator[psycopg.Connection]:
    with connected("reader") as connection:
        yield connection


@pytest.fixture(scope="module")
def watcher() -> Iterator[psycopg.Connection]:
    with connected("watcher") as connection:
        yield connection


@pytest.fixture(scope="module")
def admin() -> Iterator[psycopg.Connection]:
    with connected("admin") as connection:
        yield connection


def test_the_writer_stores(writer: psycopg.Connection) -> None:
    writer.execute(READING)


def test_the_reader_reads(reader: psycopg.Connection) -> None:
    for relation in ("temperatures", "alarms", *state.VIEWS, *state.SUMMARY_TABLES):
        reader.execute(f"SELECT * FROM {relation} LIMIT 1")


def test_the_watcher_reads_and_keeps_alarms(watcher: psycopg.Connection) -> None:
    watcher.execute("SELECT * FROM temperatures JOIN rooms USING (building_id, room_id) LIMIT 1")
    watcher.execute("UPDATE alarms SET cleared = raised WHERE false")
    watcher.execute("UPDATE rooms SET watched_until = now(), low = NULL WHERE false")
    watcher.execute("UPDATE watching SET checked = now() WHERE false")


def test_the_admin_removes_and_sees_what_was_removed(admin: psycopg.Connection) -> None:
    admin.execute(REMOVAL)
    admin.execute("SELECT * FROM removals LIMIT 1")


@pytest.mark.parametrize(
    "statement",
    [
        *EVERYBODY,
        *READ,
        REMOVAL,
        "SELECT * FROM temperatures",
        "SELECT * FROM rooms",
        "SELECT * FROM alarms",
        "TABLE temperature_revision",
    ],
)
def test_the_writer_cannot(writer: psycopg.Connection, statement: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        writer.execute(statement)


@pytest.mark.parametrize("statement", [*EVERYBODY, READING, REMOVAL])
def test_the_reader_cannot(reader: psycopg.Connection, statement: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        reader.execute(statement)


@pytest.mark.parametrize("statement", [*EVERYBODY, *READ, READING, REMOVAL, "DELETE FROM rooms"])
def test_the_watcher_cannot(watcher: psycopg.Connection, statement: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        watcher.execute(statement)


@pytest.mark.parametrize(
    "statement",
    [*EVERYBODY, *READ, READING, "SELECT * FROM temperatures", "DELETE FROM removals", "DELETE FROM rooms"],
)
def test_the_admin_cannot(admin: psycopg.Connection, statement: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        admin.execute(statement)
