"""Settings with which TimescaleDB leaves a session without what is in chunks, or compressed."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from starlette.testclient import TestClient

from local.postgres import OWNER, READER, WATCHER, WRITER
from migrations.edition import READINGS_ARE_HIDDEN
from shared.settings import SettingError
from tests.support import SUPERUSER, Urls, compress, migrate

BEGIN = datetime.now(UTC) - timedelta(days=9)
HIDING = (
    *(("timescaledb.restoring", "on"), ("timescaledb.disable_load", "on")),
    *(("timescaledb.enable_columnarscan", "off"), ("timescaledb.enable_transparent_decompression", "off")),
)


@contextmanager
def hidden(urls: Urls, setting: str, value: str) -> Iterator[Urls]:
    """The database as sessions find it with the setting, such as between pg_restore and `timescaledb_post_restore()`.

    Skips the test where the version of TimescaleDB has no such setting, and where a database can have none of its own.
    """
    with psycopg.connect(urls(SUPERUSER), autocommit=True) as superuser:
        context = superuser.execute("SELECT context FROM pg_settings WHERE name = %s", (setting,)).fetchone()
        if context == ("user",):
            yield lambda role: make_conninfo(urls(role), options=f"-c {setting}={value}")
        elif context and "TIMESCALE_URL" in os.environ:
            superuser.execute(f"ALTER DATABASE {superuser.info.dbname} SET {setting} = {value}")
            yield urls
            superuser.execute(f"ALTER DATABASE {superuser.info.dbname} RESET {setting}")
        else:
            pytest.skip(f"{setting} cannot be set here")


@pytest.mark.parametrize(("setting", "value"), HIDING)
def test_readings_that_it_hides_are_not_taken_for_none(
    community: Urls, serve: Callable[..., TestClient], setting: str, value: str
) -> None:
    readings = [
        {"building_id": "B1", "room_id": "101", "temperature": temperature, "timestamp": instant.isoformat()}
        for number, temperature in enumerate((20, 31, 20))
        for instant in [BEGIN + number * timedelta(minutes=1)]
    ]
    question = f"/v1/temperature/average?building_id=B1&start={BEGIN:%Y-%m-%dT%H:%M}Z"
    functions = {"DEADLINE_SECONDS": "1", "ALARM_RULES": '[{"above": 28}]'}

    def store(urls: Urls) -> tuple[int, int | None]:
        answer = serve("ingest", DATABASE_URL=urls(WRITER), **functions).post("/", json=readings)
        return answer.status_code, answer.json().get("duplicates")

    def ask(urls: Urls) -> tuple[int, int | None]:
        answer = serve("average", DATABASE_URL=urls(READER), **functions).get(question)
        return answer.status_code, answer.json().get("count")

    def watch(urls: Urls) -> tuple[int, int | None]:
        answer = serve("watch", DATABASE_URL=urls(WATCHER), **functions).post("/")
        return answer.status_code, answer.json().get("raised")

    assert store(community) == (201, 0)
    with psycopg.connect(community(OWNER), autocommit=True) as owner:
        compress(owner)
    with hidden(community, setting, value) as odd:
        assert (store(odd), ask(odd), watch(odd)) == ((503, None),) * 3
        with (
            pytest.raises(psycopg.errors.CannotConnectNow, match="hides readings"),
            psycopg.connect(odd(OWNER), autocommit=True) as owner,
        ):
            owner.execute("CALL summarize()")
        with pytest.raises(SettingError, match=READINGS_ARE_HIDDEN[:40]):
            migrate(odd(OWNER))
    assert (store(community), ask(community), watch(community)) == ((201, 3), (200, 3), (200, 1))
