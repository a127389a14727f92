"""`simulate` through its HTTP interface and its command line, against a sink that really listens."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote

import pytest
from functions_framework.aio import create_asgi_app
from starlette.testclient import TestClient

from ingest import bodies
from shared import delivery
from shared import sink as sinks
from shared.problems import Problem
from shared.readings import Reading
from shared.settings import SettingError
from simulate import events, simulation
from tests.sink import Sink
from tests.support import wait_until

ROOT = Path(__file__).parents[2]
MAIN = ROOT / "functions/simulate/main.py"
ROOMS = [("B1", "101"), ("B1", "102"), ("B2", "201")]
ROOM_101 = {"building_id": "B1", "room_id": "101"}
HOUR = 3600


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "K_SINK",
        "SINK_URL",
        "SINK_TOKEN",
        "WRITE_TOKENS",
        "K_CE_OVERRIDES",
        "SINK_PATIENCE",
        "LOG_LEVEL",
        "LOG_FILE",
    ):
        monkeypatch.delenv(name, raising=False)
    # The framework sets these; this way they are gone after the test.
    for name, value in {"TARGET": "simulate", "SOURCE": str(MAIN), "SIGNATURE_TYPE": "http"}.items():
        monkeypatch.setenv(f"FUNCTION_{name}", value)


@pytest.fixture
def unbound() -> TestClient:
    """The function without a sink."""
    return client()


@pytest.fixture
def function(sink: Sink, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    """The function, bound to the sink as Knative's SinkBinding does it."""
    monkeypatch.setenv("K_SINK", sink.url)
    return client()


def client() -> TestClient:
    return TestClient(create_asgi_app("simulate", str(MAIN)))


def problem(status: int, title: str, detail: str, **members: object) -> dict[str, object]:
    return {"type": "about:blank", "title": title, "status": status, "detail": detail, **members}


def seconds(timestamp: str) -> float:
    assert timestamp.endswith("Z")
    return datetime.fromisoformat(timestamp).timestamp()


# What is emitted


@pytest.mark.parametrize("body", [b"", b" \r\n", b"{}"])
@pytest.mark.parametrize("path", ["/", "/simulate", "/simulate/"])
def test_by_default_each_of_the_three_rooms_emits_one_reading(
    function: TestClient, sink: Sink, path: str, body: bytes
) -> None:
    before = time.time()
    response = function.post(path, content=body)
    assert (response.status_code, response.json()) == (200, {"emitted": 3, "retried": 0, "failed": 0})
    readings = [json.loads(body) for _, body in sink.requests]
    assert sorted((reading["building_id"], reading["room_id"]) for reading in readings) == ROOMS
    for reading in readings:
        assert -50 <= reading["temperature"] <= 50
        assert reading["temperature"] == round(reading["temperature"], 2)
        instant = seconds(reading["timestamp"])
        assert instant % 5 == 0
        assert before - 5 < instant <= time.time()


def test_a_person_at_a_terminal_sees_how_far_it_is(sink: Sink) -> None:
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        command = [sys.executable, str(MAIN), "--sink", sink.url, "--count", "3"]
        run = subprocess.run(
            command,
            env={**os.environ, "PYTHONPATH": "functions"},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=theirs,
            check=True,
        )
        os.close(theirs)
        assert b"9/9" in terminal.read(65536)
    assert run.stdout.startswith(b"9 emitted, 0 retried, 0 failed; took ")


def test_a_reading_is_a_cloudevent_in_binary_mode(function: TestClient, sink: Sink) -> None:
    function.post("/", json={"rooms": [{"building_id": "B1", "room_id": "101"}]})
    [event] = sink.events
    data = event.get_data()
    assert data is not None
    assert dict(event.get_attributes()) == {
        "specversion": "1.0",
        "type": "dev.temperature.reading.v1",
        "source": "/buildings/B1/rooms/101",
        "id": f"{data['timestamp']}/{data['temperature']}",
        "time": data["timestamp"],
        "datacontenttype": "application/json",
    }
    assert data.keys() == {"building_id", "room_id", "temperature", "timestamp"}


def test_what_is_emitted_is_what_ingest_takes(function: TestClient, sink: Sink) -> None:
    function.post("/", json={"rooms": [{"building_id": "Zürich 1/\U0001f3e0", "room_id": "50%"}]})
    [(headers, body)] = sink.requests
    [reading] = asyncio.run(bodies.parse(headers, body))
    assert (reading["building_id"], reading["room_id"]) == ("Zürich 1/\U0001f3e0", "50%")
    assert reading["timestamp"].tzinfo is not None


def test_ids_of_any_characters_make_a_source_that_is_a_uri_in_a_header_that_is_ascii(
    function: TestClient, sink: Sink
) -> None:
    function.post("/", json={"rooms": [{"building_id": "Zürich 1/2", "room_id": "50%"}]})
    [(headers, _)] = sink.requests
    assert headers["ce-source"].isascii()
    # The binding encodes the header once more, and its reader decodes it.
    assert unquote(headers["ce-source"]) == "/buildings/Z%C3%BCrich%201%2F2/rooms/50%25"


def test_the_extensions_that_knative_asks_for_are_on_every_event(sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K_CE_OVERRIDES", '{"extensions": {"site": "Zürich 1", "tier": "test", "type": "mine"}}')
    monkeypatch.setenv("K_SINK", sink.url)
    client().post("/")
    assert len(sink.requests) == 3
    for headers, _ in sink.requests:
        assert headers["ce-tier"] == "test"
        assert unquote(headers["ce-site"]) == "Zürich 1"
        assert headers["ce-type"] == "dev.temperature.reading.v1"


@pytest.mark.parametrize(
    "overrides",
    ["nonsense", "[]", '{"extensions": []}', '{"extensions": {"Not-A-Name": "x"}}', '{"extensions": {"a": 1}}'],
)
def test_overrides_that_make_no_sense_stop_the_start(monkeypatch: pytest.MonkeyPatch, overrides: str) -> None:
    monkeypatch.setenv("K_CE_OVERRIDES", overrides)
    with pytest.raises(SettingError, match="K_CE_OVERRIDES must be JSON such as"):
        client()


def test_overrides_may_hold_no_extensions(monkeypatch: pytest.MonkeyPatch, sink: Sink) -> None:
    monkeypatch.setenv("K_CE_OVERRIDES", "{}")
    monkeypatch.setenv("SINK_URL", sink.url)
    assert client().post("/").json()["emitted"] == 3


# Which instants and temperatures


def test_a_backfill_covers_the_period_on_the_grid_of_the_interval(function: TestClient, sink: Sink) -> None:
    before = time.time()
    response = function.post("/", json={"backfill": "1h", "interval": 90})
    assert response.json() == {"emitted": 3 * 40, "retried": 0, "failed": 0}
    for building_id, room_id in ROOMS:
        source = f"/buildings/{building_id}/rooms/{room_id}"
        instants = sorted(seconds(event["time"]) for event in sink.events if event["source"] == source)
        assert instants == [instants[0] + 90 * step for step in range(40)]
        assert instants[0] % 90 == 0
        assert before - 90 < instants[-1] <= time.time()


@pytest.mark.parametrize(("period", "readings"), [("7s", 1), ("90m", 15), ("2h", 20), ("1d", 240)])
def test_a_period_has_a_unit(function: TestClient, sink: Sink, period: str, readings: int) -> None:
    body = {
        "backfill": period,
        "interval": 7 if period == "7s" else 360,
        "rooms": [{"building_id": "B", "room_id": "R"}],
    }
    assert function.post("/", json=body).json()["emitted"] == readings


def test_simulating_the_same_instants_again_emits_the_same_events(function: TestClient, sink: Sink) -> None:
    def events(**body: object) -> dict[tuple[str, str], object]:
        sink.requests.clear()
        assert function.post("/", json=body).status_code == 200
        return {(event["source"], event["id"]): event.get_data() for event in sink.events}

    for profile in ("uniform", "daily"):
        hour = events(backfill="1h", interval=60, profile=profile)
        counted = events(count=5, interval=60, profile=profile)
        # A minute may have passed between the two.
        again = hour.keys() & counted.keys()
        assert len(again) >= 3 * 4
        assert all(hour[key] == counted[key] for key in again)
    assert events(interval=86_400) == events(interval=86_400)
    assert events(interval=86_400) != events(interval=86_400, profile="daily")


def test_rooms_and_instants_differ_in_temperature(function: TestClient, sink: Sink) -> None:
    function.post("/", json={"count": 50, "profile": "daily"})
    function.post("/", json={"count": 50, "profile": "uniform"})
    temperatures: dict[str, list[float]] = {}
    for _, body in sink.requests:
        reading = json.loads(body)
        temperatures.setdefault(reading["room_id"], []).append(reading["temperature"])
    assert all(len(set(of_room)) > 50 for of_room in temperatures.values())
    assert len({tuple(sorted(of_room)) for of_room in temperatures.values()}) == 3


def test_rooms_whose_ids_make_one_text_differ(function: TestClient, sink: Sink) -> None:
    rooms = [{"building_id": "B1", "room_id": "11"}, {"building_id": "B11", "room_id": "1"}]
    function.post("/", json={"rooms": rooms})
    assert len({json.loads(body)["temperature"] for _, body in sink.requests}) == 2


def test_the_daily_profile_is_that_of_a_room_and_warmer_in_the_afternoon(function: TestClient, sink: Sink) -> None:
    function.post("/", json={"backfill": "7d", "interval": HOUR, "profile": "daily"})
    for building_id, room_id in ROOMS:
        hours: dict[int, list[float]] = {}
        for _, body in sink.requests:
            reading = json.loads(body)
            if (reading["building_id"], reading["room_id"]) == (building_id, room_id):
                hour = datetime.fromisoformat(reading["timestamp"]).astimezone(UTC).hour
                hours.setdefault(hour, []).append(reading["temperature"])
        every = [temperature for of_hour in hours.values() for temperature in of_hour]
        assert len(every) == 7 * 24
        assert 16 < min(every) <= max(every) < 27
        assert 19.5 < sum(every) / len(every) < 22.5
        assert min(sum(hours[hour]) for hour in (14, 15, 16)) > max(sum(hours[hour]) for hour in (2, 3, 4)) + 2 * 7


# What is refused


@pytest.mark.parametrize(
    ("body", "faults"),
    [
        ([], [("", "Input should be an object")]),
        (None, [("", "Input should be an object")]),
        ({"room": []}, [("room", "is not known here")]),
        ({"rooms": []}, [("rooms", "List should have at least 1 item after validation, not 0")]),
        ({"rooms": [{"building_id": "B1"}]}, [("rooms.0.room_id", "Field required")]),
        (
            {"rooms": [{"building_id": "B1", "room_id": "101"}, {"building_id": "", "room_id": 1, "floor": 2}]},
            [
                ("rooms.1.building_id", "must be a string of 1 to 255 characters, none of them NUL"),
                ("rooms.1.room_id", "must be a string of 1 to 255 characters, none of them NUL"),
                ("rooms.1.floor", "is not known here"),
            ],
        ),
        ({"count": 0}, [("count", "must be a whole number from 1 to 10000")]),
        ({"count": 10_001}, [("count", "must be a whole number from 1 to 10000")]),
        ({"count": "5"}, [("count", "must be a whole number from 1 to 10000")]),
        ({"count": True}, [("count", "must be a whole number from 1 to 10000")]),
        ({"interval": 0}, [("interval", "must be a whole number from 1 to 86400")]),
        ({"interval": 2.5}, [("interval", "must be a whole number from 1 to 86400")]),
        ({"profile": "Daily"}, [("profile", 'must be "uniform" or "daily"')]),
        *(
            ({"backfill": period}, [("backfill", "must be a period of at most 3650d, such as 90m, 24h or 2d")])
            for period in ("", "1", "h", "1w", "0h", "-1h", "1.5h", "1h30m", " 1h", "1h\n", "3651d", 60)
        ),
        ({"backfill": "1h", "count": 1}, [("count", "must not be given together with backfill")]),
        ({"backfill": "59s", "interval": 60}, [("backfill", "must not be shorter than the interval, 60 seconds")]),
        (
            {"backfill": "10d", "interval": 1},
            [("backfill", "must make at most 1000000 readings of all rooms, not 2592000")],
        ),
        (
            {"count": 10_000, "rooms": [{"building_id": "B", "room_id": str(room)} for room in range(101)]},
            [("count", "must make at most 1000000 readings of all rooms, not 1010000")],
        ),
        (
            {"count": 0, "interval": -1, "profile": None, "x": 1},
            [
                ("interval", "must be a whole number from 1 to 86400"),
                ("profile", 'must be "uniform" or "daily"'),
                ("count", "must be a whole number from 1 to 10000"),
                ("x", "is not known here"),
            ],
        ),
    ],
)
def test_every_fault_is_named_and_nothing_is_emitted(
    function: TestClient, sink: Sink, body: object, faults: list[tuple[str, str]]
) -> None:
    response = function.post("/", json=body) if body is not None else function.post("/", content=b"null")
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json() == problem(
        422,
        "Unprocessable Content",
        "Nothing was emitted: the request breaks a rule",
        errors=[{"index": 0, "field": field, "message": message} for field, message in faults],
    )
    assert response.status_code == 422
    assert sink.attempts == 0


@pytest.mark.parametrize("body", [b"{", b"count=3", b"\xff"])
def test_what_is_not_json_is_a_bad_request(function: TestClient, body: bytes) -> None:
    response = function.post("/", content=body)
    assert response.status_code == 400
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["detail"].startswith("The body is not JSON: ")


def test_a_body_without_end_is_refused(function: TestClient) -> None:
    response = function.post("/", content=b" " * (1024 * 1024 + 1))
    assert response.status_code == 413
    assert response.json()["detail"] == "A body holds at most 1048576 bytes; send it in parts"


def test_a_body_of_more_fields_than_rooms_have_is_refused_before_it_costs_anything(function: TestClient) -> None:
    response = function.post("/", content=b"{%b}" % b",".join([b'"":0'] * 20_000))
    assert (response.status_code, response.json()["detail"]) == (413, "A request holds at most 10000 commas")
    rooms = [{"building_id": "B1, North", "room_id": str(room)} for room in range(1_000)]
    assert len(simulation.parse(json.dumps({"rooms": rooms}).encode())) == 1_000


def test_of_a_long_name_the_answer_has_the_beginning(function: TestClient) -> None:
    answer = function.post("/", json={"x" * 1_000_000: 0}).json()
    assert answer["errors"] == [{"index": 0, "field": "x" * 255, "message": "is not known here"}]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("GET", "/", "POST, OPTIONS"), ("PUT", "/simulate", "POST, OPTIONS"), ("POST", "/health", "GET, HEAD, OPTIONS")],
)
def test_another_method_is_not_allowed(unbound: TestClient, method: str, path: str, allowed: str) -> None:
    response = unbound.request(method, path)
    assert (response.status_code, response.headers["allow"]) == (405, allowed)
    assert response.json() == problem(405, "Method Not Allowed", f"{path} takes {allowed} only")


@pytest.mark.parametrize("path", ["/v1/temperature", "/simulate/more"])
def test_there_is_nothing_anywhere_else(unbound: TestClient, path: str) -> None:
    response = unbound.post(path)
    assert response.status_code == 404
    assert response.json() == problem(404, "Not Found", f"There is nothing at {path}")


def test_it_is_healthy_without_a_sink(unbound: TestClient) -> None:
    response = unbound.get("/health")
    assert (response.status_code, response.json()) == (200, {"status": "ok", "message": "Service is healthy"})


def test_it_is_healthy_while_it_simulates(function: TestClient, sink: Sink) -> None:
    sink.open.clear()
    with function, ThreadPoolExecutor(1) as pool:
        simulated = pool.submit(function.post, "/")
        wait_until(lambda: sink.attempts)
        assert function.get("/health").status_code == 200
        assert not simulated.done()
        sink.open.set()
        assert simulated.result().json()["emitted"] == 3


def test_many_simulations_at_once_are_no_more_to_the_sink_than_one(function: TestClient, sink: Sink) -> None:
    sink.seconds = 0.05
    with function, ThreadPoolExecutor(4) as pool:
        simulated = [pool.submit(function.post, "/", json={"count": 10}) for _ in range(4)]
        assert [each.result().json()["emitted"] for each in simulated] == [30] * 4
    assert sink.most_at_once <= delivery.CONNECTIONS


# Where to, and what if it is not there


def test_without_a_sink_it_says_what_to_set(unbound: TestClient) -> None:
    response = unbound.post("/")
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert response.json() == problem(503, "Service Unavailable", "No sink: set K_SINK or SINK_URL")


NO_URLS = [
    "ftp://a.test/",
    "localhost:8080",
    "http://",
    "http://a b/",
    "http://[",
    "https:",
    "http://a:x/",
    "http://a..b/",
]


@pytest.mark.parametrize("url", [*NO_URLS, f"http://{'a' * 64}.test/"])
def test_a_sink_is_an_http_url(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("K_SINK", url)
    with pytest.raises(SettingError, match="K_SINK must be an http or https URL"):
        client()


def test_a_token_and_a_user_of_the_url_cannot_both_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SINK_TOKEN", "a-token-0123456789")
    monkeypatch.setenv("K_SINK", "http://somebody:secret@a.test/")
    with pytest.raises(SettingError, match="SINK_TOKEN is set, and the URL that it is for has a user") as refused:
        client()
    assert "secret" not in str(refused.value)


def test_what_other_programs_are_told_of_the_sink_goes_with_no_event(
    sink: Sink, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setattr(delivery, "is_on_this_machine", lambda _: False)
    monkeypatch.setenv("K_SINK", sink.url)
    for token, sent in (("a-token-0123456789", "Bearer a-token-0123456789"), ("", None)):
        monkeypatch.setenv("SINK_TOKEN", token)
        assert client().post("/", json={"rooms": [ROOM_101]}).json() == {"emitted": 1, "retried": 0, "failed": 0}
        assert sink.requests[-1][0].get("authorization") == sent


@pytest.mark.parametrize("scheme", ["http://", ""])
def test_a_proxy_of_the_environment_is_asked_unless_the_sink_is_excepted(
    sink: Sink, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setenv("http_proxy", sink.url.replace("http://", f"{scheme}somebody:secret@"))
    monkeypatch.setattr(delivery, "is_on_this_machine", lambda _: False)
    for url, excepted, proxied in (("http://a.test/", "b.test", True), (sink.url, "127.0.0.1", False)):
        monkeypatch.setenv("K_SINK", url)
        monkeypatch.setenv("no_proxy", excepted)
        assert client().post("/", json={"rooms": [ROOM_101]}).json()["emitted"] == 1
        assert ("proxy-authorization" in sink.requests[-1][0]) == proxied


@pytest.mark.parametrize("token", ["two\nlines", "a\ttab", "ü"])
def test_a_token_of_a_sink_fits_into_a_header(monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setenv("SINK_TOKEN", token)
    with pytest.raises(SettingError, match="SINK_TOKEN must be of ASCII characters, in one line"):
        client()


def test_an_answer_that_does_not_end_is_no_answer(
    function: TestClient, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "ANSWER_SECONDS", 0.5)
    monkeypatch.setattr(delivery, "MOST_ATTEMPTS", 1)
    sink.drips = 50
    started = time.monotonic()
    answer = function.post("/", json={"rooms": [{"building_id": "B1", "room_id": "101"}]})
    assert (answer.status_code, answer.json()["failed"]) == (502, 1)
    assert "the last with TimeoutError" in answer.json()["detail"]
    assert time.monotonic() - started < 3


def test_the_sink_of_knative_comes_before_the_setting(sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SINK_URL", "http://127.0.0.1:9/")
    monkeypatch.setenv("K_SINK", sink.url)
    assert client().post("/").json()["emitted"] == 3


def test_attempts_that_a_busy_sink_refuses_are_repeated_and_counted(function: TestClient, sink: Sink) -> None:
    sink.refuse(3, 503)
    response = function.post("/", json={"count": 10})
    assert (response.status_code, response.json()) == (200, {"emitted": 30, "retried": 3, "failed": 0})
    assert len({(event["source"], event["id"]) for event in sink.events}) == len(sink.events) == 30


@pytest.mark.parametrize("status", [408, 425, 429, 502, 503, 504])
def test_what_says_nothing_about_a_reading_is_no_refusal(function: TestClient, sink: Sink, status: int) -> None:
    sink.refuse(1, status)
    assert function.post("/").json() == {"emitted": 3, "retried": 1, "failed": 0}


@pytest.mark.parametrize("asked", ["1", "9"])
def test_a_sink_says_when_to_come_again_but_not_after_the_longest_pause(
    function: TestClient, sink: Sink, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    monkeypatch.setattr(delivery, "LONGEST_PAUSE_SECONDS", 1)
    sink.refuse(1, 429, retry_after=asked)
    started = time.monotonic()
    assert function.post("/").json() == {"emitted": 3, "retried": 1, "failed": 0}
    assert 1 <= time.monotonic() - started < 3


def test_connections_that_break_are_made_again(function: TestClient, sink: Sink) -> None:
    sink.to_reset = 2
    assert function.post("/", json={"count": 10}).json() == {"emitted": 30, "retried": 2, "failed": 0}


def test_readings_that_the_sink_refuses_for_good_are_not_repeated_but_reported(
    function: TestClient, sink: Sink
) -> None:
    sink.refuse(2, 422)
    response = function.post("/", json={"count": 4})
    assert response.status_code == 502
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json() == {
        **problem(502, "Bad Gateway", "10 emitted, 0 retried, 2 failed, the last with status 422"),
        "emitted": 10,
        "retried": 0,
        "failed": 2,
    }
    assert sink.attempts == 12


def test_a_sink_that_refuses_some_readings_among_others_is_not_given_up(sink: Sink) -> None:
    def refuse_the_next(_: Reading, failure: delivery.Failure | None) -> None:
        if failure is None:
            sink.refuse(delivery.MOST_FAILURES_IN_A_ROW // 2, 400)

    outcome = emit(readings(5 * delivery.MOST_FAILURES_IN_A_ROW), sink.url, refuse_the_next)
    assert outcome.failed > delivery.MOST_FAILURES_IN_A_ROW
    assert outcome.untried == 0


def test_a_sink_whose_refusals_do_not_count_is_there(sink: Sink) -> None:
    sink.seconds = 0.1
    sink.refuse(float("inf"), 400)
    # They take twice as long as it may take nothing.
    outcome = emit(readings(24), sink.url, patience_seconds=1, one_by_one=True, refusals_count=False)
    assert (outcome.failed, outcome.untried) == (24, 0)


def test_no_more_readings_are_tried_when_the_time_for_them_is_over(sink: Sink) -> None:
    sink.seconds = 0.1
    outcome = emit(readings(24), sink.url, one_by_one=True, seconds=0.3)
    assert 0 < outcome.untried == 24 - outcome.emitted


def test_a_redirect_is_not_followed(function: TestClient, sink: Sink) -> None:
    sink.refuse(1, 302, location=sink.url)
    response = function.post("/")
    assert response.json()["detail"] == "2 emitted, 0 retried, 1 failed, the last with status 302"


def test_a_sink_that_refuses_all_readings_is_given_up_soon(function: TestClient, sink: Sink) -> None:
    sink.refuse(float("inf"), 404)
    started = time.monotonic()
    detail = function.post("/", json={"backfill": "1d", "interval": 60}).json()["detail"]
    assert time.monotonic() - started < 2
    assert 20 <= sink.attempts < 20 + 8
    assert detail == (
        "0 emitted, 0 retried, 4320 failed, the last with status 404; "
        f"the sink was given up and {4320 - sink.attempts} of those that failed were not tried"
    )


@pytest.mark.parametrize("reason", ["status 503", "ClientConnectorError"])
def test_a_sink_that_takes_nothing_is_given_up_when_patience_ends(
    sink: Sink, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    sink.refuse(float("inf"), 503)
    with socket.socket() as nobody:
        # Bound, so that nobody else takes the port, but not listening.
        nobody.bind(("127.0.0.1", 0))
        down = f"http://127.0.0.1:{nobody.getsockname()[1]}/"
        monkeypatch.setenv("K_SINK", sink.url if reason == "status 503" else down)
        monkeypatch.setenv("SINK_PATIENCE", "1")
        started = time.monotonic()
        response = client().post("/", json={"backfill": "1d", "interval": 60})
    assert time.monotonic() - started < 4
    assert response.status_code == 502
    detail = response.json()["detail"]
    assert re.fullmatch(
        rf"0 emitted, [1-9]\d* retried, 4320 failed, the last with {reason}; "
        r"the sink was given up and 43\d\d of those that failed were not tried",
        detail,
    )
    assert "127.0.0.1" not in detail


def test_patience_is_a_number_of_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SINK_PATIENCE", "forever")
    with pytest.raises(SettingError, match="SINK_PATIENCE must be a whole number from 1 to 600, not 'forever'"):
        client()


# From Python and from the command line


def readings(number: int) -> list[Reading]:
    return [
        Reading(building_id="B", room_id="R", temperature=20.5, timestamp=datetime.fromtimestamp(instant, UTC))
        for instant in range(number)
    ]


def emit(
    found: list[Reading],
    url: str,
    done: Callable[[Reading, delivery.Failure | None], object] = lambda *_: None,
    *,
    patience_seconds: int = 5,
    one_by_one: bool = False,
    refusals_count: bool = True,
    seconds: float = 60,
) -> delivery.Outcome:
    target = sinks.Sink(url, token="", patience_seconds=patience_seconds, extensions={})

    async def delivered() -> delivery.Outcome:
        turns = asyncio.Semaphore(1) if one_by_one else None
        return await delivery.emit(
            found, events.of(target), target, seconds=seconds, refusals_count=refusals_count, done=done, turns=turns
        )

    return asyncio.run(delivered())


def test_progress_is_told_while_readings_are_delivered(sink: Sink) -> None:
    found = readings(20)
    sink.refuse(1, 400)
    told: list[str] = []
    outcome = emit(found, sink.url, lambda _, failure: told.append(failure.reason if failure else ""))
    assert (outcome.emitted, outcome.failed) == (told.count(""), told.count("status 400")) == (19, 1)
    assert emit(found, sink.url).emitted == 20
    assert {event["id"] for event in sink.events} == {f"1970-01-01T00:00:{second:02}Z/20.5" for second in range(20)}


def test_no_readings_are_delivered_at_once() -> None:
    assert str(emit([], "http://127.0.0.1:9/")) == "0 emitted, 0 retried, 0 failed"


def test_an_error_of_the_caller_ends_the_delivery(sink: Sink) -> None:
    def stop(*_: object) -> None:
        raise BrokenPipeError

    # No KeyboardInterrupt: behind one in a task, Python 3.11 parses no module any more.
    with pytest.raises(ExceptionGroup) as raised:
        emit(readings(1000), sink.url, stop)
    assert {type(error) for error in raised.value.exceptions} == {BrokenPipeError}
    assert len(sink.requests) < 100


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "functions", **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_the_command_emits_and_says_how_many(sink: Sink) -> None:
    finished = command(
        *(str(MAIN), "--sink", sink.url, "--backfill", "1h", "--interval", "600", "--profile", "daily"),
        *("--room", "B1/101", "--room", "B2/2/01"),
    )
    assert re.fullmatch(r"12 emitted, 0 retried, 0 failed; took \d+\.\d s\n", finished.stdout), finished
    assert finished.returncode == 0
    assert {event["source"] for event in sink.events} == {"/buildings/B1/rooms/101", "/buildings/B2/rooms/2%252F01"}


def test_ctrl_c_ends_the_command_with_a_sentence() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as sink,
        subprocess.Popen(
            [sys.executable, str(MAIN), "--sink", f"http://127.0.0.1:{sink.getsockname()[1]}/"],
            env={**os.environ, "PYTHONPATH": "functions"},
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        sink.settimeout(20)
        # It is sending, and is not answered.
        with sink.accept()[0]:
            process.send_signal(signal.SIGINT)
            said = process.communicate(timeout=20)[1]
    assert process.returncode == 130
    assert "Stopped; what was sent stays" in said
    assert "Traceback" not in said


def test_the_command_fails_if_any_reading_does(sink: Sink) -> None:
    sink.refuse(1, 400)
    # What it is told itself comes first.
    finished = command(str(MAIN), "--count", "2", "--sink", sink.url, K_SINK="http://127.0.0.1:9/")
    assert finished.stdout.startswith("5 emitted, 0 retried, 1 failed, the last with status 400; took ")
    assert finished.returncode == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--sink", "http://a.test/", "--count", "0"), "error: count must be a whole number from 1 to 10000\n"),
        (
            ("--sink", "http://a.test/", "--room", "B1"),
            "error: rooms.0.room_id must be a string of 1 to 255 characters",
        ),
        (("--count", "1_0"), "error: argument --count: invalid whole_number value: '1_0'\n"),
        ((), "error: No sink: set K_SINK or SINK_URL\n"),
        (("--sink", "http://a..b/"), "error: argument --sink: must be an http or https URL\n"),
    ],
)
def test_the_command_says_what_is_wrong_with_it(arguments: tuple[str, ...], message: str) -> None:
    finished = command(str(MAIN), *arguments)
    assert message in finished.stderr
    assert finished.returncode == 2


def test_the_command_sends_no_token_to_a_sink_with_a_user_of_its_own() -> None:
    finished = command(str(MAIN), "--sink", "http://me:secret@127.0.0.1:9/", SINK_TOKEN="a-token-0123456789")
    assert finished.stderr.startswith("SINK_TOKEN is set, and the URL that it is for has a user of its own")


def test_a_start_imports_nothing_that_is_not_used() -> None:
    code = f"""
import sys
from functions_framework.aio import create_asgi_app
create_asgi_app("simulate", {str(MAIN)!r})
print(sorted({{"psycopg", "pydantic", "tqdm"}} & sys.modules.keys()))
"""
    assert command("-c", code).stdout == "[]\n"


def test_a_million_readings_is_the_most_that_one_request_makes() -> None:
    rooms = [{"building_id": "B1", "room_id": str(number)} for number in range(100)]
    found = simulation.parse(json.dumps({"rooms": rooms, "count": 10_000}).encode())
    assert len(found) == 1_000_000
    with pytest.raises(Problem) as refused:
        simulation.parse(json.dumps({"rooms": [*rooms, rooms[0]], "count": 10_000}).encode())
    assert refused.value.faults[0]["message"] == "must make at most 1000000 readings of all rooms, not 1010000"
