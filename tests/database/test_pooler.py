"""The functions behind PgBouncer, which lends them a connection for a transaction, or for as long as they like."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
from starlette.testclient import TestClient

from local.postgres import ADMIN, OWNER, READER, WATCHER, WRITER
from migrations import summaries
from migrations.database import connect
from shared import database
from tests.sink import Sink
from tests.support import Urls, alembic, free_port, listens, migrate, program, python, wait_until

READING = {"building_id": "B1", "room_id": "101", "temperature": 22.5}
DAY = {"building_id": "B1", "start": "2024-12-01T00:00:00Z", "end": "2024-12-02T00:00:00Z"}


@pytest.fixture
def pooled(plain: Urls, request: pytest.FixtureRequest) -> Iterator[Urls]:
    pgbouncer = program("pgbouncer")
    folder = Path(tempfile.mkdtemp(prefix="temperature-pooler-"))
    folder.chmod(0o777)
    reached = urlsplit(plain(READER))
    (server,) = parse_qs(reached.query)["host"]
    settings = folder / "pgbouncer.ini"
    settings.write_text(
        f"[databases]\n* = host={server}\n"
        f"[pgbouncer]\nlisten_addr =\nunix_socket_dir = {folder}\nlogfile = {folder}/log\n"
        f"auth_type = trust\nauth_file = {folder}/users\npool_mode = {getattr(request, 'param', 'transaction')}\n"
        # As if each transaction had another connection to the database.
        "server_reset_query_always = 1\n"
    )
    (folder / "users").write_text("".join(f'"{role}" ""\n' for role in (OWNER, READER, WRITER, WATCHER, ADMIN)))
    # It does not run as root.
    options = ["--quiet", *(["--user", "nobody"] if os.geteuid() == 0 else [])]
    with subprocess.Popen([pgbouncer, *options, settings]) as process:

        def url(role: str) -> str:
            return f"postgresql://{role}@{reached.path}?host={folder}&port=6432"

        wait_until(lambda: listens(folder / ".s.PGSQL.6432"))
        yield url
        process.terminate()
    shutil.rmtree(folder)


@pytest.mark.parametrize("pooled", ["transaction", "session"], indirect=True)
def test_readings_are_stored_and_averaged_through_it(serve: Callable[..., TestClient], pooled: Urls) -> None:
    environment = {"DATABASE_POOLER": "true", "DEADLINE_SECONDS": "2"}
    ingest = serve("ingest", DATABASE_URL=pooled(WRITER), **environment)
    average = serve("average", DATABASE_URL=pooled(READER), **environment)
    # More often than psycopg executes a statement before it prepares it.
    for minute in range(20):
        reading = {**READING, "timestamp": f"2024-12-01T12:{minute:02}:00Z"}
        assert ingest.post("/", json=[reading, reading]).json()["duplicates"] == 1
        assert average.get("/v1/temperature/average", params=DAY).json()["count"] == minute + 1


def test_readings_are_removed_through_it(serve: Callable[..., TestClient], plain: Urls, pooled: Urls) -> None:
    token = "an-admin-token-0123456789"
    environment = {"DATABASE_POOLER": "true", "ADMIN_DATABASE_URL": pooled(ADMIN), "ADMIN_TOKENS": token}
    average = serve("average", DATABASE_URL=pooled(READER), **environment)
    with psycopg.connect(plain(OWNER), autocommit=True) as owner:
        owner.execute(
            "INSERT INTO temperatures SELECT 'B1', room::text, at, 20 FROM generate_series(1, 4) AS room,"
            " generate_series('2024-12-01'::timestamptz, '2024-12-02', '5 s') AS at"
        )
        owner.execute("CALL summarize()")
        query = {**DAY, "end": "2024-12-01T18:00:00Z"}
        headers = {"Authorization": f"Bearer {token}"}
        shown = average.delete("/v1/temperature/readings", params={**query, "dry_run": "true"}, headers=headers).json()
        removed = average.delete("/v1/temperature/readings", params=query, headers=headers).json()
        assert shown["readings"] == removed["removed"] == 4 * 18 * 720
        assert removed["finished"]
        assert average.get("/v1/temperature/average", params=DAY).json()["count"] == 4 * 6 * 720
        [listed] = average.get("/v1/temperature/removals", headers=headers).json()["removals"]
        assert listed == removed


def test_alarms_are_raised_and_sent_through_it(
    serve: Callable[..., TestClient], plain: Urls, pooled: Urls, sink: Sink
) -> None:
    rules = '[{"above": 28}]'
    watch = serve(
        "watch", DATABASE_URL=pooled(WATCHER), DATABASE_POOLER="true", ALARM_RULES=rules, ALARM_SINK_URL=sink.url
    )
    with psycopg.connect(plain(OWNER), autocommit=True) as owner:
        for number in range(6):
            owner.execute("INSERT INTO temperatures VALUES ('B1', '101', now(), %s)", (20 + number % 2 * 10,))
            answer = watch.post("/").json()
            assert (answer["raised"] + answer["cleared"], answer["sent"]) == ((0, 0) if number == 0 else (1, 1))


def test_the_schema_is_made_and_summaries_are_brought_up_to_date_through_it(plain: Urls, pooled: Urls) -> None:
    alembic(plain(OWNER), "downgrade", "base")
    for _ in range(2):
        migrate(pooled(OWNER))
    with psycopg.connect(plain(OWNER), autocommit=True) as owner:
        owner.execute("INSERT INTO temperatures VALUES ('B1', '101', '2024-12-01T12:34:56Z', 22.5)")
        summaries.bring_up_to_date(pooled(OWNER))
        assert owner.execute("SELECT sum(count)::bigint FROM room_hours").fetchall() == [(1,)]
    with connect(pooled(OWNER)) as connection:
        connection.autocommit = True
        # As with a long backlog: more often than psycopg executes a statement before it prepares it.
        for _ in range(10):
            connection.execute("CALL summarize()")


@pytest.mark.parametrize("through", ["the pooler", "nothing"])
def test_whoever_is_frozen_holds_nothing_for_long(
    monkeypatch: pytest.MonkeyPatch, plain: Urls, pooled: Urls, through: str
) -> None:
    url = pooled(WRITER) if through == "the pooler" else plain(WRITER)
    monkeypatch.setenv("DATABASE_URL", url)
    monkeypatch.setenv("DATABASE_POOLER", "true" if through == "the pooler" else "false")
    settings = database.load(connections=1)
    statement = "INSERT INTO temperatures VALUES ('B1', '101', '2024-12-01T12:00:00Z', 22.5)"
    with psycopg.connect(settings.url, **settings.options) as frozen, psycopg.connect(plain(OWNER)) as other:
        frozen.execute("BEGIN")
        if settings.bounds:
            frozen.execute(settings.bounds)
        frozen.execute(statement)
        other.execute("SET lock_timeout = '10s'")
        started = time.monotonic()
        other.execute(statement)
        assert time.monotonic() - started < database.IDLE_TRANSACTION_SECONDS + 2
        with pytest.raises(psycopg.Error):
            frozen.execute("COMMIT")


def test_what_nobody_waits_for_any_more_ends_behind_it(
    serve: Callable[..., TestClient], plain: Urls, pooled: Urls
) -> None:
    environment = {"DATABASE_POOLER": "true", "DEADLINE_SECONDS": "1"}
    ingest = serve("ingest", DATABASE_URL=pooled(WRITER), **environment)
    average = serve("average", DATABASE_URL=pooled(READER), **environment)
    with psycopg.connect(plain(OWNER), autocommit=True) as owner, owner.transaction():
        owner.execute("LOCK TABLE temperatures, rooms")
        assert ingest.post("/", json={**READING, "timestamp": "2024-12-01T12:00:00Z"}).status_code == 503
        assert average.get("/v1/temperature/average", params=DAY).status_code == 503
        active = (
            "SELECT FROM pg_stat_activity"
            " WHERE datname = current_database() AND state = 'active' AND pid <> pg_backend_pid()"
        )
        with psycopg.connect(plain(OWNER), autocommit=True) as observer:
            wait_until(lambda: not observer.execute(active).rowcount, seconds=5)


def test_make_run_says_what_it_needs_behind_it(pooled: Urls, tmp_path: Path) -> None:
    run = python("-m", "local", DATABASE_URL=pooled(OWNER), DATA_DIR=str(tmp_path), PORT=str(free_port()))
    assert run.returncode == 1
    assert run.stderr.endswith("Behind PgBouncer set DATABASE_POOLER=true\n")
    assert "Traceback" not in run.stderr


def test_it_refuses_what_is_asked_of_a_database_that_is_reached_directly(pooled: Urls) -> None:
    with pytest.raises(psycopg.OperationalError, match="unsupported startup parameter: options"):
        psycopg.connect(pooled(READER), options="-c statement_timeout=1000")
