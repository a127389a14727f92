"""The server has another version of TimescaleDB than the database uses, or lacks that one. Both are stand-ins."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from starlette.testclient import TestClient

from local.postgres import MONITOR, OWNER, PROGRAMS, READER, WATCHER, WRITER
from migrations import health
from migrations.failures import LIBRARY_IS_GONE
from tests.local.machine import place
from tests.support import SUPERUSER, Urls, migrate, python

VIEWS = """
    CREATE SCHEMA timescaledb_information;
    CREATE TABLE timescaledb_information.hypertables (hypertable_schema text, hypertable_name text);
    CREATE TABLE timescaledb_information.continuous_aggregates (view_schema text, view_name text);
    CREATE TABLE timescaledb_information.chunks (hypertable_schema text, hypertable_name text, range_end timestamptz);
    GRANT USAGE ON SCHEMA timescaledb_information TO PUBLIC;
    GRANT SELECT ON ALL TABLES IN SCHEMA timescaledb_information TO PUBLIC;
"""
"""What the migrations ask of the extension where no readings are in it."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the server can read."""
    with place() as path:
        path.chmod(0o755)
        yield path


@pytest.fixture
def control(plain: Urls, folder: Path) -> Path:
    """What says which version of the extension the server has. There are two."""
    scripts = folder / "extension"
    scripts.mkdir()
    for version in ("2.17.2", "2.29.2"):
        (scripts / f"timescaledb--{version}.sql").write_text(VIEWS)
    (scripts / "timescaledb--2.29.2--2.100.1.sql").write_text("")
    with psycopg.connect(plain(SUPERUSER), autocommit=True) as superuser:
        superuser.execute(
            f"ALTER DATABASE {superuser.info.dbname} SET extension_control_path = '{folder}:$system'".encode()
        )
    file = scripts / "timescaledb.control"
    file.write_text("default_version = '2.100.1'\n")
    return file


@pytest.fixture
def gone(plain: Urls, folder: Path) -> str:
    """The SQL of a function whose library is called like that of a TimescaleDB, and is not there any more."""
    (ours,) = PROGRAMS.parent.rglob("dict_snowball.*")
    library = folder / f"timescaledb-2.29.1{ours.suffix}"
    shutil.copy(ours, library)
    with psycopg.connect(plain(SUPERUSER), autocommit=True) as superuser:
        body = f"LANGUAGE C STABLE AS '{library}', 'dsnowball_init'"
        superuser.execute(f"CREATE FUNCTION gone() RETURNS trigger {body}".encode())
        superuser.execute(f"CREATE OR REPLACE FUNCTION standbys_meant() RETURNS integer {body}".encode())
        superuser.execute(
            "CREATE OR REPLACE FUNCTION room_readings(building text, room text, since timestamptz, before timestamptz)"
            f" RETURNS TABLE (count bigint, sum numeric, min float8, max float8) {body}".encode()
        )
    library.unlink()
    return str(library)


def faults(urls: Urls) -> dict[str, str]:
    return {measure.metric: measure.fault for measure in health.look(urls(MONITOR)) if measure.fault}


def test_one_that_is_older_than_the_servers_is_found_until_it_is_updated(
    plain: Urls, control: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert "extension_outdated" not in {measure.metric for measure in health.look(plain(MONITOR))}
    with psycopg.connect(plain(SUPERUSER), autocommit=True) as superuser:
        superuser.execute("CREATE EXTENSION timescaledb VERSION '2.29.2'")
        where = "docs/reliability.md#timescaledb-is-outdated"
        words = f"The database uses TimescaleDB 2.29.2, and the server has 2.100.1. {where}"
        assert faults(plain) == {"extension_outdated": words}
        migrate(plain(OWNER))
        assert words in caplog.text
        superuser.execute("ALTER EXTENSION timescaledb UPDATE")
    assert faults(plain) == {}
    # The server of before is started again.
    control.write_text("default_version = '2.29.2'\n")
    assert faults(plain) == {}


def test_one_that_is_too_old_is_refused_at_once_and_nothing_is_changed(plain: Urls, control: Path) -> None:
    with psycopg.connect(plain(SUPERUSER), autocommit=True) as superuser:
        superuser.execute("CREATE EXTENSION timescaledb VERSION '2.17.2'")
    run = python("-m", "migrations", DATABASE_URL=plain(OWNER))
    words = "TimescaleDB 2.18 or newer is needed, and the database uses 2.17.2: docs/upgrades.md#timescaledb\n"
    assert (run.returncode, run.stderr) == (78, words)


def test_one_that_the_server_has_no_more_is_named_by_migrations_and_health(plain: Urls, gone: str) -> None:
    assert python("-m", "migrations.health", "--words", DATABASE_URL=plain(MONITOR)).stderr == f"{LIBRARY_IS_GONE}\n"
    with psycopg.connect(plain(OWNER), autocommit=True) as owner:
        owner.execute("CREATE TRIGGER gone BEFORE UPDATE ON upkeep EXECUTE FUNCTION gone()")
    run = python("-m", "migrations", DATABASE_URL=plain(OWNER))
    # Another try may find what somebody updated meanwhile.
    assert (run.returncode, run.stderr.splitlines()[-1]) == (1, LIBRARY_IS_GONE)


def test_a_session_that_could_not_load_it_is_asked_nothing_more(
    plain: Urls, serve: Callable[..., TestClient], gone: str
) -> None:
    average = serve("average", DATABASE_URL=plain(READER), DEADLINE_SECONDS="1")
    answer = average.get("/v1/temperature/average?building_id=B1&room_id=101")
    assert (answer.status_code, answer.json()["detail"]) == (503, "The database does not answer; ask again")
    with psycopg.connect(plain(SUPERUSER), autocommit=True) as superuser:
        asked = "SELECT FROM pg_stat_activity WHERE usename = %s AND datname = current_database() AND query <> ''"
        assert superuser.execute(asked, (READER,)).rowcount == 0


IN_CHUNKS = "INSERT INTO timescaledb_information.hypertables VALUES (current_schema(), 'temperatures')"
BUCKET = "CREATE OR REPLACE FUNCTION time_bucket(width interval, at timestamptz) RETURNS timestamptz IMMUTABLE STRICT"


def test_without_it_nothing_is_stored_summed_up_or_answered(
    plain: Urls, control: Path, gone: str, serve: Callable[..., TestClient]
) -> None:
    with psycopg.connect(plain(SUPERUSER), autocommit=True) as superuser:
        superuser.execute("CREATE EXTENSION timescaledb")
        superuser.execute(IN_CHUNKS)
        # That of the real one may be set by everybody.
        superuser.execute(f"GRANT SET ON PARAMETER timescaledb.max_tuples_decompressed_per_dml_transaction TO {OWNER}")
        superuser.execute(f"{BUCKET} LANGUAGE sql RETURN at".encode())
        migrate(plain(OWNER))
        shutil.copy(next(PROGRAMS.parent.rglob("dict_snowball.*")), gone)
        superuser.execute(f"{BUCKET} LANGUAGE C AS '{gone}', 'dsnowball_init'".encode())
        Path(gone).unlink()
    reading = {"building_id": "B1", "room_id": "101", "temperature": 20, "timestamp": "2026-11-01T00:00:00Z"}
    ingest = serve("ingest", DATABASE_URL=plain(WRITER), DEADLINE_SECONDS="1")
    average = serve("average", DATABASE_URL=plain(READER), DEADLINE_SECONDS="1")
    ask = "/v1/temperature/average?building_id=B1&room_id=101&start=2026-11-01T00:00:00Z&end=2026-11-01T00:{}:00Z"
    with psycopg.connect(plain(OWNER), autocommit=True) as owner:
        for _ in range(2):
            assert ingest.post("/", json=reading).status_code == 503
            assert average.get(ask.format("30")).status_code == 503
            for statement in (
                "SELECT courses('B1', '{101}', '{[2026-11-01, 2026-11-02)}')",
                "SELECT readings_up_to('B1', '{101}', '-infinity', 'infinity', 1)",
                "SELECT latest_reading('B1', '101', 'infinity')",
                "SELECT preview_removal('B1', '101', NULL, NULL, NULL, NULL)",
            ):
                with pytest.raises(psycopg.errors.UndefinedFile):
                    owner.execute(statement.encode())
        with psycopg.connect(plain(SUPERUSER), autocommit=True) as superuser:
            superuser.execute(f"{BUCKET} LANGUAGE sql RETURN at".encode())
        assert ingest.post("/", json=reading).json()["accepted"] == 1
        assert owner.execute("SELECT count(*) FROM temperatures").fetchall() == [(1,)]


ENDED = """
    CREATE SEQUENCE asked;
    GRANT USAGE ON SEQUENCE asked TO temperature_reader;
    CREATE OR REPLACE FUNCTION room_readings(building text, room text, since timestamptz, before timestamptz)
    RETURNS TABLE (count bigint, sum numeric, min float8, max float8)
    LANGUAGE plpgsql AS $$
    BEGIN
        IF nextval('asked') = 1 THEN
            RAISE '"timescaledb" already loaded with a different version' USING ERRCODE = 'duplicate_object';
        END IF;
    END $$;
    CREATE FUNCTION ended() RETURNS trigger
    LANGUAGE plpgsql AS $$
    BEGIN
        RAISE '"timescaledb" already loaded with a different version' USING ERRCODE = 'duplicate_object';
    END $$;
    CREATE TRIGGER ended BEFORE UPDATE ON watching EXECUTE FUNCTION ended();
"""


def test_a_session_that_ends_because_it_was_updated_is_followed_by_another(
    plain: Urls, serve: Callable[..., TestClient]
) -> None:
    with psycopg.connect(plain(OWNER), autocommit=True) as owner:
        owner.execute(ENDED)
    average = serve("average", DATABASE_URL=plain(READER))
    answer = average.get("/v1/temperature/average?building_id=B1&room_id=101")
    assert (answer.status_code, answer.json()["message"]) == (200, "No data found")
    answer = serve("watch", DATABASE_URL=plain(WATCHER)).post("/watch")
    assert (answer.status_code, answer.json()["detail"]) == (503, "The database does not answer; check again")
