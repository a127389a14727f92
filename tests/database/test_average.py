"""What `average` answers."""

import csv
import os
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from starlette.testclient import TestClient

from local.postgres import OWNER, READER
from tests.support import NOWHERE, Urls

NOON = datetime(2024, 12, 1, 12, tzinfo=UTC)
ROOM = {"building_id": "B1", "room_id": "101"}
INTERVAL = {"start": "2024-12-01T12:00:00Z", "end": "2024-12-01T13:00:00Z"}
IDENTIFIER = "must be a string of 1 to 255 characters, none of them NUL"
TIMESTAMP = (
    "must be an RFC 3339 timestamp with an offset, such as 2024-12-01T12:34:56Z,"
    " or with tz a local one, such as 2024-12-01T12:34 or 2024-12-01"
)
BEYOND = "must be from 0001-01-03 to 9999-12-29 where there is a time zone"
NO_OFFSET = "has no offset; add one, such as Z, or a time zone, such as tz=Europe/Zurich"


@pytest.fixture
def average(serve: Callable[..., TestClient], plain: Urls) -> TestClient:
    with psycopg.connect(plain(OWNER)) as connection:
        rows = [
            *[("B1", "101", NOON + timedelta(minutes=minute), 20 + minute / 4) for minute in range(60)],
            ("B1", "102", NOON + timedelta(minutes=30), -10.5),
            ("B2", "201", NOON, 5.0),
        ]
        connection.cursor().executemany("INSERT INTO temperatures VALUES (%s, %s, %s, %s)", rows)
    return serve("average", DATABASE_URL=plain(READER), DEADLINE_SECONDS="2")


def store(urls: Urls, *rows: tuple[str, str, datetime, float]) -> None:
    with psycopg.connect(urls(OWNER)) as connection:
        connection.cursor().executemany("INSERT INTO temperatures VALUES (%s, %s, %s, %s)", rows)


def ask(client: TestClient, what: str, **query: str) -> Any:
    response = client.get(f"/v1/temperature/{what}", params=query)
    assert response.status_code == 200, response.text
    return response.json()


def faults(response: Any) -> dict[str, str]:
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    return {fault["field"]: fault["message"] for fault in response.json()["errors"]}


def test_the_average_of_a_room(average: TestClient) -> None:
    assert ask(average, "average", **ROOM, **INTERVAL) == {
        "average_temperature": 27.375,
        "count": 60,
        "min": 20,
        "max": 34.75,
        **ROOM,
        **INTERVAL,
    }


def test_the_average_of_a_building(average: TestClient) -> None:
    assert ask(average, "average", building_id="B1", **INTERVAL) == {
        "average_temperature": (27.375 * 60 - 10.5) / 61,
        "count": 61,
        "min": -10.5,
        "max": 34.75,
        "building_id": "B1",
        "room_id": None,
        **INTERVAL,
    }


def test_an_interval_includes_its_start_and_not_its_end(average: TestClient) -> None:
    answer = ask(average, "average", **ROOM, start="2024-12-01T12:10:00Z", end="2024-12-01T12:12:00Z")
    assert (answer["count"], answer["min"], answer["max"]) == (2, 22.5, 22.75)
    answer = ask(average, "average", **ROOM, start="2024-12-01T12:10:00.000001Z", end="2024-12-01T12:12:00.000001Z")
    assert (answer["count"], answer["min"], answer["max"]) == (2, 22.75, 23)
    assert ask(average, "average", **ROOM, start="2024-12-01T12:10:00Z", end="2024-12-01T12:10:00Z")["count"] == 0


@pytest.mark.parametrize("name", ["Rack 01:02", "Rack 0102", "Hall 01"])
def test_a_name_that_ends_like_an_offset_stays_as_it_is(average: TestClient, name: str) -> None:
    answer = ask(average, "average", building_id=name, room_id=name, **INTERVAL)
    assert (answer["building_id"], answer["room_id"]) == (name, name)


def test_an_offset_is_understood_with_its_plus_encoded_or_not(average: TestClient) -> None:
    path = "/v1/temperature/average?building_id=B1&room_id=101&end=2024-12-01T14:00:00%2B01:00&start="
    for clock in ("13:00:00", "13:00:00.000", "13:00"):
        for offset in ("01:00", "0100", "01"):
            for plus in ("%2B", "+"):
                answer = average.get(f"{path}2024-12-01T{clock}{plus}{offset}").json()
                assert answer == ask(average, "average", **ROOM, **INTERVAL)


def test_a_question_has_at_most_fifty_parameters(average: TestClient) -> None:
    others = "".join(f"&x{number}=1" for number in range(49))
    for more, detail in (("", '"x48"'), ("&y=1", "A question has at most 50 parameters")):
        answer = average.get(f"/v1/temperature/average?building_id=B1{others}{more}")
        assert (answer.status_code, detail in answer.text) == (422, True), answer.text


@pytest.mark.parametrize("path", ["average", "series", "readings", "rooms", "alarms"])
@pytest.mark.parametrize("name", ["B%FCro", "B%C3%BCro%80", "%ED%A0%80", "%C3", "B\u00fcro%FF", "=%FF"])
def test_a_query_that_is_not_utf_8_is_refused(average: TestClient, path: str, name: str) -> None:
    answer = average.get(f"/v1/temperature/{path}?building_id={name}")
    detail = "The query string is not percent-encoded UTF-8; B\u00fcro is to be sent as B%C3%BCro"
    assert (answer.status_code, answer.json()["detail"]) == (422, detail)
    assert average.get(f"/v1/temperature/{path}?%FF").status_code == 422


def test_a_url_of_thousands_of_parameters_costs_nothing(average: TestClient) -> None:
    for names in ("x", "building_id", ""):
        query = "&".join(f"{names}{number if names == 'x' else ''}=1" for number in range(4_000))
        seconds = []
        # The quickest of some: others use the machine too.
        for _ in range(5):
            started = time.monotonic()
            response = average.get(f"/v1/temperature/series?{query}")
            seconds.append(time.monotonic() - started)
            assert (response.status_code, response.headers["content-type"]) == (422, "application/problem+json")
        assert min(seconds) < 0.2


def test_no_readings_are_no_data_found(average: TestClient) -> None:
    for nowhere in ({"building_id": "B1", "room_id": "nowhere"}, {"building_id": "B3"}):
        answer = ask(average, "average", **nowhere, **INTERVAL)
        assert answer == {
            "average_temperature": None,
            "count": 0,
            "min": None,
            "max": None,
            "building_id": nowhere["building_id"],
            "room_id": nowhere.get("room_id"),
            **INTERVAL,
            "message": "No data found",
        }


def test_without_an_interval_it_is_from_the_boundary_before_the_last_until_now(
    average: TestClient, plain: Urls
) -> None:
    now = datetime.now(UTC)
    store(plain, ("B1", "101", now, 1.0), ("B1", "101", now - timedelta(minutes=9), 3.0))
    answer = ask(average, "average", **ROOM)
    start, end = (datetime.fromisoformat(answer[name]) for name in ("start", "end"))
    assert timedelta(minutes=4) <= end - start < timedelta(minutes=8, seconds=5)
    assert (start.minute % 4, start.second, start.microsecond) == (0, 0, 0)
    assert abs(end - now) < timedelta(seconds=5)
    assert (answer["average_temperature"], answer["count"]) == (1.0, 1)


def test_the_alignment_is_a_setting(serve: Callable[..., TestClient], plain: Urls) -> None:
    client = serve("average", DATABASE_URL=plain(READER), ALIGNMENT_INTERVAL="15")
    start = datetime.fromisoformat(ask(client, "average", **ROOM, end="2024-12-01T12:34:56Z")["start"])
    assert start == datetime(2024, 12, 1, 12, 15, tzinfo=UTC)


def test_query_datetime_is_another_name_of_start(average: TestClient, plain: Urls) -> None:
    store(plain, ("B1", "101", datetime.now(UTC), 100 / 3))
    by_start = ask(average, "average", **ROOM, start=INTERVAL["start"])
    by_query_datetime = ask(average, "average", **ROOM, query_datetime=INTERVAL["start"])
    assert by_query_datetime["count"] == by_start["count"] == 61
    both = average.get(
        "/v1/temperature/average",
        params={"building_id": "B1", "start": INTERVAL["start"], "query_datetime": INTERVAL["start"]},
    )
    assert faults(both) == {"query_datetime": "is another name of start; give one of them"}


@pytest.mark.parametrize("what", ["average", "series"])
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, {"building_id": "Field required"}),
        ({"building_id": ""}, {"building_id": IDENTIFIER}),
        ({"building_id": "x" * 256, "room_id": "\x00"}, {"building_id": IDENTIFIER, "room_id": IDENTIFIER}),
        ({**ROOM, "start": "yesterday"}, {"start": TIMESTAMP}),
        ({**ROOM, "start": "1733056496", "end": "2024-12-32"}, {"start": TIMESTAMP, "end": TIMESTAMP}),
        ({**ROOM, "start": "2024-12-01", "end": "2024-12-01T12:00:00"}, {"start": NO_OFFSET, "end": NO_OFFSET}),
        ({**ROOM, "tz": "Europe/Basel"}, {"tz": "must be the name of an IANA time zone, such as Europe/Zurich"}),
        ({**ROOM, "tz": "UTC", "start": "0001-01-01"}, {"start": BEYOND}),
        ({**ROOM, "tz": "Asia/Tokyo", "end": "0001-01-01T00:00"}, {"end": BEYOND}),
        ({**ROOM, "tz": "Asia/Tokyo", "end": "9999-12-31T00:00:00Z"}, {"end": BEYOND}),
        (
            {**ROOM, "start": INTERVAL["end"], "end": INTERVAL["start"]},
            {"start": "must not be after end, which is now unless it is given"},
        ),
        ({**ROOM, "strat": INTERVAL["start"]}, {"strat": "is not known here"}),
        (
            {**ROOM, "end": "0001-01-01T00:00:00Z"},
            {"end": "leaves no room for an interval before it; give start"},
        ),
        ({"building_id": ["B1", "B2"]}, {"building_id": "must be given once"}),
    ],
)
def test_a_question_that_cannot_be_answered_says_what_to_fix(
    average: TestClient, what: str, query: dict[str, Any], expected: dict[str, str]
) -> None:
    assert faults(average.get(f"/v1/temperature/{what}", params=query)) == expected


def test_the_longest_interval_is_answered(average: TestClient) -> None:
    answer = ask(average, "average", **ROOM, start="0001-01-01T00:00:00Z", end="9999-12-31T23:59:59.999999Z")
    assert answer["count"] == 60


def test_a_series_has_the_buckets_that_hold_readings(average: TestClient) -> None:
    answer = ask(average, "series", building_id="B1", room_id="102", **INTERVAL, bucket="15m")
    assert answer == {
        "building_id": "B1",
        "room_id": "102",
        **INTERVAL,
        "bucket": "15m",
        "bucket_seconds": 900,
        "series": [
            {"start": "2024-12-01T12:30:00Z", "average_temperature": -10.5, "count": 1, "min": -10.5, "max": -10.5}
        ],
    }
    series = ask(average, "series", **ROOM, **INTERVAL, bucket="15m")["series"]
    assert [(point["start"], point["average_temperature"], point["count"]) for point in series] == [
        ("2024-12-01T12:00:00Z", 21.75, 15),
        ("2024-12-01T12:15:00Z", 25.5, 15),
        ("2024-12-01T12:30:00Z", 29.25, 15),
        ("2024-12-01T12:45:00Z", 33.0, 15),
    ]


def test_a_series_begins_and_ends_with_the_interval_to_the_reading(average: TestClient) -> None:
    series = ask(average, "series", **ROOM, start="2024-12-01T12:59:00Z", end="2024-12-01T13:30:00Z", bucket="1h")[
        "series"
    ]
    assert [(point["start"], point["count"], point["min"]) for point in series] == [("2024-12-01T12:00:00Z", 1, 34.75)]


@pytest.mark.parametrize(
    ("bucket", "seconds"),
    [("100000000s", 100_000_000), ("1s", 1), ("90s", 90), ("7m", 420), ("6h", 21_600), ("7d", 604_800)],
)
def test_a_bucket_may_have_any_width(average: TestClient, bucket: str, seconds: int) -> None:
    answer = ask(average, "series", **ROOM, **INTERVAL, bucket=bucket)
    assert answer["bucket_seconds"] == seconds
    assert sum(point["count"] for point in answer["series"]) == 60


@pytest.mark.parametrize(("days", "seconds"), [(1 / 24, 60), (1, 300), (7, 1800), (365, 86_400), (36_500, 604_800)])
def test_without_a_bucket_the_width_suits_a_chart(average: TestClient, days: float, seconds: int) -> None:
    end = NOON + timedelta(days=days)
    answer = ask(average, "series", **ROOM, start=NOON.isoformat(), end=end.isoformat())
    assert answer["bucket_seconds"] == seconds


@pytest.mark.parametrize("bucket", ["15m", "30m", "45m", "90m"])
@pytest.mark.parametrize("place", [ROOM, {"building_id": "B1"}])
def test_buckets_of_quarters_of_an_hour_need_no_readings(
    average: TestClient, plain: Urls, place: dict[str, str], bucket: str
) -> None:
    """A chart of a week has such buckets, and a building millions of readings in a week."""
    of_readings = ask(average, "series", **place, **INTERVAL, bucket=bucket)
    with psycopg.connect(plain(OWNER), autocommit=True) as connection:
        connection.execute("CALL summarize()")
        # Nobody hears of what is deleted by hand.
        connection.execute("DELETE FROM temperatures")
    assert ask(average, "series", **place, **INTERVAL, bucket=bucket) == of_readings


@pytest.mark.parametrize("bucket", ["", "15", "m", "-1m", "0m", "1.5h", "1M", "mo", "9999999999s", "15 m"])
def test_a_bucket_that_is_no_width_is_refused(average: TestClient, bucket: str) -> None:
    response = average.get("/v1/temperature/series", params={**ROOM, "bucket": bucket})
    assert faults(response) == {
        "bucket": "must be a number of seconds, minutes, hours, days, weeks, months or years, such as 15m, 1d or 3mo"
    }


def test_the_widest_bucket_reaches_back_before_the_first_year(average: TestClient, plain: Urls) -> None:
    store(plain, ("B1", "101", datetime(1, 1, 1, tzinfo=UTC), 20.0))
    query = {**ROOM, "start": "0001-01-01T00:00:00Z", "end": "2024-01-01T00:00:00Z"}
    for bucket in ("3650d", "5255985m"):
        series = ask(average, "series", **query, bucket=bucket)["series"]
        assert [(point["start"], point["count"]) for point in series] == [("0001-01-01T00:00:00Z", 1)]
    for bucket, widest in (
        ("3651d", "3650d"),
        ("9999999d", "3650d"),
        ("87601h", "3650d"),
        ("5256001m", "3650d"),
        ("521w", "520w"),
        ("121mo", "120mo"),
        ("9999999y", "10y"),
    ):
        response = average.get("/v1/temperature/series", params={**query, "bucket": bucket})
        assert faults(response) == {"bucket": f"must be at most {widest}"}


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu", "America/New_York"])
@pytest.mark.parametrize("bucket", ["3650d", "1000d", "520w", "87600h", "10y"])
def test_so_does_the_widest_of_a_zone(average: TestClient, zone: str, bucket: str) -> None:
    query = {**ROOM, "tz": zone, "start": "0001-01-03", "end": "9999-12-29", "bucket": bucket}
    assert [point["count"] for point in ask(average, "series", **query)["series"]] == [60]


def test_local_days_are_those_of_the_zone(average: TestClient, plain: Urls) -> None:
    rows = [
        ("Z", "1", datetime.fromisoformat(instant), temperature)
        for instant, temperature in (
            ("2026-03-28T22:59:59.999999Z", 1.0),
            ("2026-03-28T23:00:00Z", 2.0),
            ("2026-03-29T21:59:59.999999Z", 4.0),
            ("2026-03-29T22:00:00Z", 8.0),
        )
    ]
    store(plain, *rows)
    asked = {"building_id": "Z", "tz": "Europe/Zurich", "start": "2026-03-28", "end": "2026-03-30"}
    answer = ask(average, "series", **asked, bucket="1d")
    assert answer == {
        "building_id": "Z",
        "room_id": None,
        "start": "2026-03-28T00:00:00+01:00",
        "end": "2026-03-30T00:00:00+02:00",
        "tz": "Europe/Zurich",
        "bucket": "1d",
        "bucket_seconds": None,
        "series": [
            {"start": "2026-03-28T00:00:00+01:00", "average_temperature": 1.0, "count": 1, "min": 1.0, "max": 1.0},
            {"start": "2026-03-29T00:00:00+01:00", "average_temperature": 3.0, "count": 2, "min": 2.0, "max": 4.0},
        ],
    }
    whole = ask(average, "average", **asked)
    assert (whole["start"], whole["end"], whole["tz"], whole["count"]) == (*list(answer.values())[2:5], 3)
    [night] = ask(average, "series", **{**asked, "start": "2026-03-29T03:00", "end": "2026-03-31"}, bucket="1y")[
        "series"
    ]
    assert (night["start"], night["count"]) == ("2026-01-01T00:00:00+01:00", 2)
    csv_of_days = average.get(
        "/v1/temperature/series", params={**asked, "bucket": "1d"}, headers={"accept": "text/csv"}
    )
    assert csv_of_days.status_code == 200
    assert csv_of_days.text.splitlines()[1] == "2026-03-28T00:00:00+01:00,1.0,1,1.0,1.0"


def test_readings_are_those_of_local_days_too(average: TestClient, plain: Urls) -> None:
    store(plain, *(("Z", "1", NOON + timedelta(hours=hours), hours / 2) for hours in range(48)))
    query = {"building_id": "Z", "tz": "Asia/Kathmandu", "start": "2024-12-02", "end": "2024-12-03"}
    answer = average.get("/v1/temperature/readings", params=query).json()
    assert (answer["start"], answer["tz"]) == ("2024-12-02T00:00:00+05:45", "Asia/Kathmandu")
    found = [reading["timestamp"] for reading in answer["readings"]]
    # As they are stored, and go in again: in UTC.
    assert (found[0], found[-1], len(found)) == ("2024-12-01T19:00:00Z", "2024-12-02T18:00:00Z", 24)


@pytest.mark.parametrize(
    ("zone", "local", "instant"),
    [
        # It comes twice: the first one.
        ("Europe/Zurich", "2026-10-25T02:30", "2026-10-25T02:30:00+02:00"),
        # It does not exist: as much later as the gap is long.
        ("Europe/Zurich", "2026-03-29T02:30", "2026-03-29T03:30:00+02:00"),
        # A day without a midnight, one that follows a gap of the night before, one that was skipped.
        ("America/Santiago", "2025-09-07", "2025-09-07T01:00:00-03:00"),
        ("America/Toronto", "1919-03-31", "1919-03-31T00:30:00-04:00"),
        ("Pacific/Apia", "2011-12-30", "2011-12-31T00:00:00+14:00"),
        # With the seconds that its offset had, which RFC 3339 cannot write.
        ("Europe/Zurich", "1850-01-01", "1849-12-31T23:59:52+00:34"),
    ],
)
def test_a_local_time_is_an_instant_of_the_zone(average: TestClient, zone: str, local: str, instant: str) -> None:
    answer = ask(average, "average", **ROOM, tz=zone, start=local, end="9999-01-01")
    expected = datetime.fromisoformat(instant)
    assert datetime.fromisoformat(answer["start"]) == expected
    assert answer["start"] == instant


@pytest.mark.parametrize("plus", ["+", "%2B", "%20"])
def test_the_name_of_a_zone_may_have_a_plus_sign(average: TestClient, plus: str) -> None:
    answer = average.get(f"/v1/temperature/average?building_id=B1&tz=Etc/GMT{plus}5&start=2024-12-01&end=2024-12-02")
    assert (answer.json()["tz"], answer.json()["start"]) == ("Etc/GMT+5", "2024-12-01T00:00:00-05:00")


@pytest.mark.parametrize(
    ("days", "bucket", "seconds"),
    [(1, "5m", 300), (90, "6h", 21_600), (365, "1d", None), (3_000, "1w", None), (9_000, "1mo", None)],
)
def test_without_a_bucket_it_suits_a_chart_and_the_calendar(
    average: TestClient, days: float, bucket: str, seconds: int | None
) -> None:
    end = NOON + timedelta(days=days)
    answer = ask(average, "series", **ROOM, tz="Asia/Kathmandu", start=NOON.isoformat(), end=end.isoformat())
    assert (answer["bucket"], answer["bucket_seconds"]) == (bucket, seconds)


def test_a_series_comes_as_csv_too(average: TestClient) -> None:
    response = average.get(
        "/v1/temperature/series", params={**ROOM, **INTERVAL, "bucket": "30m"}, headers={"accept": "text/csv"}
    )
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    assert list(csv.reader(response.text.splitlines())) == [
        ["start", "average_temperature", "count", "min", "max"],
        ["2024-12-01T12:00:00Z", "23.625", "30", "20.0", "27.25"],
        ["2024-12-01T12:30:00Z", "31.125", "30", "27.5", "34.75"],
    ]


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("text/csv", True),
        ("TEXT/CSV; charset=utf-8", True),
        ("text/*", True),
        ("text/csv, */*", True),
        ("*/*, text/csv", True),
        ("text/csv, application/json", True),
        ("application/json;q=0.5, text/csv", True),
        ("text/csv;q=0", False),
        ("text/csv;q=0.5, application/json", False),
        # Java and TypeScript as openapi-generator makes them.
        ("application/json, text/csv, application/problem+json", False),
        ("application/json,text/csv,application/problem+json", False),
        ("text/csv;q=0.2, */*", False),
        ("*/*", False),
        ("text/html", False),
        ("", False),
    ],
)
def test_a_series_is_csv_for_who_would_rather_have_that(average: TestClient, accept: str, expected: bool) -> None:
    query = {**ROOM, **INTERVAL, "bucket": "30m"}
    response = average.get("/v1/temperature/series", params=query, headers={"accept": accept})
    assert response.headers["content-type"].startswith("text/csv" if expected else "application/json")
    assert response.headers["vary"] == "Accept"


def test_the_rooms_come_with_their_latest_reading(average: TestClient) -> None:
    rooms = [
        {**ROOM, "latest": {"temperature": 34.75, "timestamp": "2024-12-01T12:59:00Z"}},
        {"building_id": "B1", "room_id": "102", "latest": {"temperature": -10.5, "timestamp": "2024-12-01T12:30:00Z"}},
        {"building_id": "B2", "room_id": "201", "latest": {"temperature": 5.0, "timestamp": "2024-12-01T12:00:00Z"}},
    ]
    assert ask(average, "rooms") == {"rooms": rooms, "next": None}
    assert ask(average, "rooms", building_id="B1") == {"rooms": rooms[:2], "next": None}
    assert ask(average, "rooms", building_id="B3") == {"rooms": [], "next": None}
    assert faults(average.get("/v1/temperature/rooms?room=101")) == {"room": "is not known here"}


def test_many_rooms_come_in_pages(average: TestClient) -> None:
    rooms = ask(average, "rooms")["rooms"]
    pages: list[Any] = []
    more: dict[str, str] = {}
    while True:
        page = ask(average, "rooms", limit="1", **more)
        pages += page["rooms"]
        if page["next"] is None:
            break
        more = {"after": page["next"]}
    assert pages == rooms
    assert ask(average, "rooms", building_id="B2", limit="1", **more)["rooms"] == rooms[2:]


def test_a_variable_that_others_use_is_none_of_its_own(serve: Callable[..., TestClient]) -> None:
    """Node.js shells have DEBUG='*'."""
    assert serve("average", DEBUG="*").get("/settings").json()["debug"] is False


def test_settings_and_health_are_those_of_the_original(average: TestClient) -> None:
    assert average.get("/health").json() == {"status": "ok", "message": "Service is healthy"}
    assert average.get("/settings").json() == {
        "app_name": "Temperature monitoring",
        "debug": False,
        "alignment_interval": 4,
    }


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        *((path, "GET, HEAD, OPTIONS") for path in ("/v1/temperature/average", "/v1/temperature/series", "/health")),
        *((path, "GET, HEAD, DELETE, OPTIONS") for path in ("/v1/temperature/readings", "/v1/temperature/rooms")),
    ],
)
def test_another_method_is_told_which_are_allowed(average: TestClient, path: str, allowed: str) -> None:
    response = average.post(path)
    assert (response.status_code, response.headers["allow"]) == (405, allowed)
    assert response.headers["content-type"] == "application/problem+json"


def test_another_path_is_404(average: TestClient) -> None:
    response = average.get("/v1/temperature/median")
    assert (response.status_code, response.json()["title"]) == (404, "Not Found")


def test_without_a_database_the_answer_is_503_within_the_deadline(serve: Callable[..., TestClient]) -> None:
    average = serve("average", DATABASE_URL=NOWHERE, DEADLINE_SECONDS="1")
    started = time.monotonic()
    response = average.get("/v1/temperature/average", params=ROOM)
    assert time.monotonic() - started < 3
    assert (response.status_code, response.headers["retry-after"]) == (503, "5")
    assert "127.0.0.1" not in response.text
    assert average.get("/health").status_code == 200


def test_lost_connections_are_replaced_without_an_error(average: TestClient, plain: Urls) -> None:
    for _ in range(3):
        assert ask(average, "average", **ROOM, **INTERVAL)["count"] == 60
        with psycopg.connect(plain("postgres"), autocommit=True) as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", (READER,))


def test_a_connection_is_replaced_after_its_time(
    plain: Urls, serve: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server at its other end may not be the primary any more, and not know it."""
    monkeypatch.setattr("average.queries.LONGEST_CONNECTION_SECONDS", 0.2)
    average = serve("average", DATABASE_URL=plain(READER))
    with psycopg.connect(plain("postgres"), autocommit=True) as connection:

        def servers() -> set[int]:
            ask(average, "average", **ROOM, **INTERVAL)
            found = connection.execute("SELECT pid FROM pg_stat_activity WHERE usename = %s", (READER,))
            return {pid for (pid,) in found}

        before = servers()
        time.sleep(0.3)
        servers()
        assert before.isdisjoint(servers())


def test_a_question_that_takes_too_long_is_503(average: TestClient, plain: Urls) -> None:
    with psycopg.connect(plain(OWNER)) as blocker:
        blocker.execute("LOCK TABLE temperatures")
        started = time.monotonic()
        response = average.get("/v1/temperature/average", params=ROOM)
        assert time.monotonic() - started < 4
        assert response.status_code == 503


def test_a_database_that_hangs_is_503_within_the_deadline(average: TestClient, plain: Urls) -> None:
    assert ask(average, "average", **ROOM, **INTERVAL)["count"] == 60
    with psycopg.connect(plain("postgres"), autocommit=True) as connection:
        ((pid,),) = connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE usename = %s AND datname = current_database()", (READER,)
        ).fetchall()
    os.kill(pid, signal.SIGSTOP)
    try:
        started = time.monotonic()
        response = average.get("/v1/temperature/average", params=ROOM)
        assert time.monotonic() - started < 4
        assert (response.status_code, response.headers["retry-after"]) == (503, "5")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert ask(average, "average", **ROOM, **INTERVAL)["count"] == 60


def test_averages_built_anew_with_other_buckets_stay_exact(average: TestClient, plain: Urls) -> None:
    query = {**ROOM, "start": "2024-12-01T12:07:00Z", "end": "2024-12-01T12:51:00Z"}
    expected = ask(average, "average", **query)
    assert expected["count"] == 44
    for width in ("15 minutes", "2 minutes"):
        with psycopg.connect(plain(OWNER)) as connection:
            connection.execute(
                "CREATE OR REPLACE FUNCTION avg_temperature_bucket_width() RETURNS interval LANGUAGE sql IMMUTABLE"
                f" RETURN interval '{width}'"
            )
        assert ask(average, "average", **query) == expected


def test_a_reading_of_a_year_that_python_has_not_is_no_fault_of_the_function(
    serve: Callable[..., TestClient], plain: Urls
) -> None:
    """An earlier version let somebody store one by SQL."""
    with psycopg.connect(plain(OWNER), autocommit=True) as owner:
        owner.execute("INSERT INTO rooms VALUES ('B1', '101', '20000-01-01', 20, '20000-01-01')")
    answer = serve("average", DATABASE_URL=plain(READER)).get("/v1/temperature/rooms")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
