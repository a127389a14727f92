"""What the schema promises, the same in every edition: nothing left behind, no drift, least privilege."""

from typing import Any

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege

from local.postgres import ADMIN, MONITOR, OWNER, READER, WATCHER, WRITER
from tests.support import SUPERUSER, Urls, alembic, migrate

OBJECTS = """
    SELECT relkind::text || ' ' || relname FROM pg_class WHERE relnamespace = 'public'::regnamespace
    UNION SELECT 'f ' || proname FROM pg_proc
        WHERE pronamespace = 'public'::regnamespace AND pg_get_userbyid(proowner) = 'temperature_owner'
    UNION SELECT 't ' || typname FROM pg_type
        WHERE typnamespace = 'public'::regnamespace AND pg_get_userbyid(typowner) = 'temperature_owner'
"""
ROW = ("B1", "101", "2024-12-01T12:34:56Z", 22.5)
INSERT = "INSERT INTO temperatures VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING"
VIEWS = [
    "avg_temperature_time_interval",
    "avg_temperature_hourly",
    "avg_temperature_daily",
    "avg_temperature_stale",
]
SUMMARIES = ["rooms", "room_hours", "room_days", "room_weeks", "building_hours", "building_days", "upkeep"]
ALARM = (
    "INSERT INTO alarms (building_id, room_id, kind, threshold, temperature, raised)"
    " VALUES ('B1', '101', 'low', 1, 0, now())"
)
EVENT = "INSERT INTO alarm_events (alarm, state, sink, raised) SELECT id, 'raised', '', raised FROM alarms"


def objects(urls: Urls) -> set[str]:
    """The names of all that is in the schema."""
    with psycopg.connect(urls(OWNER)) as connection:
        return {name for (name,) in connection.execute(OBJECTS)}


def assert_down_and_up_again_leave_nothing_behind(urls: Urls) -> None:
    """Downgrade and upgrade, by steps and at once, and compare what is there."""
    migrated = objects(urls)
    tables = {
        "r alarms",
        "i alarms_open",
        "i alarms_cleared",
        "r alarm_events",
        "r watching",
        *(f"r {name}" for name in SUMMARIES),
    }
    assert {"f avg_temperature_bucket_width", "v unsummarized", *(f"v {view}" for view in VIEWS)} | tables <= migrated
    alembic(urls(OWNER), "downgrade", "0004")
    assert {"r watched"} == {name for name in objects(urls) if "watch" in name and name.startswith("r ")}
    alembic(urls(OWNER), "downgrade", "0003")
    assert not any(name.removeprefix("r ") in SUMMARIES or "rooms" in name for name in objects(urls))
    # As the version before calls it, which would else begin from nothing.
    assert {"r alembic_version", "i alembic_version_pkc"} <= objects(urls)
    alembic(urls(OWNER), "downgrade", "0002")
    assert not any("alarm" in name or "watched" in name for name in objects(urls))
    alembic(urls(OWNER), "downgrade", "0001")
    assert not any("avg_" in name for name in objects(urls))
    migrate(urls(OWNER))
    assert objects(urls) == migrated
    alembic(urls(OWNER), "downgrade", "base")
    revision = "temperature_revision"
    assert objects(urls) == {f"r {revision}", f"i {revision}_pkc", f"t {revision}", f"t _{revision}"}
    migrate(urls(OWNER))
    migrate(urls(OWNER))
    assert objects(urls) == migrated
    # As superuser: PGlite keeps system tables from others that everybody may read on a normal server.
    alembic(urls(SUPERUSER), "check")


def assert_roles_can_do_what_they_need_and_no_more(urls: Urls) -> None:
    """Try everything as the writer, the reader, the watcher and the administrator."""
    with psycopg.connect(urls(WRITER), autocommit=True) as writer:
        assert writer.execute(INSERT, ROW).rowcount == 1
        assert writer.execute(INSERT, ROW).rowcount == 0
        for statement in [*_CHANGES, ALARM, *_reads(), "SELECT * FROM alarms", *_WATCHERS]:
            _refused(writer, statement)
        _refused_to_all(writer)
    with psycopg.connect(urls(READER), autocommit=True) as reader:
        for statement in [*_reads(), "SELECT * FROM alarms"]:
            reader.execute(statement)
        for statement in [*_CHANGES, ALARM, *_WATCHERS]:
            _refused(reader, statement)
        _refused(reader, INSERT, ROW)
        _refused_to_all(reader)
    with psycopg.connect(urls(WATCHER), autocommit=True) as watcher:
        for relation in ("temperatures", "rooms", "alarms", "alarm_events", "watching"):
            watcher.execute(f"SELECT * FROM {relation}")
        watcher.execute(ALARM)
        watcher.execute(EVENT)
        for statement in (
            "UPDATE alarms SET cleared = raised",
            "UPDATE alarm_events SET attempts = 1",
            "UPDATE watching SET checked = now()",
            "UPDATE rooms SET watched_until = now(), came_from = NULL, came_to = NULL, low = NULL, high = NULL",
            "DELETE FROM alarms",
        ):
            watcher.execute(statement)
        for statement in [*_CHANGES, *(f"SELECT * FROM {name}" for name in (*VIEWS, *SUMMARIES) if name != "rooms")]:
            _refused(watcher, statement)
        _refused(watcher, INSERT, ROW)
        _refused_to_all(watcher)
    for role in (WRITER, READER, WATCHER, MONITOR):
        with psycopg.connect(urls(role), autocommit=True) as other:
            for statement in _REMOVALS:
                _refused(other, statement)
    for role in (WRITER, READER, WATCHER, ADMIN):
        with psycopg.connect(urls(role), autocommit=True) as other:
            for statement in _HEALTH:
                _refused(other, statement)
    with psycopg.connect(urls(MONITOR), autocommit=True) as monitor:
        # All of it at once asks what PGlite keeps from others than its superuser: see tests/database/test_health.py.
        for statement in _HEALTH[:2]:
            monitor.execute(statement)
        for statement in [*_CHANGES, ALARM, *_reads(), "SELECT * FROM alarms", *_WATCHERS, _HEALTH[-1]]:
            _refused(monitor, statement)
        _refused(monitor, INSERT, ROW)
        _refused_to_all(monitor)
    with psycopg.connect(urls(ADMIN), autocommit=True) as admin:
        for statement in _REMOVALS:
            admin.execute(statement)
        for statement in [*_CHANGES, ALARM, *_reads(), "SELECT * FROM alarms", *_WATCHERS]:
            _refused(admin, statement)
        _refused(admin, "DELETE FROM removals")
        _refused(admin, INSERT, ROW)
        _refused_to_all(admin)
    with psycopg.connect(urls(OWNER)) as owner:
        for role in (OWNER, WRITER, READER, WATCHER, ADMIN, MONITOR):
            assert owner.execute(
                "SELECT rolsuper, rolcreaterole, rolcreatedb, rolbypassrls FROM pg_roles WHERE rolname = %s", (role,)
            ).fetchone() == (False, False, False, False)


_REMOVALS = [
    "SELECT * FROM removals",
    "SELECT * FROM preview_removal('B1', NULL, NULL, NULL, NULL, NULL)",
    "SELECT begin_removal('B1', NULL, NULL, NULL, NULL, NULL, '', '', '1 day')",
    "SELECT continue_removal(id) FROM removals",
]
_HEALTH = [
    "SELECT * FROM schema_health()",
    "SELECT * FROM jobs_health()",
    "SELECT * FROM database_health()",
    "SELECT * FROM server_health()",
    "SELECT last_value FROM summarized",
]
_OWN_TABLE = "CREATE TEMPORARY TABLE own (building_id text, room_id text, timestamp timestamptz, temperature float8)"
_CHANGES = [
    "DELETE FROM temperatures",
    "UPDATE temperatures SET temperature = 0",
    "DELETE FROM watching",
    *(f"DELETE FROM {name}" for name in SUMMARIES),
    "UPDATE upkeep SET dropped_before = now()",
    "UPDATE rooms SET summed_until = now()",
    "UPDATE rooms SET timestamp = now()",
    "SELECT * FROM unsummarized",
    "CALL summarize()",
    # Functions that run as the owner are for the table of readings alone.
    f"{_OWN_TABLE}; CREATE TRIGGER mine AFTER TRUNCATE ON own EXECUTE FUNCTION forget_rooms(); TRUNCATE own",
    f"{_OWN_TABLE}; CREATE TRIGGER mine AFTER INSERT ON own REFERENCING NEW TABLE AS added"
    " FOR EACH STATEMENT EXECUTE FUNCTION mark_rooms(); INSERT INTO own VALUES ('B1', 'mine', now(), 0)",
]
_WATCHERS = ["SELECT * FROM alarm_events", "SELECT * FROM watching", "DELETE FROM alarms"]


def _reads() -> list[str]:
    return [f"SELECT * FROM {relation}" for relation in ("temperatures", *VIEWS, *SUMMARIES)]


def _refused_to_all(connection: psycopg.Connection[Any]) -> None:
    for statement in (
        "TRUNCATE temperatures",
        "TRUNCATE alarms",
        "SELECT * FROM temperature_revision",
        "CREATE TABLE mine ()",
        f"SET ROLE {OWNER}",
        "COPY temperatures TO PROGRAM 'true'",
    ):
        _refused(connection, statement)


def _refused(connection: psycopg.Connection[Any], statement: str, parameters: tuple[object, ...] = ()) -> None:
    with pytest.raises(InsufficientPrivilege):
        connection.execute(statement, parameters)
