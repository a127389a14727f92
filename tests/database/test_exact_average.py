"""On plain PostgreSQL, every average is what the readings say."""

from collections.abc import Callable
from datetime import date, datetime

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from local.postgres import OWNER, READER
from tests import calendars, exactness
from tests.support import Urls, examples


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(readings=exactness.readings, interval=exactness.intervals)
def test_an_average_is_exact_over_any_interval(
    plain: Urls,
    serve: Callable[..., TestClient],
    readings: list[exactness.Reading],
    interval: tuple[datetime, datetime],
) -> None:
    client = _client(serve, plain)
    with psycopg.connect(plain(OWNER), autocommit=True) as connection:
        connection.execute("TRUNCATE temperatures")
        exactness.insert(connection, readings)
        exactness.assert_exact(client, connection, *interval)


@pytest.mark.parametrize(("zone", "change"), calendars.CHANGES)
@examples(4)
@given(data=st.data())
def test_a_series_of_a_zone_is_exact_whatever_happens_to_its_clocks(
    plain: Urls,
    serve: Callable[..., TestClient],
    monkeypatch: pytest.MonkeyPatch,
    zone: str,
    change: date,
    data: st.DataObject,
) -> None:
    monkeypatch.setenv("PGTZ", "America/St_Johns")
    with psycopg.connect(plain(OWNER), autocommit=True) as connection:
        calendars.assert_exact(_client(serve, plain), connection, data.draw(calendars.histories(zone, change)))


def test_zero_has_no_sign_whatever_the_answer_is_made_of(plain: Urls, serve: Callable[..., TestClient]) -> None:
    average = serve("average", DATABASE_URL=plain(READER))
    query = {"building_id": "B1", "start": "2024-01-01T00:00:00Z", "end": "2024-01-02T00:00:00Z"}
    with psycopg.connect(plain(OWNER), autocommit=True) as connection:
        for room, temperature in (("101", 0.0), ("102", -0.0), ("103", 0.0), ("104", -0.0)):
            connection.execute(
                "INSERT INTO temperatures VALUES ('B1', %s, %s, %s)", (room, query["start"], temperature)
            )
        for _ in range(2):
            for more in ({}, {"weighting": "time"}, {"room_id": "102"}, {"room_id": "102", "statistics": "stddev"}):
                answer = average.get("/v1/temperature/average", params=query | more).json()
                assert [repr(answer[name]) for name in ("average_temperature", "min", "max")] == ["0.0"] * 3, more
            connection.execute("CALL summarize()")


_clients: dict[str, TestClient] = {}


def _client(serve: Callable[..., TestClient], urls: Urls) -> TestClient:
    url = urls(READER)
    if url not in _clients:
        _clients[url] = serve("average", DATABASE_URL=url)
    return _clients[url]
