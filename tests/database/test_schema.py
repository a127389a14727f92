"""The schema on plain PostgreSQL, and the settings of the migrations."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import psycopg
import pytest

from local.postgres import OWNER, READER, WATCHER, WRITER
from migrations.edition import Edition
from tests import schema
from tests.support import SUPERUSER, Urls, alembic, migrate, python, unconfirmed, wait_for_locks


def test_down_and_up_again_leave_nothing_behind(plain: Urls) -> None:
    schema.assert_down_and_up_again_leave_nothing_behind(plain)


def test_roles_can_do_what_they_need_and_no_more(plain: Urls) -> None:
    schema.assert_roles_can_do_what_they_need_and_no_more(plain)


@pytest.fixture
def groups(plain: Urls) -> Iterator[None]:
    """The groups that the Postgres operator puts its users in: those who write are among those who read."""
    with psycopg.connect(plain(SUPERUSER), autocommit=True) as superuser:
        superuser.execute(f"CREATE ROLE writers; GRANT writers TO {WRITER}")
        superuser.execute(f"CREATE ROLE readers; GRANT readers TO {READER}, {WATCHER}, writers")
        yield
        superuser.execute("DROP OWNED BY writers, readers; DROP ROLE writers, readers")


@pytest.mark.usefixtures("groups")
def test_privileges_that_roles_have_by_default_are_withheld(plain: Urls) -> None:
    alembic(plain(OWNER), "downgrade", "base")
    with psycopg.connect(plain(OWNER)) as owner:
        owner.execute("DROP TABLE temperature_revision")
    with psycopg.connect(plain(OWNER)) as owner:
        owner.execute("ALTER DEFAULT PRIVILEGES GRANT INSERT, UPDATE, DELETE ON TABLES TO writers")
        owner.execute("ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO readers")
        owner.execute(f"ALTER DEFAULT PRIVILEGES GRANT TRUNCATE ON TABLES TO {WRITER}, {WATCHER}")
    migrate(plain(OWNER))
    with psycopg.connect(plain(SUPERUSER)) as superuser:
        allowed = superuser.execute(
            "SELECT rolname, relname, privilege FROM pg_roles CROSS JOIN pg_class"
            " CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) AS privilege"
            " WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v')"
            " AND rolname IN (%s, %s, %s) AND has_table_privilege(rolname, pg_class.oid, privilege)",
            (WRITER, READER, WATCHER),
        ).fetchall()
    averages = {f"avg_temperature_{name}" for name in ("time_interval", "hourly", "daily", "stale")}
    assert sorted(allowed) == sorted(
        [
            (WRITER, "temperatures", "INSERT"),
            *((READER, name, "SELECT") for name in {"temperatures", "alarms", *schema.SUMMARIES, *averages}),
            *((WATCHER, name, "SELECT") for name in ("temperatures", "rooms")),
            *((WATCHER, "watching", may) for may in ("SELECT", "UPDATE")),
            *(
                (WATCHER, name, may)
                for name in ("alarms", "alarm_events")
                for may in ("SELECT", "INSERT", "UPDATE", "DELETE")
            ),
        ]
    )


def test_timescaledb_is_waited_for_where_it_is_required(plain: Urls) -> None:
    run = python("-m", "migrations", DATABASE_URL=plain(OWNER), REQUIRE_TIMESCALEDB="true")
    assert run.returncode == 1
    assert run.stderr.endswith("REQUIRE_TIMESCALEDB is true, but the database has no extension timescaledb yet\n")


def test_without_the_roles_the_migrations_still_run(
    plain: Urls, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    alembic(plain(OWNER), "downgrade", "base")
    monkeypatch.setenv("WRITER_ROLE", "somebody")
    monkeypatch.setenv("READER_ROLE", 'some"body')
    assert migrate(plain(OWNER)) is Edition.PLAIN
    assert "there is no role somebody: nothing is granted on temperatures" in caplog.text


def test_runners_at_once_all_succeed(plain: Urls) -> None:
    alembic(plain(OWNER), "downgrade", "base")
    with psycopg.connect(plain(SUPERUSER)) as starter, ThreadPoolExecutor() as pool:
        starter.execute("LOCK TABLE temperature_revision")
        runs = [pool.submit(python, "-m", "migrations", DATABASE_URL=plain(OWNER)) for _ in range(3)]
        wait_for_locks(plain, 3)
        starter.rollback()
    assert [run.result().returncode for run in runs] == [0, 0, 0]
    alembic(plain(OWNER), "check")


def test_alembic_itself_works_in_the_root_of_the_project(plain: Urls) -> None:
    for arguments in (["downgrade", "0001"], ["upgrade", "head"], ["check"]):
        run = python("-m", "alembic", *arguments, DATABASE_URL=plain(OWNER))
        assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("minutes", [1, 15, 60])
def test_the_bucket_width_is_a_setting(plain: Urls, monkeypatch: pytest.MonkeyPatch, minutes: int) -> None:
    with psycopg.connect(plain(OWNER)) as connection:
        connection.execute(schema.ALARM)
    monkeypatch.setenv("BUCKET_MINUTES", str(minutes))
    migrate(plain(OWNER))
    with psycopg.connect(plain(OWNER)) as connection:
        assert connection.execute("SELECT FROM alarms").rowcount == 1
        assert connection.execute("SELECT avg_temperature_bucket_width()").fetchone() == (timedelta(minutes=minutes),)
        connection.execute("INSERT INTO temperatures VALUES ('B1', '101', '2024-12-01T12:59:59Z', 22.5)")
        buckets = connection.execute(
            "SELECT bucket::time::text, avg_temp FROM avg_temperature_time_interval"
        ).fetchall()
    assert buckets == [(f"12:{60 - minutes:02}:00", 22.5)]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("BUCKET_MINUTES", "7", "BUCKET_MINUTES must divide 60"),
        ("BUCKET_MINUTES", "0", "BUCKET_MINUTES must be a whole number from 1 to 60, not '0'"),
        ("RETENTION_DAYS", "3", "RETENTION_DAYS must be 0 or at least 7"),
        ("COLUMNSTORE_AFTER_DAYS", "soon", "COLUMNSTORE_AFTER_DAYS must be a whole number"),
    ],
)
def test_a_setting_that_makes_no_sense_stops_the_migrations(
    plain: Urls, monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match=message):
        migrate(plain(OWNER))


def test_the_database_refuses_what_no_thermometer_reads(plain: Urls) -> None:
    with psycopg.connect(plain(WRITER), autocommit=True) as connection:
        for temperature in (50.1, -50.1, float("nan"), float("inf")):
            with pytest.raises(psycopg.errors.CheckViolation):
                connection.execute(schema.INSERT, (*schema.ROW[:3], temperature))


def test_the_original_projects_queries_work(plain: Urls) -> None:
    with psycopg.connect(plain(OWNER)) as connection:
        connection.execute(schema.INSERT, schema.ROW)
        assert len(connection.execute("SELECT * FROM temperatures;").fetchall()) == 1
        averages = connection.execute("SELECT *\nFROM avg_temperature_time_interval\nORDER BY bucket DESC;").fetchall()
    assert [row[1:4] for row in averages] == [("B1", "101", 22.5)]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"COLUMNSTORE_AFTER_DAYS": "7"}, "COLUMNSTORE_AFTER_DAYS does nothing here"),
        ({"RETENTION_DAYS": "30"}, ""),
        ({}, ""),
    ],
)
def test_what_only_timescaledb_does_is_said_where_it_is_not(plain: Urls, settings: dict[str, str], words: str) -> None:
    run = python("-m", "migrations", DATABASE_URL=plain(OWNER), **settings)
    assert run.returncode == 0
    assert words in run.stderr
    assert ("nothing" in run.stderr) == bool(words)


def test_a_schema_that_no_other_copy_has_is_not_said_to_be_there(plain: Urls) -> None:
    with unconfirmed(plain):
        run = python("-m", "migrations", DATABASE_URL=plain(OWNER))
    assert run.returncode == 1
    *_, said = run.stderr.splitlines()
    assert said.startswith("The database could not be brought to its newest schema: cancel")
    assert migrate(plain(OWNER)) is Edition.PLAIN
