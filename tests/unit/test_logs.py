"""What a function writes to its log, as its image runs it."""

import json
import re
import socket
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
import requests
from starlette.requests import Request
from starlette.responses import Response
from starlette.testclient import TestClient

from bench.stack import command, serve, target
from local.visitors import application
from shared.problems import Problem
from shared.settings import SettingError
from tests.support import NOWHERE, python

READING: dict[str, Any] = {
    "building_id": "B1",
    "room_id": "101",
    "temperature": 22.5,
    "timestamp": "2024-12-01T12:34:56Z",
}
SECRET = "the-password-of-the-database"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_json_has_a_line_for_each_request_that_failed_with_what_an_operator_looks_for(log: Path) -> None:
    variables = {**target("ingest", NOWHERE), "LOG_FORMAT": "json", "DEADLINE_SECONDS": "1"}
    with serve(command(), variables, log=log) as served:
        event = {"ce-id": "7", "ce-source": "/s", "ce-type": "t", "ce-specversion": "1.0", "X-Request-Id": "of-gateway"}
        address = f"http://127.0.0.1:{served.port}/"
        stored = requests.post(address, json=READING, headers=event, timeout=10)
        refused = requests.post(address + "temperature?secret", json={**READING, "temperature": 99}, timeout=10)
    (one,) = [line for line in lines(log) if line.get("status") == 503]
    assert (one["request_id"], one["cloudevent_id"], one["method"], one["path"]) == ("of-gateway", "7", "POST", "/")
    assert (one["level"], one["logger"]) == ("warning", "edge")
    assert 900 < one["duration_ms"] < 5000
    assert stored.headers["X-Request-Id"] == "of-gateway"
    (other,) = [line for line in lines(log) if line.get("status") == 422]
    assert (other["request_id"], other["path"]) == (refused.headers["X-Request-Id"], "/temperature")
    assert "cloudevent_id" not in other


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        # HTTP has a 5xx for it, and yet it is no fault of the function.
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
    ],
)
def test_the_lines_of_the_server_are_json_too(log: Path, sent: bytes, status: int) -> None:
    variables = {**target("ingest", NOWHERE), "LOG_FORMAT": "json"}
    with (
        serve(command(), variables, log=log) as served,
        socket.create_connection(("127.0.0.1", served.port)) as connection,
    ):
        connection.sendall(sent)
        [request_id] = re.findall(rb"x-request-id: (\w+)", connection.recv(1000))
    messages = {line["message"]: line for line in lines(log)}
    assert "Finished server process" in " ".join(messages)
    [line] = [line for line in messages.values() if line.get("status") == status]
    assert (line["request_id"], line["path"], line["level"]) == (request_id.decode(), "-", "info")


def test_success_has_a_line_only_at_level_debug(log: Path) -> None:
    for level, expected in (("info", 0), ("debug", 1)):
        with serve(command(), {**target("ingest"), "LOG_FORMAT": "json", "LOG_LEVEL": level}, log=log) as served:
            requests.post(f"http://127.0.0.1:{served.port}/", json=[], timeout=10)
        assert sum(line.get("status") == 201 for line in lines(log)) == expected


@pytest.mark.parametrize("name", ["ingest", "average"])
def test_no_password_of_the_database_is_logged_or_answered(log: Path, name: str) -> None:
    url = NOWHERE.replace("nobody@", f"nobody:{SECRET}@")
    variables = {**target(name, url), "LOG_LEVEL": "debug", "LOG_FORMAT": "json", "DEADLINE_SECONDS": "1"}
    with serve(command(), variables, log=log) as served:
        address = f"http://127.0.0.1:{served.port}"
        answers = [
            requests.post(address, json=READING, timeout=10),
            *(
                requests.get(address + path, timeout=10)
                for path in ("/v1/temperature/rooms", "/ready", "/settings", "/metrics", "/openapi.json")
            ),
        ]
    assert 503 in [answer.status_code for answer in answers]
    assert SECRET not in "".join(f"{answer.headers}{answer.text}" for answer in answers)
    assert SECRET not in log.read_text()


def test_what_a_client_sends_begins_no_line(log: Path) -> None:
    with serve(command(), target("ingest", NOWHERE), log=log) as served:
        address = f"http://127.0.0.1:{served.port}/%0Dforged"
        for request_id in ("two words", "x" * 1000, "\u00fc"):
            answer = requests.get(address, headers={"ce-id": "a\x85forged", "X-Request-Id": request_id}, timeout=10)
            assert answer.headers["X-Request-Id"] != request_id
    assert "/%0Dforged" in log.read_text()
    assert not [line for line in log.read_text().splitlines() if line.startswith("forged")]


def test_what_an_error_says_of_it_begins_no_line_either() -> None:
    fails = (
        'from shared import logs; import logging; logs.configure(); logging.error("x", exc_info=ValueError("a\\n{}"))'
    )
    forged = "2026-01-01 00:00:00,000 - INFO - ingest - forged"
    log = python("-c", fails.format(forged)).stderr
    assert forged in log
    assert [line for line in log.splitlines() if not line.startswith(" ")] == [log.splitlines()[0]]


def test_a_line_has_the_beginning_of_what_a_client_sends_at_length(log: Path) -> None:
    with serve(command(), {**target("ingest", NOWHERE), "LOG_FORMAT": "json"}, log=log) as served:
        address = f"http://127.0.0.1:{served.port}/"
        refused = [
            requests.get(address + "x" * 60_000, timeout=10),
            requests.get(address + "y", headers={"ce-id": "\x80" * 60_000}, timeout=10),
        ]
    path, event = [line for line in lines(log) if line.get("status") == 404]
    assert [path["request_id"], event["request_id"]] == [each.headers["X-Request-Id"] for each in refused]
    assert (path["path"], event["cloudevent_id"]) == ("/" + "x" * 999, "\x80" * 1_000)
    assert len(log.read_text()) < 20_000


def test_a_line_has_the_beginning_of_what_an_error_says(caplog: pytest.LogCaptureFixture) -> None:
    async def function(_: Request) -> Response:
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "Ask again") from RuntimeError(
            f"canceling statement: {10_000 * 'x'}"
        )

    assert TestClient(application(function)).get("/").json()["detail"] == "Ask again"
    (line,) = [record.getMessage() for record in caplog.records if record.name == "edge"]
    assert "RuntimeError('canceling statement: xxx" in line
    assert len(line) < 1_200


@pytest.mark.parametrize(("name", "value"), [("LOG_LEVEL", "loud"), ("LOG_FORMAT", "xml")])
def test_a_setting_that_makes_no_sense_stops_the_start(name: str, value: str) -> None:
    stopped = python("-c", "from shared import logs; logs.configure()", **{name: value})
    assert (stopped.returncode, SettingError.__name__ in stopped.stderr) == (1, False)
    assert f"{name} must be" in stopped.stderr


def test_a_log_that_cannot_be_written_stops_the_start_too() -> None:
    stopped = python("-c", "from shared import logs; logs.configure()", LOG_FILE="/nonexistent/log")
    words = "The log /nonexistent/log cannot be written (No such file or directory); choose another LOG_FILE\n"
    assert (stopped.returncode, stopped.stderr) == (1, words)
