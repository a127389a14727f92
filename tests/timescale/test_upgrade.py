"""A database of the version before, with its continuous aggregates, is brought to the newest schema while in use."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from starlette.testclient import TestClient

from average.intervals import DAY, floor
from local.postgres import OWNER, READER
from tests import upgrade
from tests.exactness import assert_exact
from tests.support import Urls, alembic, migrate

TODAY = floor(datetime.now(UTC), DAY)
START = TODAY - 30 * DAY
SQL = (Path(__file__).parent / "version_0003.sql").read_text()
AVERAGES = ["avg_temperature_time_interval", "avg_temperature_hourly", "avg_temperature_daily"]


@pytest.fixture
def before(community: Urls) -> Iterator[Urls]:
    """A database of the version before."""
    upgrade.version_before(community)
    with psycopg.connect(community(OWNER), autocommit=True) as connection:
        for statement in SQL.split(";\n"):
            connection.execute(statement)
    yield community
    migrate(community(OWNER))
    alembic(community(OWNER), "downgrade", "base")
    migrate(community(OWNER))


def test_readings_and_averages_of_readings_that_were_dropped_are_carried_over(
    before: Urls, serve: Callable[..., TestClient]
) -> None:
    with psycopg.connect(before(OWNER), autocommit=True) as connection:
        rows = [("B1", f"{100 + number % 5}", START + number * timedelta(minutes=33), 20.1) for number in range(1200)]
        dropped = [
            *(("B1", "101", START - 40 * DAY + minute * timedelta(minutes=1), 0.1) for minute in range(10)),
            ("B1", "alone", START - 39 * DAY, 22.123456789012345),
        ]
        upgrade.store(connection, dropped)
        upgrade.store(connection, rows)
        for name in AVERAGES:
            connection.execute(f"CALL refresh_continuous_aggregate('{name}', NULL, NULL)")
        connection.execute("SELECT drop_chunks('temperatures', older_than => %s::timestamptz)", (START - 14 * DAY,))
        with upgrade.still_written_to(before, START) as stored:
            migrate(before(OWNER))
            connection.execute("CALL summarize()")
        average = serve("average", DATABASE_URL=before(READER))
        for _ in range(2):
            assert_exact(average, connection, START - DAY, TODAY + DAY)
            query = {"building_id": "B1", "start": (START - 41 * DAY).isoformat(), "end": (START - DAY).isoformat()}
            for room, known in (("101", (10, 0.1, 0.1, 0.1)), ("alone", (1, *[22.123456789012345] * 3))):
                answer = average.get("/v1/temperature/average", params={**query, "room_id": room}).json()
                assert tuple(answer[name] for name in ("count", "average_temperature", "min", "max")) == known
            whole = {**query, "end": (TODAY + DAY).isoformat()}
            answer = average.get("/v1/temperature/average", params=whole).json()
            assert answer["count"] == len(rows) + len(dropped) + len(stored)
            connection.execute("CALL summarize()")
        listed = average.get("/v1/temperature/rooms").json()["rooms"]
        assert {"101", "alone"} <= {room["room_id"] for room in listed}
