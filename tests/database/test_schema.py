"""The schema on plain PostgreSQL, and the settings of the migrations."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import psycopg
import pytest

from local.postgres import OWNER, WRITER
from migrations.edition import Edition
from tests import schema
from tests.support import SUPERUSER, Urls, alembic, migrate, python


def test_down_and_up_again_leave_nothing_behind(plain: Urls) -> None:
    schema.assert_down_and_up_again_leave_nothing_behind(plain)


def test_roles_can_do_what_they_need_and_no_more(plain: Urls) -> None:
    schema.assert_roles_can_do_what_they_need_and_no_more(plain)


def test_privileges_that_a_role_had_by_default_are_taken_away(plain: Urls) -> None:
    alembic(plain(OWNER), "downgrade", "base")
    with psycopg.connect(plain(OWNER)) as owner:
        owner.execute(f"ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {WRITER}")
    migrate(plain(OWNER))
    with psycopg.connect(plain(OWNER)) as owner:
        owner.execute(f"ALTER DEFAULT PRIVILEGES REVOKE ALL ON TABLES FROM {WRITER}")
        granted = owner.execute(
            "SELECT privilege_type FROM information_schema.role_table_grants WHERE grantee = %s AND table_name = %s",
            (WRITER, "temperatures"),
        )
        assert granted.fetchall() == [("INSERT",)]


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
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with psycopg.connect(plain(SUPERUSER)) as starter, ThreadPoolExecutor() as pool:
        starter.execute("LOCK TABLE alembic_version")
        runs = [pool.submit(python, "-m", "migrations", DATABASE_URL=plain(OWNER)) for _ in range(3)]
        with psycopg.connect(plain(SUPERUSER), autocommit=True) as observer:
            while observer.execute(waiting).fetchone() != (3,):
                time.sleep(0.05)
        starter.rollback()
    assert [run.result().returncode for run in runs] == [0, 0, 0]
    alembic(plain(OWNER), "check")


def test_alembic_itself_works_in_the_root_of_the_project(plain: Urls) -> None:
    for arguments in (["downgrade", "0001"], ["upgrade", "head"], ["check"]):
        run = python("-m", "alembic", *arguments, DATABASE_URL=plain(OWNER))
        assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("minutes", [1, 15, 60])
def test_the_bucket_width_is_a_setting(plain: Urls, monkeypatch: pytest.MonkeyPatch, minutes: int) -> None:
    monkeypatch.setenv("BUCKET_MINUTES", str(minutes))
    migrate(plain(OWNER))
    with psycopg.connect(plain(OWNER)) as connection:
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
