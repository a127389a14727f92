"""What an attacker could do with the secret of a function: no more than the function."""

from collections.abc import Iterator

import psycopg
import pytest

from tests.cluster.cluster import connected

EVERYBODY = [
    "DELETE FROM temperatures",
    "UPDATE temperatures SET temperature = 0",
    "TRUNCATE temperatures",
    "DROP TABLE temperatures",
    "ALTER TABLE temperatures ADD COLUMN x int",
    "CREATE TABLE mine (x int)",
    "CREATE ROLE mine",
    "UPDATE alembic_version SET version_num = 'x'",
    "DROP FUNCTION avg_temperature_bucket_width()",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT * FROM pg_authid",
    "SET ROLE temperature_owner",
    "SET ROLE postgres",
    "SELECT drop_chunks('temperatures', interval '1 day')",
]
VIEW = "SELECT * FROM avg_temperature_daily"
READING = "INSERT INTO temperatures VALUES ('e2e', 'roles', '2024-12-01', 1) ON CONFLICT DO NOTHING"


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


def test_the_writer_stores(writer: psycopg.Connection) -> None:
    writer.execute(READING)


def test_the_reader_reads(reader: psycopg.Connection) -> None:
    for relation in ("temperatures", *(f"avg_temperature_{width}" for width in ("time_interval", "hourly", "daily"))):
        reader.execute(f"SELECT * FROM {relation} LIMIT 1")


def test_the_watcher_reads_and_keeps_alarms(watcher: psycopg.Connection) -> None:
    watcher.execute("SELECT * FROM temperatures LIMIT 1")
    watcher.execute("UPDATE alarms SET cleared = raised WHERE false")
    watcher.execute("UPDATE rooms SET watched_until = now(), low = NULL WHERE false")
    watcher.execute("UPDATE watching SET checked = now() WHERE false")


@pytest.mark.parametrize(
    "statement",
    [*EVERYBODY, "SELECT * FROM temperatures", "SELECT * FROM alarms", VIEW, "TABLE alembic_version"],
)
def test_the_writer_cannot(writer: psycopg.Connection, statement: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        writer.execute(statement)


@pytest.mark.parametrize("statement", [*EVERYBODY, READING])
def test_the_reader_cannot(reader: psycopg.Connection, statement: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        reader.execute(statement)


@pytest.mark.parametrize("statement", [*EVERYBODY, READING, VIEW, "DELETE FROM rooms"])
def test_the_watcher_cannot(watcher: psycopg.Connection, statement: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        watcher.execute(statement)
