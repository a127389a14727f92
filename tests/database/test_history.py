"""On plain PostgreSQL, every answer is what a model in Python says, whatever happens in whatever order."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from starlette.testclient import TestClient

from local.postgres import WRITER
from tests import history
from tests.support import SUPERUSER, Urls, embedded, wait_until


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
