"""Whatever is sent, the functions keep to their API descriptions. Schemathesis sends what those allow, and does not.

Three sources of requests for each operation: the examples, every rule at its boundary and beyond, and random ones.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
import requests
import schemathesis
from schemathesis.checks import positive_data_acceptance
from schemathesis.config import SchemathesisConfig

from bench import stack
from local.postgres import ADMIN, OWNER, READER, WATCHER, WRITER
from shared.problems import Problem
from simulate.simulation import parse
from tests.support import ANY_CLOCK, ROOT, Urls, examples

TOKEN = "a-token-0123456789"


def description(function: str) -> dict[str, Any]:
    """What a function says of itself where tokens are listed."""
    document = json.loads((ROOT / "functions" / function / "openapi.json").read_text())
    return {**document, "servers": [{"url": "."}]}


def described(function: str, **checks: bool) -> schemathesis.BaseSchema:
    """What a function says of itself, and the checks of its answers: all of schemathesis's, unless one is False."""
    config = SchemathesisConfig.from_dict(
        {
            "auth": {"openapi": {"token": {"bearer": TOKEN}}},
            "checks": {
                # More items than maxItems are a body too large, and a long query is one of headers that are too large:
                # schemathesis knows neither for a refusal.
                "negative_data_rejection": {"expected-statuses": ["400", "401", "413", "415", "422", "431"]},
                **{name: {"enabled": enabled} for name, enabled in checks.items()},
            },
        }
    )
    return schemathesis.openapi.from_dict(description(function), config=config)


@schemathesis.serializer("application/x-ndjson")
def line(_: Any, value: Any) -> bytes:
    return json.dumps(value).encode() + b"\n"


@schemathesis.serializer("text/csv")
def table(_: Any, value: Any) -> bytes:
    return str(value).encode()


@contextmanager
def serving(name: str, url: str = "", **variables: str) -> Iterator[str]:
    """The address of a function, served as its image does, that wants the token."""
    tokens = {"WRITE_TOKENS": TOKEN, "READ_TOKENS": TOKEN}
    with stack.serve(stack.command(), {**stack.target(name, url), **tokens, **variables}) as served:
        address = f"http://127.0.0.1:{served.port}"
        assert requests.get(f"{address}/openapi.json", timeout=5).json() == description(name)
        yield address


@pytest.fixture
def ingest(plain: Urls) -> Iterator[str]:
    with serving("ingest", plain(WRITER), **ANY_CLOCK) as address:
        yield address


@pytest.fixture
def average(plain: Urls) -> Iterator[str]:
    with psycopg.connect(plain(OWNER)) as connection:
        # Of the room of the examples, in the interval by default.
        connection.execute("INSERT INTO temperatures VALUES ('B1', '101', now() - interval '2 minutes', 22.5)")
    with serving("average", plain(READER), ADMIN_TOKENS=TOKEN, ADMIN_DATABASE_URL=plain(ADMIN)) as address:
        yield address


@pytest.fixture
def simulate(ingest: str) -> Iterator[str]:
    with serving("simulate", K_SINK=ingest, SINK_TOKEN=TOKEN) as address:
        yield address


@pytest.fixture
def watch(plain: Urls) -> Iterator[str]:
    with serving("watch", plain(WATCHER), ALARM_RULES='[{"above": 28}]') as address:
        yield address


@described("ingest").parametrize()
@examples(100)
def test_ingest_keeps_to_its_description(case: Any, ingest: str) -> None:
    # That data_base64 holds a reading, that the year is one in UTC too, and what CSV is, is more than a description can
    # say.
    beyond = case.media_type == "text/csv" or re.search("data_base64|0001-01-01|9999-12-31", str(case.body))
    case.call_and_validate(base_url=ingest, excluded_checks=[positive_data_acceptance] if beyond else [])


# That start is not after end, and the like, is more than a description can say of a parameter.
@described("average", positive_data_acceptance=False).parametrize()
@examples(100)
def test_average_keeps_to_its_description(case: Any, average: str) -> None:
    # Two names of the same, so that nearly every question would end there.
    if case.meta.generation.mode.is_positive and {"start", "query_datetime"} <= case.query.keys():
        del case.query["query_datetime"]
    case.call_and_validate(base_url=average)


# Nor can it say that so many rooms and a backfill so long make too many readings.
@described("simulate", positive_data_acceptance=False).parametrize()
@examples(100)
def test_simulate_keeps_to_its_description(case: Any, simulate: str) -> None:
    # More of them take too long.
    if case.method != "POST" or readings(case.body) <= 30:
        case.call_and_validate(base_url=simulate)


@described("watch").parametrize()
@examples(20)
def test_watch_keeps_to_its_description(case: Any, watch: str) -> None:
    case.call_and_validate(base_url=watch)


def readings(body: object) -> int:
    """How many readings simulate would emit; none if it refuses the body."""
    try:
        return len(parse(json.dumps(body).encode()))
    except (Problem, TypeError):
        return 0
