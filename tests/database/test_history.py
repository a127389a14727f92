"""On plain PostgreSQL, every answer is what a model in Python says, whatever happens in whatever order."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path

import psycopg
import pytest
from starlette.testclient import TestClient

from local.backup import newest
from local.postgres import DATABASE, OWNER, PROGRAMS, WRITER, Postgres
from local.restore import restore
from tests import history
from tests.local.backups import backed_up, lost, received
from tests.local.machine import place
from tests.support import SUPERUSER, Urls, embedded, migrate, wait_until


@pytest.mark.parametrize("zone", history.ZONES)
def test_every_answer_is_exact_whatever_happened_before(
    plain: Urls, serve: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch, zone: str
) -> None:
    monkeypatch.setenv("PGTZ", zone)
    ingests = [serve("ingest", DATABASE_URL=plain(WRITER)) for _ in range(2)]
    average = history.served(serve, plain)
    history.play(history.World(plain, average, ingests, hypertable=False, at_once=True), examples=5)


@pytest.mark.long
def test_every_answer_is_exact_although_the_server_crashes(
    tmp_path: Path, serve: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGTZ", history.ZONES[0])
    log = tmp_path / "postgres.log"
    with embedded(tmp_path / "postgres", log=log) as server:

        def recoveries() -> int:
            return log.read_text().count("ready to accept connections")

        def crash() -> None:
            """Kill a session without a word: the server ends all others, and recovers from its log."""
            before = recoveries()
            with psycopg.connect(server.url(SUPERUSER)) as victim:
                os.kill(victim.info.backend_pid, signal.SIGKILL)
            wait_until(lambda: recoveries() > before)

        ingests = [serve("ingest", DATABASE_URL=server.url(WRITER)) for _ in range(2)]
        average = history.served(serve, server.url)
        world = history.World(server.url, average, ingests, hypertable=False, at_once=True, crash=crash)
        history.play(world, examples=2)


@pytest.mark.long
def test_every_answer_is_exact_although_disks_are_lost_and_the_database_is_moved(
    serve: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGTZ", history.ZONES[0])
    with place() as folder, embedded(folder / "postgres", log=folder / "log") as server, ExitStack() as keeping:
        backups = folder / "elsewhere"

        def keep() -> None:
            keeping.enter_context(backed_up(server, backups))
            wait_until(lambda: newest(backups) is not None)

        def bring_back() -> None:
            with psycopg.connect(server.url(SUPERUSER), autocommit=True) as connection:
                connection.execute("SELECT pg_logical_emit_message(true, 'temperature', '')")
            wait_until(lambda: received(server, backups), seconds=60)
            lost(server)
            keeping.close()
            restore(server, backups, None)
            keep()

        def copy() -> None:
            keeping.close()
            server.process.send_signal(signal.SIGINT)
            server.process.wait()
            subprocess.run(["cp", "-a", server.folder, folder / "copy"], check=True)
            shutil.rmtree(server.folder)
            (folder / "copy").rename(server.folder)
            server.start()
            keep()

        ways: Iterator[Callable[[], None]] = cycle(
            [bring_back, copy, lambda: dump_and_restore(server, folder / "dump")]
        )
        ingests = [serve("ingest", DATABASE_URL=server.url(WRITER)) for _ in range(2)]
        average = history.served(serve, server.url)
        keep()
        world = history.World(server.url, average, ingests, hypertable=False, at_once=True, crash=lambda: next(ways)())
        history.play(world, examples=2, steps=40)


def dump_and_restore(server: Postgres, file: Path) -> None:
    """Put a dump of the database in its place. The migrations find nothing to do."""

    def schema() -> list[str]:
        command = [str(PROGRAMS / "pg_dump"), "--schema-only", "--dbname", server.url(SUPERUSER)]
        dumped = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        # Of these each dump has its own.
        return [line for line in dumped.splitlines() if not line.startswith(("\\restrict", "\\unrestrict"))]

    before = schema()
    subprocess.run(
        [str(PROGRAMS / "pg_dump"), "--format=custom", "--file", str(file), server.url(SUPERUSER)], check=True
    )
    with psycopg.connect(server.url(SUPERUSER, "postgres"), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)")
        connection.execute(f"CREATE DATABASE {DATABASE} OWNER {OWNER}")
    restoring = [str(PROGRAMS / "pg_restore"), "--exit-on-error", "--dbname", server.url(SUPERUSER), str(file)]
    subprocess.run(restoring, check=True)
    assert schema() == before
    migrate(server.url(OWNER))
    assert schema() == before
