"""Alarms on TimescaleDB, whose readings lie in chunks and in the columnstore."""

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from hypothesis import strategies as st
from starlette.testclient import TestClient

from local.postgres import OWNER, READER, WATCHER
from tests.excursions import HOUR, RULES, STEPS, STEPS_OF_ONE_SESSION, play
from tests.sink import Sink
from tests.support import Urls, examples, migrate

NOW = datetime.now(UTC)


def test_alarms_are_raised_cleared_sent_and_shown(
    community: Urls, serve: Callable[..., TestClient], sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNSTORE_AFTER_DAYS", "7")
    migrate(community(OWNER))
    watch = serve(
        "watch",
        DATABASE_URL=community(WATCHER),
        ALARM_RULES='[{"building_id": "B1", "above": 28}, {"silent": "1h"}]',
        ALARM_SINK_URL=sink.url,
    )

    def store(room: str, *readings: tuple[timedelta, float]) -> None:
        with psycopg.connect(community(OWNER), autocommit=True) as connection:
            for age, temperature in readings:
                connection.execute("INSERT INTO temperatures VALUES ('B1', %s, %s, %s)", (room, NOW - age, temperature))

    def checked() -> tuple[int, int, int]:
        answer = watch.post("/")
        assert answer.status_code == 200, answer.text
        return answer.json()["raised"], answer.json()["cleared"], answer.json()["sent"]

    store("101", *((timedelta(days=day), 20) for day in range(1, 40)))
    store("102", (timedelta(days=39), 40))
    with psycopg.connect(community(OWNER), autocommit=True) as connection:
        (job,) = connection.execute(
            "SELECT job_id FROM timescaledb_information.jobs WHERE proc_name = 'compress'"
        ).fetchall()
        connection.execute(f"CALL run_job({job[0]})")
    # A reading of 39 days ago counts too.
    assert checked() == (3, 0, 3)
    store("101", (timedelta(minutes=9), 29), (timedelta(minutes=8), 20), (timedelta(minutes=7), 30))
    assert checked() == (2, 2, 4)
    assert checked() == (0, 0, 0)
    average = serve("average", DATABASE_URL=community(READER))
    alarms = average.get("/v1/temperature/alarms").json()["alarms"]
    assert sorted((alarm["room_id"], alarm["kind"], alarm["cleared"] is None) for alarm in alarms) == [
        ("101", "high", False),
        ("101", "high", True),
        ("101", "silent", False),
        ("102", "high", True),
        ("102", "silent", True),
    ]


def test_each_excursion_is_told_once_whatever_happens(community: Urls, serve: Callable[..., TestClient]) -> None:
    # In WebAssembly there is one session, so that nothing is killed and nothing is done at once.
    steps = STEPS if os.environ.get("TIMESCALE_URL") else st.lists(STEPS_OF_ONE_SESSION, min_size=2, max_size=10)
    play(community, serve, RULES[2], HOUR, examples(6), steps)
