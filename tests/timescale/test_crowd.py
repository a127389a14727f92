"""Many at once on TimescaleDB, for which it takes a server of many sessions: at TIMESCALE_URL."""

import os
import random
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from starlette.testclient import TestClient

from average.intervals import DAY, HOUR, floor
from local.postgres import OWNER, READER
from migrations.jobs import ENABLE_COLUMNSTORE
from tests.crowd import Crowd
from tests.support import LONG, SUPERUSER, Urls, wait_until

pytestmark = pytest.mark.skipif("TIMESCALE_URL" not in os.environ, reason="PGlite is one session")


def test_each_answer_is_a_state_between_its_question_and_itself(
    community: Urls, serve: Callable[..., TestClient]
) -> None:
    with psycopg.connect(community(OWNER), autocommit=True) as connection:
        connection.execute("SELECT set_chunk_time_interval('temperatures', interval '1 hour')")
        connection.execute("UPDATE upkeep SET retention = NULL")
        connection.execute(ENABLE_COLUMNSTORE)
        average = serve("average", DATABASE_URL=community(READER))
        crowd = Crowd(community, average, random.randrange(10**6), compressing=True)
        crowd.play(60 if LONG else 4)
        connection.execute("SELECT set_chunk_time_interval('temperatures', interval '7 days')")


@pytest.mark.parametrize("room", [{"room_id": "101"}, {}])
def test_no_chunk_is_dropped_under_a_question(
    community: Urls, serve: Callable[..., TestClient], room: dict[str, str]
) -> None:
    start = floor(datetime.now(UTC), DAY) - 30 * DAY
    average = serve("average", DATABASE_URL=community(READER))
    query = {"building_id": "B1", **room, "start": start.isoformat(), "end": (start + HOUR / 2).isoformat()}
    answers = []
    with (
        psycopg.connect(community(OWNER), autocommit=True) as connection,
        psycopg.connect(community(OWNER)) as dropping,
    ):
        connection.execute("UPDATE upkeep SET retention = NULL")
        connection.execute("INSERT INTO temperatures VALUES ('B1', '101', %s, 20.1)", (start + timedelta(minutes=1),))
        connection.execute("CALL summarize()")
        connection.execute("UPDATE upkeep SET retention = interval '480:00'")
        # The question has its snapshot, and waits for the readings.
        dropping.execute("LOCK TABLE temperatures IN ACCESS EXCLUSIVE MODE")
        thread = threading.Thread(
            target=lambda: answers.append(average.get("/v1/temperature/average", params=query).json()["count"])
        )
        thread.start()
        waiting = "SELECT FROM pg_locks WHERE NOT granted AND relation = 'temperatures'::regclass"
        with psycopg.connect(community(SUPERUSER), autocommit=True) as observer:
            wait_until(lambda: observer.execute(waiting).rowcount)
        assert dropping.execute("SELECT drop_expired()").fetchall() == [(False,)]
        dropping.commit()
        thread.join()
        assert answers == [1]
        connection.execute("CALL summarize()")
        assert connection.execute("SELECT count(*) FROM temperatures").fetchall() == [(0,)]
        assert average.get("/v1/temperature/average", params=query).json()["count"] == 1
