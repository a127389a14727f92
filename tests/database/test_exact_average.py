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


_clients: dict[str, TestClient] = {}


def _client(serve: Callable[..., TestClient], urls: Urls) -> TestClient:
    url = urls(READER)
    if url not in _clients:
        _clients[url] = serve("average", DATABASE_URL=url)
    return _clients[url]
