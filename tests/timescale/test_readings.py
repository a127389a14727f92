"""On TimescaleDB, what goes out comes in again as it was, from chunks of either kind."""

from collections.abc import Callable

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from average import readings
from local.postgres import OWNER, READER, WRITER
from migrations.jobs import ENABLE_COLUMNSTORE
from tests import transfer
from tests.support import ANY_CLOCK, Urls, examples


@examples(15)
@given(found=transfer.readings, cut=st.floats(0, 1))
def test_what_goes_out_comes_in_again_as_it_was(
    community: Urls, serve: Callable[..., TestClient], found: list[transfer.Reading], cut: float
) -> None:
    with pytest.MonkeyPatch.context() as patch, psycopg.connect(community(OWNER), autocommit=True) as connection:
        patch.setattr(readings, "PAGE_READINGS", 3)
        patch.setattr(readings, "PAGE_ROOMS", 2)
        ingest, average = _clients(serve, community)
        transfer.assert_round_trip(average, ingest, connection, found, cut)


_made: dict[str, tuple[TestClient, TestClient]] = {}


def _clients(serve: Callable[..., TestClient], urls: Urls) -> tuple[TestClient, TestClient]:
    if "both" not in _made:
        average = serve("average", DATABASE_URL=urls(READER))
        _made["both"] = serve("ingest", DATABASE_URL=urls(WRITER), **ANY_CLOCK), average
    return _made["both"]


def test_what_is_compressed_goes_out_in_the_same_order(community: Urls, serve: Callable[..., TestClient]) -> None:
    average = serve("average", DATABASE_URL=community(READER))
    with psycopg.connect(community(OWNER), autocommit=True) as connection:
        connection.execute(
            "INSERT INTO temperatures SELECT 'B1', room::text, %s + number * interval '37 minutes', number %% 30"
            " FROM generate_series(1, 3) AS room CROSS JOIN generate_series(1, 1500) AS number",
            (transfer.FIRST,),
        )
        before = transfer.text_of(average, "csv")
        assert before.count("\n") == 4501
        connection.execute(ENABLE_COLUMNSTORE)
        chunks = connection.execute("SELECT show_chunks('temperatures')").fetchall()
        for (chunk,) in chunks[:-1]:
            connection.execute("CALL convert_to_columnstore(%s)", (chunk,))
        assert len(chunks) > 3
        assert transfer.text_of(average, "csv") == before
