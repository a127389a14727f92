"""On a hypertable a question plans the chunks that it is about, and no others: each of them is locked until its end."""

from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from local.postgres import OWNER, READER
from tests.support import Urls

FIRST = datetime(2025, 1, 6, tzinfo=UTC)
CHUNKS = """
    SELECT count(DISTINCT relation) FROM pg_locks JOIN pg_class ON pg_class.oid = relation
    WHERE relkind = 'r' AND relname LIKE '\\_hyper\\_%chunk'
"""


@pytest.mark.parametrize(("length", "most"), [(timedelta(hours=1), 1), (timedelta(days=7), 2)])
def test_readings_are_looked_for_in_the_chunks_of_their_interval(community: Urls, length: timedelta, most: int) -> None:
    with psycopg.connect(community(OWNER), autocommit=True) as owner:
        owner.execute(
            "INSERT INTO temperatures SELECT 'B1', '101', %s + week * interval '168 hours', 20"
            " FROM generate_series(0, 29) AS week",
            (FIRST,),
        )
    with psycopg.connect(community(READER)) as reader:
        # Plans that are kept would be made after a few times.
        for week in range(8):
            start = FIRST + timedelta(days=7 * week, hours=-1)
            reader.execute(
                "SELECT * FROM readings_summary('B1', ARRAY['101'], %s, %s, NULL, NULL)", (start, start + length)
            )
            assert (reader.execute(CHUNKS).fetchone() or (99,))[0] <= most
            reader.rollback()
