"""Wrong readings are removed over HTTP, and with them what was made of them."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from cloudevents.http import CloudEvent
from starlette.testclient import TestClient

from average.removals import TOO_MANY_TO_COUNT
from local.postgres import ADMIN, OWNER, READER, WATCHER, WRITER
from shared.readings import written
from tests.sink import Sink
from tests.support import NOWHERE, Urls, slow_down, unconfirmed, wait_until

TOKEN = "an-admin-token-0123456789"
BEARER = {"authorization": f"Bearer {TOKEN}"}
READINGS, ROOMS, REMOVALS = (f"/v1/temperature/{name}" for name in ("readings", "rooms", "removals"))
START = datetime(2024, 10, 20, tzinfo=UTC)
INSERT = "INSERT INTO temperatures VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING"
Serve = Callable[..., TestClient]


def served(serve: Serve, plain: Urls, **settings: str) -> TestClient:
    """The function `average`, which lets those who have TOKEN remove readings."""
    own = {"DATABASE_URL": plain(READER), "ADMIN_DATABASE_URL": plain(ADMIN), "ADMIN_TOKENS": TOKEN}
    return serve("average", **own, **settings)


@pytest.fixture
def average(plain: Urls, serve: Serve) -> TestClient:
    return served(serve, plain)


@pytest.fixture
def owner(plain: Urls) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(plain(OWNER), autocommit=True) as connection:
        yield connection


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


def store(owner: psycopg.Connection[Any], *rows: tuple[str, str, datetime, float]) -> None:
    with owner.cursor() as cursor:
        cursor.executemany(INSERT, rows)


def remove(client: TestClient, path: str = READINGS, status: int = 200, **query: Any) -> Any:
    answer = client.delete(path, params={name: str(value) for name, value in query.items()}, headers=BEARER)
    assert answer.status_code == status, answer.text
    return answer.json()


def data(event: CloudEvent) -> dict[str, Any]:
    found = event.get_data()
    assert isinstance(found, dict)
    return found


def asked(client: TestClient, **query: Any) -> Any:
    answer = client.get("/v1/temperature/average", params={name: str(value) for name, value in query.items()})
    return tuple(answer.json()[name] for name in ("count", "average_temperature", "min", "max"))


EVERYTHING: dict[str, Any] = {"start": START - timedelta(days=400), "end": START + timedelta(days=400)}


@pytest.mark.parametrize(("limits", "left"), [({"below": 12}, (3, 15.0, 30.0)), ({"above": 25}, (3, 10.0, 20.0))])
def test_a_building_has_the_extremes_that_are_left(
    average: TestClient, owner: psycopg.Connection[Any], limits: dict[str, Any], left: tuple[int, float, float]
) -> None:
    store(owner, ("B1", "101", at(0), 10.0), ("B1", "101", at(10), 20.0))
    store(owner, ("B1", "102", at(0), 15.0), ("B1", "102", at(10), 30.0))
    owner.execute("CALL summarize()")
    assert remove(average, building_id="B1", **EVERYTHING, **limits)["finished"]
    count, _, lowest, highest = asked(average, building_id="B1", **EVERYTHING)
    assert (count, lowest, highest) == left


def test_a_removal_that_no_other_copy_has_is_not_said_to_be_done(
    average: TestClient, owner: psycopg.Connection[Any], plain: Urls
) -> None:
    store(owner, ("B1", "101", at(0), 20.0))
    with unconfirmed(plain):
        problem = remove(average, status=503, building_id="B1", **EVERYTHING)
    assert problem["detail"] == "The database does not answer; ask again, which goes on with what was begun"
    assert wait_until(lambda: remove(average, building_id="B1", **EVERYTHING))["finished"]


def test_a_removal_that_cannot_begin_says_so_within_the_deadline(
    serve: Serve, owner: psycopg.Connection[Any], plain: Urls
) -> None:
    function = served(serve, plain, DEADLINE_SECONDS="2")
    with owner.transaction():
        owner.execute("SELECT FROM upkeep FOR UPDATE")
        problem = remove(function, status=503, building_id="B1", **EVERYTHING)
    assert problem["detail"] == "The database is busy; ask again"
    assert remove(function, building_id="B1", **EVERYTHING)["finished"]


def test_who_cannot_connect_to_remove_is_told_what_to_look_at(serve: Serve, plain: Urls) -> None:
    function = serve("average", DATABASE_URL=plain(READER), ADMIN_DATABASE_URL=NOWHERE, ADMIN_TOKENS=TOKEN)
    problem = remove(function, status=503, building_id="B1", **EVERYTHING)
    assert problem["detail"].startswith("The database lets nobody in with ADMIN_DATABASE_URL, or does not answer;")


@pytest.mark.parametrize("summed_up", [True, False])
def test_what_is_removed_is_gone_from_readings_averages_and_rooms(
    average: TestClient, owner: psycopg.Connection[Any], summed_up: bool
) -> None:
    store(owner, *(("B1", "101", at(10 * number), 20.0 + number % 2) for number in range(60)))
    store(owner, *(("B1", "102", at(10 * number), 10.0) for number in range(60)))
    if summed_up:
        owner.execute("CALL summarize()")
    query: dict[str, Any] = {"building_id": "B1", "room_id": "101", "start": at(90), "end": at(600)}
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


def test_only_readings_beyond_the_limits_are_removed_and_kept_out(
    average: TestClient, owner: psycopg.Connection[Any]
) -> None:
    store(owner, *(("B1", "101", at(number), float(number - 30)) for number in range(60)))
    owner.execute("CALL summarize()")
    query: dict[str, Any] = {"building_id": "B1", **EVERYTHING}
    assert remove(average, **query, above="19.5", below="-20")["removed"] == 20
    assert asked(average, **query) == (40, -0.5, -20.0, 19.0)
    store(owner, *(("B1", room, at(number), float(number - 30)) for number in range(60) for room in ("101", "102")))
    assert asked(average, **query) == (80, -0.5, -20.0, 19.0)


def test_a_room_and_a_building_can_be_forgotten(average: TestClient, owner: psycopg.Connection[Any]) -> None:
    store(owner, *((building, room, at(600 * n), 20.0 + n) for n in range(20) for building in "AB" for room in "12"))
    owner.execute("CALL summarize()")
    assert remove(average, ROOMS, building_id="A", room_id="1", dry_run="true")["readings"] == 20
    assert remove(average, ROOMS, building_id="A", room_id="1")["removed"] == 20
    rooms = [(room["building_id"], room["room_id"]) for room in average.get(ROOMS).json()["rooms"]]
    assert rooms == [("A", "2"), ("B", "1"), ("B", "2")]
    assert remove(average, ROOMS, building_id="B")["removed"] == 40
    assert asked(average, building_id="B", **EVERYTHING)[0] == 0
    assert asked(average, building_id="A", **EVERYTHING)[0] == 20
    for table in ("rooms", "room_hours", "room_days", "room_weeks", "building_hours", "building_days"):
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
    query: dict[str, Any] = {"building_id": "B1", "room_id": "101", "start": at(2), "end": at(4)}
    assert remove(average, **query)["removed"] == 2
    before = owner.execute("SELECT * FROM rooms ORDER BY room_id").fetchall()
    for _ in range(2):
        assert ingest.post("/", json=rows).json()["accepted"] == 12
        assert ingest.post("/", json=rows[4]).status_code == 201
    assert asked(average, building_id="B1", **EVERYTHING)[0] == 10
    assert owner.execute("SELECT * FROM rooms ORDER BY room_id").fetchall() == before
    # Others end that for themselves alone.
    for other in (
        {"start": at(3)},
        {"end": at(3)},
        {"above": 50},
        {"below": 0},
        {"room_id": "102"},
        {"building_id": "B2"},
    ):
        remove(average, **query | other, keep_out="0")
    ingest.post("/", json=rows)
    assert asked(average, building_id="B1", **EVERYTHING)[0] == 10
    # Asked for again, and for no time.
    assert remove(average, **query, keep_out="0")["removed"] == 0
    ingest.post("/", json=rows)
    assert asked(average, building_id="B1", **EVERYTHING)[0] == 12


def test_what_is_measured_at_the_end_of_a_removal_is_not_kept_out(
    average: TestClient, owner: psycopg.Connection[Any]
) -> None:
    store(owner, ("B1", "101", at(0), 20.0))
    assert remove(average, building_id="B1", start=at(0), end=at(60))["removed"] == 1
    # By one statement, as a group of `ingest` is stored.
    owner.execute("INSERT INTO temperatures VALUES ('B1', '101', %s, 20), ('B1', '101', %s, 21)", (at(59), at(60)))
    assert owner.execute("SELECT temperature FROM temperatures").fetchall() == [(21.0,)]


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


def test_a_token_for_it_is_needed_to_remove_readings(average: TestClient, owner: psycopg.Connection[Any]) -> None:
    store(owner, ("B1", "101", at(0), 20.0))
    query: dict[str, Any] = {"building_id": "B1", **{name: value.isoformat() for name, value in EVERYTHING.items()}}
    others: list[dict[str, str]] = [{}, {"authorization": "Bearer a-read-token-0123456789"}]
    for headers in others:
        assert average.delete(READINGS, params=query, headers=headers).status_code == 401
        assert average.delete(ROOMS, params={"building_id": "B1"}, headers=headers).status_code == 401
        assert average.get(REMOVALS, headers=headers).status_code == 401
    assert owner.execute("SELECT FROM temperatures").rowcount == 1


def test_nobody_removes_readings_where_the_settings_list_no_token_for_it(
    owner: psycopg.Connection[Any], plain: Urls, serve: Serve
) -> None:
    store(owner, ("B1", "101", at(0), 20.0))
    off = serve("average", DATABASE_URL=plain(READER), ADMIN_DATABASE_URL=plain(ADMIN))
    answer = off.delete(ROOMS, params={"building_id": "B1"}, headers=BEARER)
    assert answer.status_code == 403
    assert "ADMIN_TOKENS" in answer.json()["detail"]
    assert 'function="average",reason="off",status="403"' in off.get("/metrics").text
    assert owner.execute("SELECT FROM temperatures").rowcount == 1


@pytest.mark.parametrize(("days", "stored"), [("0", 1), ("3", 0)])
def test_the_settings_say_how_long_what_was_removed_does_not_come_back(
    owner: psycopg.Connection[Any], plain: Urls, serve: Serve, days: str, stored: int
) -> None:
    urls = {"DATABASE_URL": plain(READER), "ADMIN_DATABASE_URL": plain(ADMIN)}
    average = serve("average", **urls, ADMIN_TOKENS=TOKEN, REMOVED_FOR_DAYS=days)
    store(owner, ("B1", "101", at(0), 20.0))
    remove(average, building_id="B1", start=at(0), end=at(1))
    store(owner, ("B1", "101", at(0), 20.0))
    assert owner.execute("SELECT FROM temperatures").rowcount == stored


def test_who_asked_is_told_by_the_token(plain: Urls, serve: Serve) -> None:
    another = "another-admin-token-01234"
    tokens = {"ADMIN_DATABASE_URL": plain(ADMIN), "ADMIN_TOKENS": f"{TOKEN} {another}"}
    client = serve("average", DATABASE_URL=plain(READER), **tokens)
    query: dict[str, Any] = {"building_id": "B1", **{name: value.isoformat() for name, value in EVERYTHING.items()}}
    for token in (TOKEN, another):
        answer = client.delete(READINGS, params=query, headers={"authorization": f"Bearer {token}"})
        assert answer.status_code == 200
    first, second = client.get(REMOVALS, headers=BEARER).json()["removals"]
    assert first["asked_by"] != second["asked_by"]


def test_a_role_that_may_not_remove_is_told_what_misses(
    owner: psycopg.Connection[Any], plain: Urls, serve: Serve
) -> None:
    store(owner, ("B1", "101", at(0), 20.0))
    reader = serve("average", DATABASE_URL=plain(READER), ADMIN_TOKENS=TOKEN)
    problem = remove(reader, status=503, building_id="B1", **EVERYTHING)
    assert "ADMIN_ROLE" in problem["detail"]
    assert owner.execute("SELECT FROM temperatures").rowcount == 1


def test_an_interval_of_which_readings_were_dropped_is_refused_and_a_room_is_forgotten(
    average: TestClient, owner: psycopg.Connection[Any]
) -> None:
    store(owner, *(("B1", "101", at(10 * number), 20.0) for number in range(60)))
    owner.execute("UPDATE upkeep SET retention = '1 day'")
    owner.execute("CALL summarize()")
    problem = remove(average, status=409, building_id="B1", start=at(0), end=at(60))
    assert "RETENTION_DAYS" in problem["detail"]
    assert asked(average, building_id="B1", **EVERYTHING)[0] == 60
    now = datetime.now(UTC)
    store(owner, ("B1", "101", now, 20.0))
    # An hour of which only the summary is left counts where it begins.
    share = {"room_id": "101", "readings": 61, "first": "2024-10-20T00:00:00Z", "last": written(now)}
    assert remove(average, ROOMS, building_id="B1", dry_run="true")["rooms"] == [share]
    assert remove(average, ROOMS, building_id="B1")["finished"]
    assert asked(average, building_id="B1", **EVERYTHING)[0] == 0


def test_a_room_that_is_forgotten_takes_its_extremes_along_however_many_of_its_hours_were_dropped(
    average: TestClient, owner: psycopg.Connection[Any]
) -> None:
    # More than a step forgets. Each hour of the building has its lowest or its highest reading in this room.
    owner.execute(
        "INSERT INTO temperatures SELECT 'B1', room, %s::timestamptz + hour * interval '1 hour', degrees[hour %% 2 + 1]"
        " FROM (VALUES ('101', ARRAY[10, 30]), ('102', ARRAY[20, 20])) AS of (room, degrees)"
        " CROSS JOIN generate_series(1, 600) AS hour",
        (START,),
    )
    owner.execute("UPDATE upkeep SET retention = '1 day'")
    owner.execute("CALL summarize()")
    assert owner.execute("SELECT FROM temperatures").rowcount == 0
    assert remove(average, ROOMS, building_id="B1", room_id="101")["finished"]
    assert asked(average, building_id="B1", **EVERYTHING) == (600, 20.0, 20.0, 20.0)


@pytest.mark.parametrize("by_hand", ["room_id = '101'", "room_id = '101' AND timestamp < '2024-10-20 12:00+00'"])
def test_what_somebody_deleted_by_hand_is_forgotten_with_its_room(
    average: TestClient, owner: psycopg.Connection[Any], by_hand: str
) -> None:
    for room, degrees in (("101", 10.0), ("102", 20.0)):
        store(owner, *(("B1", room, at(60 * hour), degrees + hour) for hour in range(24)))
    owner.execute("CALL summarize()")
    owner.execute(f"DELETE FROM temperatures WHERE {by_hand}")
    # Their summaries stay, and their room with these.
    assert remove(average, building_id="B1", room_id="101", **EVERYTHING)["finished"]
    assert [room["room_id"] for room in average.get(ROOMS).json()["rooms"]] == ["101", "102"]
    assert remove(average, ROOMS, building_id="B1", room_id="101")["finished"]
    assert [room["room_id"] for room in average.get(ROOMS).json()["rooms"]] == ["102"]
    assert asked(average, building_id="B1", **EVERYTHING) == (24, 31.5, 20.0, 43.0)
    assert remove(average, ROOMS, building_id="B1")["removed"] == 24
    for table in ("room_hours", "room_days", "room_weeks", "building_hours", "building_days", "rooms"):
        assert owner.execute(f"SELECT * FROM {table}").fetchall() == [], table


def test_what_is_left_of_a_room_that_somebody_deleted_by_hand_holds_up_nothing(
    average: TestClient, owner: psycopg.Connection[Any]
) -> None:
    store(owner, ("B1", "101", at(0), 10.0), ("B1", "102", at(0), 20.0))
    owner.execute("CALL summarize()")
    owner.execute("DELETE FROM temperatures WHERE room_id = '101'; DELETE FROM rooms WHERE room_id = '101'")
    assert remove(average, building_id="B1", room_id="102", **EVERYTHING)["finished"]
    store(owner, ("B1", "103", at(0), 30.0))
    owner.execute("CALL summarize()")
    assert owner.execute("SELECT * FROM unsummarized").fetchall() == []


def test_a_removal_that_fails_does_not_keep_summaries_waiting(
    average: TestClient, owner: psycopg.Connection[Any]
) -> None:
    owner.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'not %', OLD.room_id USING ERRCODE = 'check_violation'; END $$"
    )
    owner.execute("CREATE TRIGGER mine BEFORE DELETE ON temperatures FOR EACH ROW EXECUTE FUNCTION refuse()")
    store(owner, ("B1", "101", at(0), 20.0))
    remove(average, building_id="B1", status=503, **EVERYTHING)
    owner.execute("CALL summarize()")
    assert asked(average, building_id="B1", **EVERYTHING)[0] == 1
    assert owner.execute("SELECT * FROM unsummarized").fetchall() == []
    owner.execute("DROP TRIGGER mine ON temperatures")
    owner.execute("CALL summarize()")
    assert asked(average, building_id="B1", **EVERYTHING)[0] == 0


def test_of_what_is_left_the_highest_reading_of_the_last_instant_is_the_latest(
    average: TestClient, owner: psycopg.Connection[Any]
) -> None:
    store(owner, *(("B1", "101", at(0), temperature) for temperature in (22.0, 25.0, 20.0)))
    store(owner, ("B1", "101", at(1), 30.0))
    remove(average, building_id="B1", start=at(1), end=at(2))
    [room] = average.get("/v1/temperature/rooms").json()["rooms"]
    assert room["latest"]["temperature"] == 25.0


def test_only_an_interval_that_touches_dropped_readings_is_refused(
    average: TestClient, owner: psycopg.Connection[Any]
) -> None:
    store(owner, ("B1", "101", at(0), 20.0))
    owner.execute("UPDATE upkeep SET retention = '1 day'")
    owner.execute("CALL summarize()")
    remove(average, status=409, building_id="B1", start=at(59), end=at(120))
    assert remove(average, building_id="B1", start=at(60), end=at(120))["removed"] == 0
    # One that came late, which will be summed up and dropped.
    store(owner, ("B1", "101", at(180), 20.0))
    remove(average, status=409, building_id="B1", start=at(180), end=at(181))


def test_many_readings_are_removed_little_by_little_and_whoever_asks_again_sees_it_through(
    owner: psycopg.Connection[Any], plain: Urls, serve: Serve
) -> None:
    owner.execute(
        "INSERT INTO temperatures SELECT 'B1', room::text, at, 20 FROM generate_series(1, 4) AS room,"
        " generate_series(%s::timestamptz, %s, '10 s') AS at",
        (START, START + timedelta(days=3)),
    )
    owner.execute("CALL summarize()")
    average = served(serve, plain, DEADLINE_SECONDS="1")
    query: dict[str, Any] = {
        "building_id": "B1",
        "start": START.isoformat(),
        "end": (START + timedelta(days=4)).isoformat(),
    }
    removed = -1
    for _ in range(200):
        answer = average.delete(READINGS, params=query, headers=BEARER)
        assert answer.status_code in {200, 202}, answer.text
        assert answer.json()["removed"] > removed
        removed = answer.json()["removed"]
        left = owner.execute("SELECT FROM temperatures").rowcount
        assert removed + left == 4 * (3 * 8640 + 1)
        assert asked(average, building_id="B1", **EVERYTHING)[0] == left
        if answer.status_code == 200:
            break
    assert left == 0
    assert len(average.get(REMOVALS, headers=BEARER).json()["removals"]) == 1


def test_an_alarm_of_a_reading_that_was_removed_is_withdrawn(
    average: TestClient, owner: psycopg.Connection[Any], plain: Urls, serve: Serve, sink: Sink
) -> None:
    rules = '[{"building_id": "B1", "above": 30}]'
    watch = serve("watch", DATABASE_URL=plain(WATCHER), ALARM_RULES=rules, ALARM_SINK_URL=sink.url)
    now = datetime.now(UTC)
    store(owner, ("B1", "101", now - timedelta(minutes=9), 20.0), ("B1", "102", now - timedelta(minutes=9), 20.0))
    assert watch.post("/watch").status_code == 200
    # One sensor in the sun for a moment, and a room that is really too warm.
    store(owner, ("B1", "101", now - timedelta(minutes=5), 45.0))
    store(owner, ("B1", "102", now - timedelta(minutes=5), 45.0), ("B1", "102", now - timedelta(minutes=4), 31.0))
    assert watch.post("/watch").json()["raised"] == 2
    # Its time has not come.
    store(owner, ("B1", "101", now + timedelta(hours=1), 45.0))
    interval: dict[str, Any] = {"start": now - timedelta(minutes=6), "end": now - timedelta(minutes=4.5)}
    assert remove(average, building_id="B1", **interval, above=40)["removed"] == 2
    left = average.get("/v1/temperature/alarms").json()
    assert [(alarm["room_id"], alarm["temperature"]) for alarm in left["alarms"]] == [("102", 31.0)]
    assert left["open"] == 1
    for _ in range(2):
        assert watch.post("/watch").json()["raised"] == 0
    assert {event["dataschema"] for event in sink.events} == {"http://testserver/watch/alarm.v1.json"}
    events = [*map(data, sink.events)]
    told = sorted((event["room_id"], event["state"]) for event in events)
    assert told == [("101", "cleared"), ("101", "raised"), ("102", "raised")]
    [over] = [event["cleared"] for event in events if event["state"] == "cleared"]
    assert now < datetime.fromisoformat(over) < datetime.now(UTC), "when it was removed"
    assert owner.execute("SELECT room_id FROM alarms").fetchall() == [("102",)]
    remove(average, ROOMS, building_id="B1")
    for _ in range(2):
        watch.post("/watch")
    assert average.get("/v1/temperature/alarms").json()["alarms"] == []
    assert owner.execute("SELECT FROM alarms").rowcount == 0


def test_a_removal_that_waits_for_a_writer_does_not_keep_summaries_waiting(
    owner: psycopg.Connection[Any], plain: Urls, serve: Serve
) -> None:
    average = served(serve, plain, DEADLINE_SECONDS="1")
    store(owner, ("B1", "101", at(0), 20.0), ("B2", "201", at(0), 20.0))
    with psycopg.connect(plain(WRITER)) as writer:
        writer.execute(INSERT, ("B3", "301", at(0), 20.0))
        remove(average, ROOMS, status=202, building_id="B1")
        started = time.monotonic()
        owner.execute("CALL summarize(0, '{\"seconds\": 5}')")
        assert time.monotonic() - started < 2
        assert owner.execute("SELECT building_id, count FROM room_hours").fetchall() == [("B2", 1)]
    owner.execute("CALL summarize()")
    assert owner.execute("SELECT FROM removals WHERE finished IS NULL").rowcount == 0


def test_a_removal_that_takes_long_does_not_keep_summaries_waiting(
    owner: psycopg.Connection[Any], plain: Urls, serve: Serve
) -> None:
    average = served(serve, plain, DEADLINE_SECONDS="1")
    store(owner, *(("B1", str(room), at(0), 20.0) for room in range(40)), ("B2", "201", at(0), 20.0))
    slow_down(owner, "DELETE ON temperatures", 0.2)
    remove(average, ROOMS, status=202, building_id="B1")
    owner.execute("CALL summarize(0, '{\"seconds\": 2}')")
    assert owner.execute("SELECT FROM removals WHERE finished IS NULL").rowcount == 1
    assert owner.execute("SELECT FROM room_hours WHERE building_id = 'B2'").rowcount == 1


def test_what_came_back_while_it_was_let_in_goes_with_the_next_request(
    average: TestClient, owner: psycopg.Connection[Any], plain: Urls
) -> None:
    owner.execute(
        "INSERT INTO temperatures SELECT 'B1', '101', at, 20 FROM generate_series(%s::timestamptz, %s, '9 s') AS at",
        (START, START + timedelta(days=1)),
    )
    query: dict[str, Any] = {"building_id": "B1", "start": START, "end": START + timedelta(days=4)}
    with psycopg.connect(plain(ADMIN), autocommit=True) as admin:
        begin = "SELECT begin_removal('B1', NULL, %s, %s, NULL, NULL, 'somebody', NULL, '0')"
        [(removal,)] = admin.execute(begin, (query["start"], query["end"])).fetchall()
        while not admin.execute("SELECT FROM continue_removal(%s) WHERE readings > 0", (removal,)).rowcount:
            pass
    assert owner.execute("SELECT FROM removals WHERE finished IS NULL").rowcount == 1
    store(owner, ("B1", "101", START, 20.0))
    assert remove(average, **query)["finished"]
    assert owner.execute("SELECT FROM temperatures").rowcount == 0


def test_what_came_late_to_a_dropped_hour_is_counted_once_although_others_of_it_are_removed(
    owner: psycopg.Connection[Any], plain: Urls, serve: Serve
) -> None:
    average = served(serve, plain, DEADLINE_SECONDS="1")
    store(owner, ("B1", "101", datetime.now(UTC), 20.0), ("B2", "201", at(0), 20.0))
    owner.execute("UPDATE upkeep SET retention = '1 day'")
    owner.execute("CALL summarize()")
    query: dict[str, Any] = {"building_id": "B1", "start": at(0), "end": at(60)}
    with psycopg.connect(plain(WRITER)) as writer, writer.cursor() as cursor:
        cursor.executemany(INSERT, [("B1", "101", at(5), 20.0), ("B1", "101", at(6), 45.0)])
        remove(average, status=202, **query, above=40)
    assert remove(average, **query, above=40)["removed"] == 1
    for _ in range(2):
        assert asked(average, **query) == (1, 20.0, 20.0, 20.0)
        owner.execute("CALL summarize()")


def test_an_alarm_has_the_temperature_that_is_left_of_its_instant(
    average: TestClient, owner: psycopg.Connection[Any], plain: Urls, serve: Serve
) -> None:
    watch = serve("watch", DATABASE_URL=plain(WATCHER), ALARM_RULES='[{"above": 30}]')
    instant = datetime.now(UTC) - timedelta(minutes=5)
    store(owner, ("B1", "101", instant, 45.0), ("B1", "101", instant, 31.0))
    assert watch.post("/watch").json()["raised"] == 1
    query: dict[str, Any] = {"start": instant, "end": instant + timedelta(minutes=1)}
    assert remove(average, building_id="B1", **query, above=40)["removed"] == 1
    [alarm] = average.get("/v1/temperature/alarms").json()["alarms"]
    assert (alarm["temperature"], alarm["cleared"]) == (31.0, None)


def test_an_alarm_that_a_late_reading_began_is_withdrawn_from_it_and_a_sink_hears_the_same_each_time(
    average: TestClient, owner: psycopg.Connection[Any], plain: Urls, serve: Serve, sink: Sink
) -> None:
    rules = '[{"above": 24}]'
    watch = serve("watch", DATABASE_URL=plain(WATCHER), ALARM_RULES=rules, ALARM_SINK_URL=sink.url, SINK_PATIENCE="1")
    now = datetime.now(UTC)
    sink.refuse(float("inf"), 500)
    store(owner, ("B1", "101", now - timedelta(minutes=15), 25.0), ("B1", "101", now - timedelta(minutes=10), 20.0))
    watch.post("/watch")
    store(owner, ("B1", "101", now - timedelta(minutes=20), 45.0))
    watch.post("/watch")
    [alarm] = average.get("/v1/temperature/alarms").json()["alarms"]
    assert (alarm["temperature"], datetime.fromisoformat(alarm["raised"])) == (45.0, now - timedelta(minutes=20))
    interval: dict[str, Any] = {"start": now - timedelta(minutes=21), "end": now}
    assert remove(average, building_id="B1", **interval, above=40)["removed"] == 1
    [alarm] = average.get("/v1/temperature/alarms").json()["alarms"]
    assert (alarm["temperature"], datetime.fromisoformat(alarm["raised"])) == (25.0, now - timedelta(minutes=15))
    # What the sink refused was made of the reading that it was raised by, and so is what it takes.
    owner.execute("UPDATE alarms SET temperature = 30")
    owner.execute("UPDATE alarm_events SET next_attempt = now()")
    sink.refuse(0, 500)
    watch.post("/watch")
    owner.execute("UPDATE alarm_events SET next_attempt = now()")
    watch.post("/watch")
    assert [(event["state"], event["temperature"]) for event in map(data, sink.events)] == [
        ("raised", 25.0),
        ("cleared", 25.0),
    ]


def test_no_step_walks_past_what_the_steps_before_removed(owner: psycopg.Connection[Any], plain: Urls) -> None:
    owner.execute(
        "INSERT INTO temperatures SELECT 'B1', '101', at, 20 FROM generate_series(%s::timestamptz, %s, '1 s') AS at",
        (START, START + timedelta(days=1)),
    )
    owner.execute("CALL summarize()")
    with psycopg.connect(plain(ADMIN), autocommit=True) as admin:
        begin = "SELECT begin_removal('B1', NULL, NULL, NULL, NULL, NULL, 'somebody', NULL, '1 day')"
        [(removal,)] = admin.execute(begin).fetchall()
        steps = [_read(owner)]
        while owner.execute("SELECT FROM removals WHERE finished IS NULL").rowcount:
            admin.execute("SELECT continue_removal(%s)", (removal,))
            admin.execute("SELECT pg_stat_force_next_flush()")
            steps.append(_read(owner))
    read = [after - before for before, after in pairwise(steps)]
    assert max(read) < 30_000, read


def _read(owner: psycopg.Connection[Any]) -> int:
    """How many readings the index has given out so far."""
    owner.execute("SELECT pg_stat_force_next_flush()")
    statement = "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'temperatures_pkey'"
    [(number,)] = owner.execute(statement).fetchall()
    return int(number)


def test_an_alarm_is_withdrawn_with_the_only_reading_of_its_room(
    average: TestClient, owner: psycopg.Connection[Any], plain: Urls, serve: Serve
) -> None:
    watch = serve("watch", DATABASE_URL=plain(WATCHER), ALARM_RULES='[{"above": 30}]')
    instant = datetime.now(UTC) - timedelta(minutes=5)
    store(owner, ("B1", "101", instant, 45.0))
    assert watch.post("/watch").json()["raised"] == 1
    query: dict[str, Any] = {"start": instant, "end": instant + timedelta(minutes=1)}
    assert remove(average, building_id="B1", **query, above=40)["finished"]
    assert average.get("/v1/temperature/alarms").json()["alarms"] == []


def test_what_comes_back_during_the_last_step_is_not_lost(
    average: TestClient, owner: psycopg.Connection[Any], plain: Urls
) -> None:
    owner.execute(
        "INSERT INTO temperatures SELECT 'B1', '101', timestamptz '2024-10-20' + n * interval '1 minute', 20"
        " FROM generate_series(1, 3000) AS n"
    )
    [(removal,)] = owner.execute(
        "SELECT begin_removal('B1', '101', NULL, NULL, NULL, NULL, '', '', interval '1 second')"
    ).fetchall()
    step = "SELECT is_finished FROM continue_removal(%s)"
    assert owner.execute(step, (removal,)).fetchall() == [(False,)]
    with psycopg.connect(plain(OWNER)) as slow:
        slow.execute("SELECT now()")
        over = "SELECT FROM removals WHERE until < clock_timestamp()"
        wait_until(lambda: owner.execute(over).rowcount)
        store(owner, ("B1", "101", at(0), 20.0))
        wait_until(lambda: slow.execute(step, (removal,)).fetchall() == [(True,)])
    assert [room["room_id"] for room in average.get(ROOMS).json()["rooms"]] == ["101"]
    assert asked(average, building_id="B1", **EVERYTHING)[0] == 1


def test_a_removal_that_is_asked_for_again_reads_nothing_that_was_removed(
    average: TestClient, owner: psycopg.Connection[Any], plain: Urls
) -> None:
    owner.execute(
        "INSERT INTO temperatures SELECT 'B1', '101', %s + n * interval '1 minute', 20"
        " FROM generate_series(1, 20000) AS n",
        [START],
    )
    owner.execute("CALL summarize()")
    query: dict[str, Any] = {"building_id": "B1", "room_id": "101", **EVERYTHING, "end": at(19_000)}
    read = "SELECT sum(idx_tup_read) FROM pg_stat_all_indexes WHERE relid = 'temperatures'::regclass"

    def entries_read() -> int:
        # A session that has ended has told what it read.
        wait_until(lambda: not owner.execute("SELECT FROM pg_stat_activity WHERE usename = %s", [ADMIN]).rowcount)
        [(number,)] = owner.execute(read).fetchall()
        return int(number)

    # As pg_dump does. What it may still see no VACUUM takes out of the index.
    with psycopg.connect(plain(OWNER)) as older:
        older.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        older.execute("SELECT FROM temperatures LIMIT 1")
        assert remove(average, **query)["removed"] == 18_999
        before = entries_read()
        assert before >= 19_000
        assert remove(average, **query)["removed"] == 0
        assert entries_read() - before < 2000


SLOW = """
    CREATE OR REPLACE FUNCTION preview_removal(
        building text, room text, since timestamptz, before timestamptz, above double precision, below double precision
    )
    RETURNS TABLE (room_id text, readings bigint, first timestamptz, last timestamptz)
    LANGUAGE plpgsql STABLE SECURITY DEFINER AS 'BEGIN PERFORM pg_sleep(60); END';
    CREATE OR REPLACE FUNCTION continue_removal(removal uuid, OUT readings bigint, OUT is_finished boolean)
    LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN PERFORM pg_sleep(60); END'
"""
"""As over very many readings."""


def test_whoever_only_looks_is_not_told_that_it_goes_on(
    serve: Serve, plain: Urls, owner: psycopg.Connection[Any]
) -> None:
    average = served(serve, plain, DEADLINE_SECONDS="1")
    query: dict[str, Any] = {"building_id": "B1", **EVERYTHING}
    with owner.transaction():
        owner.execute("LOCK TABLE upkeep, removals")
        waits = remove(average, **query, status=503, dry_run="true")
        listed = average.get(REMOVALS, headers=BEARER)
    assert [waits["detail"], listed.json()["detail"]] == ["The database does not answer; ask again"] * 2
    owner.execute(SLOW)
    assert remove(average, **query, status=503, dry_run="true")["detail"] == TOO_MANY_TO_COUNT
    goes_on = "The database does not answer; ask again, which goes on with what was begun"
    assert remove(average, **query, status=503)["detail"] == goes_on
