"""What `average` says of a question that makes no sense: which parameter, and what it must be. No database is asked."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from starlette.testclient import TestClient

from average.questions import cursor
from tests.support import NOWHERE

TOKEN = "an-admin-token-0123456789"
FIRST, SECOND = "2024-12-01T00:00:00Z", "2024-12-02T00:00:00Z"
IDENTIFIER = "must be a string of 1 to 255 characters, none of them NUL"
INSTANT = (
    "must be an RFC 3339 timestamp with an offset, such as 2024-12-01T12:34:56Z, or with tz a local one, such as"
    " 2024-12-01T12:34 or 2024-12-01"
)
TIMESTAMP = "must be an RFC 3339 timestamp with an offset, such as 2024-12-01T12:34:56Z"
TEMPERATURE = "must be a number from -50 to 50 (degrees Celsius)"
HOLD = "must be a period of at most 31d, such as 90m, 24h or 2d"
STATISTICS = "must be stddev, first or last, or some of them with commas between"
NEXT = "must be the value of `next` in the answer before"
AFTER = "must be the last whole line of the CSV or NDJSON before, or the value of `next` in the JSON before"
KEEP_OUT = "must be 0, or a period of at most 9999d, such as 90m, 24h or 2d"
REASON = "must be a string of at most 1000 characters, none of them NUL"
BUCKETS = "makes more than 10000 buckets of the interval; ask for wider ones"

COURSES: list[tuple[dict[str, str], str, str]] = [
    ({"max_gap": "1h"}, "max_gap", "is for weighting=time, above or below; give one of them"),
    ({"max_gap": "1h", "statistics": "last"}, "max_gap", "is for weighting=time, above or below; give one of them"),
    ({"max_gap": "32d", "weighting": "time"}, "max_gap", HOLD),
    ({"max_gap": "0s", "weighting": "time"}, "max_gap", HOLD),
    ({"weighting": "area"}, "weighting", "must be reading or time"),
    ({"above": "warm"}, "above", TEMPERATURE),
    *[({"above": text}, "above", TEMPERATURE) for text in ("nan", "2_6", "\u0661", "2+6", "26 ", "1e1_0", "")],
    ({"below": "-5_1"}, "below", TEMPERATURE),
    ({"below": "-51"}, "below", TEMPERATURE),
    ({"statistics": "median"}, "statistics", STATISTICS),
    ({"statistics": "first,"}, "statistics", STATISTICS),
    ({"tz": "UTC", "end": "0001-01-02T00:00:00Z"}, "end", "leaves no room for an interval before it; give start"),
]
SERIES: list[tuple[dict[str, str], str, str]] = [
    ({"start": FIRST, "end": "2024-12-07T22:40:01Z", "bucket": "1m"}, "bucket", BUCKETS),
    # 10,000 minutes, of which the first and the last bucket have a part each.
    ({"start": "2024-12-01T00:00:30Z", "end": "2024-12-07T22:40:30Z", "bucket": "1m"}, "bucket", BUCKETS),
    ({"start": FIRST, "end": "2025-12-01T00:00:00Z", "bucket": "1s"}, "bucket", BUCKETS),
    (
        {"tz": "Europe/Zurich", "start": "2000-01-01T12:00", "end": "2027-05-19T12:00", "bucket": "1d"},
        "bucket",
        BUCKETS,
    ),
]
READINGS: list[tuple[dict[str, str], str, str]] = [
    ({"limit": "0"}, "limit", "must be a whole number from 1 to 10000"),
    ({"limit": "10001"}, "limit", "must be a whole number from 1 to 10000"),
    ({"limit": "1_0"}, "limit", "must be a whole number from 1 to 10000"),
    ({"format": "xml"}, "format", "must be json, csv or ndjson"),
    ({"room": "1"}, "room", "is not known here"),
    ({"start": "now"}, "start", INSTANT),
    ({"after": "x" * 8193}, "after", AFTER),
]
ROOMS: list[tuple[dict[str, str], str, str]] = [
    ({"building_id": ""}, "building_id", IDENTIFIER),
    ({"limit": "0"}, "limit", "must be a whole number from 1 to 10000"),
    ({"limit": "10001"}, "limit", "must be a whole number from 1 to 10000"),
    ({"limit": "1_0"}, "limit", "must be a whole number from 1 to 10000"),
    ({"after": ""}, "after", NEXT),
    ({"after": "Qg=="}, "after", NEXT),
    ({"after": "\x00"}, "after", NEXT),
    ({"after": "x" * 8193}, "after", NEXT),
]
ALARMS: list[tuple[dict[str, str], str, str]] = [
    ({"room": "101"}, "room", "is not known here"),
    ({"kind": "warm"}, "kind", "must be high, low or silent"),
    ({"state": "gone"}, "state", "must be open or cleared"),
    ({"limit": "0"}, "limit", "must be a whole number from 1 to 10000"),
    ({"limit": "10001"}, "limit", "must be a whole number from 1 to 10000"),
    ({"limit": "1_0"}, "limit", "must be a whole number from 1 to 10000"),
    ({"after": "WzFd"}, "after", NEXT),
    ({"after": "x"}, "after", NEXT),
    ({"start": SECOND, "end": FIRST}, "start", "must not be after end"),
    ({"start": "2024-12-01"}, "start", TIMESTAMP),
]
REMOVALS: list[tuple[dict[str, str], str, str]] = [
    ({"limit": "0"}, "limit", "must be a whole number from 1 to 1000"),
    ({"limit": "1001"}, "limit", "must be a whole number from 1 to 1000"),
    ({"limit": "1_0"}, "limit", "must be a whole number from 1 to 1000"),
    ({"after": "WzFd"}, "after", NEXT),
]
INTERVAL = {"start": FIRST, "end": SECOND}
REMOVE: list[tuple[dict[str, str], str, str]] = [
    ({"start": FIRST}, "end", "Field required"),
    ({"start": SECOND, "end": FIRST}, "start", "must be before end"),
    ({"start": FIRST, "end": FIRST}, "start", "must be before end"),
    ({**INTERVAL, "rooms": "101"}, "rooms", "is not known here"),
    ({**INTERVAL, "above": "hot"}, "above", TEMPERATURE),
    ({**INTERVAL, "above": "2_6"}, "above", TEMPERATURE),
    (
        {**INTERVAL, "above": "19", "below": "20"},
        "above",
        "must not be less than below: every reading would be beyond one of them",
    ),
    ({**INTERVAL, "reason": "\x00"}, "reason", REASON),
    ({**INTERVAL, "reason": "x" * 1001}, "reason", REASON),
    ({**INTERVAL, "dry_run": "perhaps"}, "dry_run", "must be true or false"),
]
FORGET: list[tuple[dict[str, str], str, str]] = [
    ({"start": FIRST}, "start", "is not known here"),
    ({"keep_out": "1w"}, "keep_out", KEEP_OUT),
    ({"keep_out": "10000d"}, "keep_out", KEEP_OUT),
]


@pytest.mark.parametrize(
    ("method", "path", "query", "field", "message"),
    [
        *(
            ("GET", path, {"building_id": "B1", **query}, *fault)
            for path in ("average", "series")
            for query, *fault in COURSES
        ),
        *(("GET", "series", {"building_id": "B1", **query}, *fault) for query, *fault in SERIES),
        *(("GET", "readings", {"building_id": "B1", **query}, *fault) for query, *fault in READINGS),
        *(("GET", "rooms", *question) for question in ROOMS),
        *(("GET", "alarms", *question) for question in ALARMS),
        *(("GET", "removals", *question) for question in REMOVALS),
        *(("DELETE", "readings", {"building_id": "B1", **query}, *fault) for query, *fault in REMOVE),
        *(("DELETE", "rooms", {"building_id": "B1", **query}, *fault) for query, *fault in FORGET),
        ("DELETE", "rooms", {}, "building_id", "Field required"),
    ],
)
def test_a_question_that_makes_no_sense_is_told_what_to_fix(
    serve: Callable[..., TestClient], method: str, path: str, query: dict[str, str], field: str, message: str
) -> None:
    average = serve("average", DATABASE_URL=NOWHERE, ADMIN_TOKENS=TOKEN)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    answer: Any = average.request(method, f"/v1/temperature/{path}", params=query, headers=headers)
    assert (answer.status_code, answer.json()["detail"]) == (422, "The question cannot be answered as it stands")
    assert answer.json()["errors"] == [{"index": 0, "field": field, "message": message}]


@pytest.mark.parametrize(
    ("path", "query"),
    [
        # 10,000 buckets, and the most that a place in the order of alarms takes.
        ("series", {"start": "2024-12-01T00:00:30Z", "end": "2024-12-07T22:40:00Z", "bucket": "1m"}),
        ("series", {"tz": "Europe/Zurich", "start": "1200-01-01", "end": "2033-05-01", "bucket": "1mo"}),
        ("series", {"tz": "Europe/Zurich", "start": "2000-01-01", "end": "2027-05-19", "bucket": "1d"}),
        ("alarms", {"after": cursor(True, FIRST, "\x01" * 255, "\x1f" * 255, "silent", UUID(int=0))}),
    ],
)
def test_what_is_just_within_a_limit_is_asked(
    serve: Callable[..., TestClient], path: str, query: dict[str, str]
) -> None:
    average = serve("average", DATABASE_URL=NOWHERE, DEADLINE_SECONDS="1")
    answer = average.get(f"/v1/temperature/{path}", params={"building_id": "B1", **query})
    assert (answer.status_code, answer.json().get("errors")) == (503, None)
