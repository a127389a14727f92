"""What holds on the PostgreSQL that the product brings holds on every version that it may be used with."""

import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from starlette.testclient import TestClient

from local.postgres import MONITOR, OWNER, READER, WATCHER, WRITER, Postgres
from migrations import health
from migrations.edition import Edition
from shared.settings import SettingError
from tests import history, schema
from tests.exactness import assert_exact
from tests.sink import Sink
from tests.support import MEMORY, SUPERUSER, Urls, alembic, copied, migrate
from tests.versions.conftest import programs

NOW = datetime.now(UTC)
SETTINGS = {
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "client_min_messages": "error",
    "client_encoding": "LATIN1",
    "idle_in_transaction_session_timeout": "300ms",
    "statement_timeout": "2s",
    "TimeZone": "Asia/Kathmandu",
    "DateStyle": "German, DMY",
    "IntervalStyle": "sql_standard",
    "extra_float_digits": "-15",
    "bytea_output": "escape",
    "standard_conforming_strings": "off",
    "escape_string_warning": "off",
    "backslash_quote": "off",
    "quote_all_identifiers": "on",
    "transform_null_equals": "on",
    "array_nulls": "off",
    "row_security": "off",
    "check_function_bodies": "off",
    "work_mem": "64kB",
    "enable_indexscan": "off",
    "enable_hashjoin": "off",
    "join_collapse_limit": "1",
    "from_collapse_limit": "1",
    "plan_cache_mode": "force_custom_plan",
    "jit_above_cost": "0",
    "synchronous_commit": "local",
}
"""Of a database, whose administrator chose what others do not expect."""
OF_THE_TEST = {
    OWNER: {"DateStyle": "ISO", "client_encoding": "UTF8", "extra_float_digits": "1", "statement_timeout": "0"},
    WRITER: {"default_transaction_isolation": "read committed"},
}
"""Without which what it asks itself would be answered otherwise, and what it stores itself refused."""


@pytest.fixture
def odd(server: Postgres) -> Iterator[Urls]:
    """A database with settings of its own that is migrated with them, twice, by an owner who may do nothing else."""
    with copied(server, "odd", "template0") as urls:
        with psycopg.connect(urls(SUPERUSER), autocommit=True) as superuser:
            for name, value in SETTINGS.items():
                superuser.execute(f"ALTER DATABASE odd SET {name} = {value!r}")
            for role in (WRITER, READER, WATCHER):
                superuser.execute(f"ALTER ROLE {role} IN DATABASE odd SET idle_session_timeout = '300ms'")
        for _ in range(2):
            assert migrate(urls(OWNER)) is Edition.PLAIN
        with psycopg.connect(urls(SUPERUSER), autocommit=True) as superuser:
            for role, settings in OF_THE_TEST.items():
                for name, value in settings.items():
                    superuser.execute(f"ALTER ROLE {role} IN DATABASE odd SET {name} = {value!r}")
        yield urls


def test_the_schema_is_made_and_unmade(urls: Urls) -> None:
    schema.assert_down_and_up_again_leave_nothing_behind(urls)


def test_roles_can_do_what_they_need_and_no_more(urls: Urls) -> None:
    schema.assert_roles_can_do_what_they_need_and_no_more(urls)


def test_answers_are_exact_and_alarms_are_told_whatever_the_settings_of_the_database(
    odd: Urls, serve: Callable[..., TestClient], sink: Sink
) -> None:
    alembic(odd(OWNER), "check")
    play(odd, serve)
    alarm(odd, serve, sink)


def test_the_database_says_how_it_is_whatever_its_settings(odd: Urls) -> None:
    with psycopg.connect(odd(OWNER), autocommit=True) as owner:
        owner.execute("SET default_transaction_isolation = 'read committed'")
        owner.execute("INSERT INTO temperatures VALUES ('B1', '1', now() - interval '5 hours', 20)")
        usual = {measure.metric for measure in health.look(odd(MONITOR)) if measure.fault}
        assert usual <= {"watch_seconds"}
        owner.execute("SELECT setval('summarized', extract(epoch FROM now() - interval '1 hour')::bigint)")
        [found] = [measure for measure in health.look(odd(MONITOR)) if measure.metric == "summaries_seconds"]
    # Kept in whole seconds.
    assert 3599 < found.value < 3660
    assert found.fault and found.fault.startswith("Nothing has summed up readings for 60 minutes")


@pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="version 14 is packed for no other machine"
)
def test_an_older_version_is_refused_with_a_sentence() -> None:
    with tempfile.TemporaryDirectory(prefix="temperature-version-", dir=MEMORY) as folder:
        server = Postgres(Path(folder) / "postgres", log=Path(folder) / "log", programs=programs("14"))
        try:
            server.start()
            with pytest.raises(SettingError, match=r"PostgreSQL 15 or newer is needed, and the database is of .* 14\."):
                migrate(server.url(OWNER))
        finally:
            server.stop()


def play(urls: Urls, serve: Callable[..., TestClient]) -> None:
    """Store, store again, summarize, drop and ask in any order, and compare with what a reference says."""
    ingests = [serve("ingest", DATABASE_URL=urls(WRITER), DATABASE_POOLER=pooled) for pooled in ("true", "false")]
    average = history.served(serve, urls)
    room = {"building_id": "B1", "room_id": "日本"}
    readings = [
        {**room, "temperature": 20.1 + index / 7, "timestamp": (NOW - index * timedelta(hours=7)).isoformat()}
        for index in range(50)
    ]
    assert [ingest.post("/", json=readings).json()["duplicates"] for ingest in ingests] == [0, 50]
    with psycopg.connect(urls(OWNER), autocommit=True) as owner:
        # Readings are kept for a week, then as a part of their hour.
        owner.execute("UPDATE upkeep SET retention = interval '7 days'")
        owner.execute("CALL summarize()")
        assert_exact(average, owner, NOW - timedelta(days=6), NOW)
        [(kept,)] = owner.execute("SELECT count(*) FROM temperatures").fetchall()
    assert 20 <= kept < 30
    query = {**room, "start": (NOW - timedelta(days=30)).isoformat()}
    assert average.get("/v1/temperature/average", params=query).json()["count"] == 50
    history.play(history.World(urls, average, ingests, hypertable=False, at_once=True), examples=2)


def alarm(urls: Urls, serve: Callable[..., TestClient], sink: Sink) -> None:
    """Have an alarm raised and one cleared."""
    watch = serve(
        "watch", DATABASE_URL=urls(WATCHER), ALARM_RULES='[{"building_id": "A", "above": 28}]', ALARM_SINK_URL=sink.url
    )
    ingest = serve("ingest", DATABASE_URL=urls(WRITER))
    for minutes, temperature, counts in ((3, 31, (1, 0, 1)), (2, 20, (0, 1, 1)), (1, 21, (0, 0, 0))):
        instant = (datetime.now(UTC) - timedelta(minutes=minutes)).isoformat()
        reading = {"building_id": "A", "room_id": "1", "temperature": temperature, "timestamp": instant}
        assert ingest.post("/", json=reading).status_code == 201
        answer = watch.post("/").json()
        assert (answer["raised"], answer["cleared"], answer["sent"]) == counts
    average = serve("average", DATABASE_URL=urls(READER))
    assert [found["kind"] for found in average.get("/v1/temperature/alarms").json()["alarms"]] == ["high"]
