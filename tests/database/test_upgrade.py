"""A database of the version before is brought to the newest schema while it is in use, on plain PostgreSQL."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from alembic.script import ScriptDirectory
from starlette.testclient import TestClient

import migrations.__main__ as migrations
from local.postgres import OWNER, READER
from migrations.database import explained
from migrations.failures import Final
from shared.settings import SettingError
from tests import upgrade
from tests.exactness import assert_exact
from tests.support import ROOT, Urls, alembic, migrate, wait_until

START = datetime(2026, 10, 20, tzinfo=UTC)


def assert_summed_up(
    serve: Callable[..., TestClient], plain: Urls, connection: psycopg.Connection[Any], readings: int
) -> TestClient:
    """Averages are exact before and after what is left is summed up, and no reading is missing. Returns `average`."""
    average = serve("average", DATABASE_URL=plain(READER))
    for _ in range(2):
        assert_exact(average, connection, START, START + timedelta(days=40))
        connection.execute("CALL summarize()")
    found = connection.execute("SELECT sum(count)::bigint FROM room_hours").fetchall()
    assert found == [(readings,)]
    return average


def test_readings_that_are_there_and_those_that_go_on_to_come_are_summed_up(
    plain: Urls, serve: Callable[..., TestClient]
) -> None:
    upgrade.version_before(plain)
    with psycopg.connect(plain(OWNER), autocommit=True) as connection:
        rows = [("B1", f"{100 + number % 20}", START + number * timedelta(minutes=13), 20.1) for number in range(2000)]
        upgrade.store(connection, rows)
        with upgrade.still_written_to(plain, START) as stored:
            migrate(plain(OWNER))
            migrate(plain(OWNER))
            connection.execute("CALL summarize()")
        assert_summed_up(serve, plain, connection, len(rows) + len(stored))


REVISIONS = sorted(
    each.revision for each in ScriptDirectory.from_config(migrations.config()).walk_revisions() if each.revision
)


@pytest.mark.parametrize("revision", REVISIONS)
def test_a_database_of_any_revision_comes_to_the_newest_with_all_that_is_in_it(
    plain: Urls, serve: Callable[..., TestClient], revision: str
) -> None:
    upgrade.at(plain, revision)
    with psycopg.connect(plain(OWNER), autocommit=True) as connection:
        rows = [("B1", f"{100 + number % 7}", START + number * timedelta(minutes=97), 20.1) for number in range(300)]
        upgrade.store(connection, rows)
        if has_alarms := revision >= "0003":
            connection.execute(
                "INSERT INTO alarms (building_id, room_id, kind, threshold, temperature, raised)"
                " VALUES ('B1', '101', 'high', 19, 20.1, now() - interval '1 hour')"
            )
        with upgrade.still_written_to(plain, START) as stored:
            migrate(plain(OWNER))
            upgraded = len(stored)
            wait_until(lambda: len(stored) > upgraded)
        average = assert_summed_up(serve, plain, connection, len(rows) + len(stored))
        assert average.get("/v1/temperature/alarms").json()["open"] == int(has_alarms)
        alembic(plain(OWNER), "check")


@pytest.mark.parametrize("trigger", ["dropped", "disabled"])
def test_readings_that_came_without_a_trigger_are_found_by_the_next_migrations(
    plain: Urls, serve: Callable[..., TestClient], trigger: str
) -> None:
    with psycopg.connect(plain(OWNER), autocommit=True) as connection:
        upgrade.store(
            connection, [("B1", "101", START + number * timedelta(minutes=97), 20.1) for number in range(300)]
        )
        connection.execute("CALL summarize()")
        if trigger == "dropped":
            # The revisions before removals do.
            alembic(plain(OWNER), "downgrade", "0006")
        else:
            connection.execute("ALTER TABLE temperatures DISABLE TRIGGER mark_rooms")
        upgrade.store(connection, [("B1", room, START + timedelta(minutes=1), 20.1) for room in ("101", "102")])
        # Warmer than the latest, at the same instant.
        upgrade.store(connection, [("B1", "101", START + 299 * timedelta(minutes=97), 20.2)])
        migrate(plain(OWNER))
        upgrade.store(connection, [("B1", "103", START, 20.1)])
        average = assert_summed_up(serve, plain, connection, 304)
        rooms = average.get("/v1/temperature/rooms").json()["rooms"]
        assert [(room["room_id"], room["latest"]["temperature"]) for room in rooms] == [
            ("101", 20.2),
            ("102", 20.1),
            ("103", 20.1),
        ]


def test_readings_that_came_past_a_trigger_are_found_by_migrations_that_are_told(
    plain: Urls, serve: Callable[..., TestClient]
) -> None:
    (command,) = re.findall("`(UPDATE upkeep SET .+?)`", (ROOT / "docs" / "summaries.md").read_text())
    with psycopg.connect(plain(OWNER), autocommit=True) as connection:
        upgrade.store(
            connection, [("B1", "101", START + number * timedelta(minutes=97), 20.1) for number in range(300)]
        )
        connection.execute("CALL summarize()")
        with psycopg.connect(plain("postgres"), autocommit=True) as superuser:
            superuser.execute("SET session_replication_role = replica")
            upgrade.store(superuser, [("B1", room, START + timedelta(minutes=1), 20.1) for room in ("101", "102")])
        connection.execute(command)
        migrate(plain(OWNER))
        assert_summed_up(serve, plain, connection, 302)


@pytest.mark.parametrize("revision", ["7f3a", "0003"])
def test_the_table_of_revisions_of_another_application_is_left_alone(plain: Urls, revision: str) -> None:
    alembic(plain(OWNER), "downgrade", "base")
    with psycopg.connect(plain(OWNER), autocommit=True) as connection:
        connection.execute("DROP TABLE temperature_revision; CREATE TABLE alembic_version (version_num text)")
        connection.execute("INSERT INTO alembic_version VALUES (%s)", (revision,))
        migrate(plain(OWNER))
        # That version has a table of this name.
        alembic(plain(OWNER), "downgrade", "0003")
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(revision,)]


def test_rows_that_a_policy_hides_from_their_owner_too_are_not_taken_for_none(plain: Urls) -> None:
    with psycopg.connect(plain(OWNER), autocommit=True) as connection:
        connection.execute("ALTER TABLE rooms ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
    with pytest.raises(SettingError, match="would be affected by row-level security"), explained():
        migrate(plain(OWNER))


def test_the_database_of_a_newer_version_is_left_alone(plain: Urls) -> None:
    with psycopg.connect(plain(OWNER), autocommit=True) as connection:
        connection.execute("UPDATE temperature_revision SET version_num = '9999'")
        with pytest.raises(Final, match=r"is of revision 9999, .+ knows revisions up to 0011.+ use the newer version"):
            migrate(plain(OWNER))
        assert connection.execute("SELECT version_num FROM temperature_revision").fetchall() == [("9999",)]


def test_roles_that_come_later_get_their_grants(plain: Urls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("READER_ROLE", "later_reader")
    migrate(plain(OWNER))
    with psycopg.connect(plain("postgres"), autocommit=True) as superuser:
        superuser.execute("CREATE ROLE later_reader LOGIN")
        try:
            migrate(plain(OWNER))
            with psycopg.connect(plain("later_reader")) as reader:
                reader.execute("SELECT * FROM temperatures, rooms, room_hours, upkeep")
        finally:
            superuser.execute("DROP OWNED BY later_reader; DROP ROLE later_reader")
