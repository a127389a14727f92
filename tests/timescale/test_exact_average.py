"""On TimescaleDB, every average is what the readings say, whatever has been summed up and whatever came late."""

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


@pytest.fixture
def average(serve: Callable[..., TestClient], community: Urls) -> TestClient:
    return serve("average", DATABASE_URL=community(READER))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(st.tuples(exactness.readings, st.booleans()), min_size=2, max_size=4),
    interval=exactness.intervals,
)
def test_an_average_is_exact_over_any_interval(
    average: TestClient,
    community: Urls,
    steps: list[tuple[list[exactness.Reading], bool]],
    interval: tuple[datetime, datetime],
) -> None:
    with psycopg.connect(community(OWNER), autocommit=True) as connection:
        connection.execute("TRUNCATE temperatures")
        for readings, summed_up in steps:
            exactness.insert(connection, readings)
            if summed_up:
                connection.execute("CALL summarize()")
        exactness.assert_exact(average, connection, *interval)


@pytest.mark.parametrize(("zone", "change"), calendars.CHANGES)
@examples(2)
@given(data=st.data())
def test_a_series_of_a_zone_is_exact_whatever_happens_to_its_clocks(
    average: TestClient, community: Urls, zone: str, change: date, data: st.DataObject
) -> None:
    with psycopg.connect(community(OWNER), autocommit=True) as connection:
        calendars.assert_exact(average, connection, data.draw(calendars.histories(zone, change)))
