"""Wrong readings are removed over HTTP, and with them what was made of them."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from starlette.testclient import TestClient

from local.postgres import ADMIN, OWNER, READER, WRITER
from tests.support import Urls

TOKEN = "an-admin-token-0123456789"
BEARER = {"authorization": f"Bearer {TOKEN}"}
READINGS, ROOMS, REMOVALS = (f"/v1/temperature/{name}" for name in ("readings", "rooms", "removals"))
START = datetime(2024, 10, 20, tzinfo=UTC)
INSERT = "INSERT INTO temperatures VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING"
Serve = Callable[..., TestClient]


@pytest.fixture
def average(plain: Urls, serve: Serve) -> TestClient:
    return serve("average", DATABASE_URL=plain(READER), ADMIN_DATABASE_URL=plain(ADMIN), ADMIN_TOKENS=TOKEN)


@pytest.fixture
def owner(plain: Urls) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(plain(OWNER), autocommit=True) as connection:
        yield connection


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


def store(owner: psycopg.Connection[Any], *rows: tuple[str, str, datetime, float]) -> None:
    with owner.cursor() as cursor:
        cursor.executemany(INSERT, rows)


def remove(client: TestClient, path: str = READINGS, status: int = 200, **query: str | datetime) -> Any:
    answer = client.delete(path, params={name: str(value) for name, value in query.items()}, headers=BEARER)
    assert answer.status_code == status, answer.text
    return answer.json()


def asked(client: TestClient, **query: str | datetime) -> Any:
    answer = client.get("/v1/temperature/average", params={name: str(value) for name, value in query.items()})
    return tuple(answer.json()[name] for name in ("count", "average_temperature", "min", "max"))


EVERYTHING = {"start": START - timedelta(days=400), "end": START + timedelta(days=400)}


@pytest.mark.parametrize("summed_up", [True, False])
def test_what_is_removed_is_gone_from_readings_averages_and_rooms(
    average: TestClient, owner: psycopg.Connection[Any], summed_up: bool
) -> None:
    store(owner, *(("B1", "101", at(10 * number), 20.0 + number % 2) for number in range(60)))
    store(owner, *(("B1", "102", at(10 * number), 10.0) for number in range(60)))
    if summed_up:
        owner.execute("CALL summarize()")
    query = {"building_id": "B1", "room_id": "101", "start": at(90), "end": at(600)}
    shown = remove(average, **query, dry_run="true")
    assert shown["readings"] == 51
    assert shown["rooms"] == [
        {"room_id": "101", "readings": 51, "first": "2024-10-20T01:30:00Z", "last": "2024-10-20T09:50:00Z"}
    ]
    assert asked(average, building_id="B1", **EVERYTHING)[0] == 120
    removal = remove(average, **query, reason="the sensor was on the heater")
    assert removal["removed"] == 51 and removal["finished"]
    assert asked(average, building_id="B1", room_id="101", **EVERYTHING) == (9, pytest.approx(184 / 9), 20.0, 21.0)
    assert asked(average, building_id="B1", **EVERYTHING) == (69, pytest.approx(784 / 69), 10.0, 21.0)
    latest = {room["room_id"]: room["latest"] for room in average.get(ROOMS).json()["rooms"]}
    assert latest["101"] == {"temperature": 20.0, "timestamp": "2024-10-20T01:20:00Z"}
    [listed] = average.get(REMOVALS, headers=BEARER).json()["removals"]
    assert listed == removal
    assert (listed["reason"], len(listed["asked_by"])) == ("the sensor was on the heater", 12)
    assert TOKEN not in str(listed)


def test_only_readings_beyond_the_limits_are_removed(average: TestClient, owner: psycopg.Connection[Any]) -> None:
    store(owner, *(("B1", "101", at(number), float(number - 30)) for number in range(60)))
    owner.execute("CALL summarize()")
    query = {"building_id": "B1", **EVERYTHING}
    assert remove(average, **query, above="19.5", below="-20")["removed"] == 20
    assert asked(average, **query) == (40, -0.5, -20.0, 19.0)


def test_a_room_and_a_building_can_be_forgotten(average: TestClient, owner: psycopg.Connection[Any]) -> None:
    store(owner, *((building, room, at(10 * n), 20.0 + n) for n in range(20) for building in "AB" for room in "12"))
    owner.execute("CALL summarize()")
    assert remove(average, ROOMS, building_id="A", room_id="1", dry_run="true")["readings"] == 20
    assert remove(average, ROOMS, building_id="A", room_id="1")["removed"] == 20
    rooms = [(room["building_id"], room["room_id"]) for room in average.get(ROOMS).json()["rooms"]]
    assert rooms == [("A", "2"), ("B", "1"), ("B", "2")]
    assert remove(average, ROOMS, building_id="B")["removed"] == 40
    assert asked(average, building_id="B", **EVERYTHING)[0] == 0
    assert asked(average, building_id="A", **EVERYTHING)[0] == 20
    for table in ("rooms", "room_hours", "room_days", "building_hours", "building_days"):
        assert owner.execute(f"SELECT DISTINCT building_id FROM {table}").fetchall() == [("A",)]
    assert remove(average, ROOMS, building_id="B", keep_out="0")["removed"] == 0


def test_what_was_removed_does_not_come_back_for_as_long_as_it_is_kept_out(
    average: TestClient, owner: psycopg.Connection[Any], plain: Urls, serve: Serve
) -> None:
    ingest = serve("ingest", DATABASE_URL=plain(WRITER))
    rows = [
        {"building_id": "B1", "room_id": room, "timestamp": at(n).isoformat(), "temperature": 20.0 + n}
        for n in range(6)
        for room in ("101", "102")
    ]
    assert ingest.post("/", json=rows).status_code == 201
    query = {"building_id": "B1", "room_id": "101", "start": at(2), "end": at(4)}
    assert remove(average, **query)["removed"] == 2
    before = owner.execute("SELECT * FROM rooms ORDER BY room_id").fetchall()
    for _ in range(2):
        assert ingest.post("/", json=rows).json()["accepted"] == 12
        assert ingest.post("/", json=rows[4]).status_code == 201
    assert asked(average, building_id="B1", **EVERYTHING)[0] == 10
    assert owner.execute("SELECT * FROM rooms ORDER BY room_id").fetchall() == before
    # Asked for again, and for no time.
    assert remove(average, **query, keep_out="0")["removed"] == 0
    ingest.post("/", json=rows)
    assert asked(average, building_id="B1", **EVERYTHING)[0] == 12


def test_a_room_that_was_forgotten_begins_anew(
    average: TestClient, owner: psycopg.Connection[Any], plain: Urls, serve: Serve
) -> None:
    ingest = serve("ingest", DATABASE_URL=plain(WRITER))
    old = {"building_id": "B1", "room_id": "101", "timestamp": at(0).isoformat(), "temperature": 20.0}
    ingest.post("/", json=old)
    remove(average, ROOMS, building_id="B1")
    assert ingest.post("/", json=old).status_code == 201
    assert average.get(ROOMS).json()["rooms"] == []
    new = {**old, "timestamp": (datetime.now(UTC) + timedelta(seconds=1)).isoformat()}
    assert ingest.post("/", json=[old, new]).status_code == 201
    assert owner.execute("SELECT count(*) FROM temperatures").fetchall() == [(1,)]
