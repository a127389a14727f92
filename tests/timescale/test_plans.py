"""On a hypertable a question plans the chunks that it is about, and no others: each of them is locked until its end."""

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from average import summaries
from average.intervals import DAY, HOUR, WEEK
from local.postgres import OWNER, READER
from shared.database import Database
from tests.support import SUPERUSER, Urls

FIRST = datetime(2025, 1, 6, tzinfo=UTC)
CHUNKS = """
    SELECT count(DISTINCT relation) FROM pg_locks JOIN pg_class ON pg_class.oid = relation
    WHERE relkind = 'r' AND relname LIKE '\\_hyper\\_%chunk'
"""


def store_one_a_week(urls: Urls, first: datetime, weeks: int) -> None:
    """A reading in each chunk."""
    with psycopg.connect(urls(OWNER), autocommit=True) as owner:
        owner.execute(
            "INSERT INTO temperatures SELECT 'B1', '101', %s + week * interval '168 hours', 20"
            " FROM generate_series(0, %s) AS week",
            (first, weeks - 1),
        )


@pytest.mark.parametrize(("length", "most"), [(timedelta(hours=1), 1), (timedelta(days=7), 2)])
def test_readings_are_looked_for_in_the_chunks_of_their_interval(community: Urls, length: timedelta, most: int) -> None:
    store_one_a_week(community, FIRST, 30)
    with psycopg.connect(community(READER)) as reader:
        # Plans that are kept would be made after a few times.
        for week in range(8):
            start = FIRST + timedelta(days=7 * week, hours=-1)
            reader.execute("SELECT * FROM room_readings('B1', '101', %s, %s)", (start, start + length))
            assert (reader.execute(CHUNKS).fetchone() or (99,))[0] <= most
            reader.rollback()
            reader.execute(
                "SELECT * FROM page_of_readings('B1', '{101}', %s, %s, %s, '-Infinity', 10)",
                (start, start + length, start),
            )
            assert (reader.execute(CHUNKS).fetchone() or (99,))[0] <= most
            reader.rollback()


@pytest.mark.parametrize(
    "question",
    [
        "SELECT * FROM page_of_readings('B1', '{101,102}', %(first)s, %(end)s, %(start)s, '-Infinity', 4)",
        "SELECT * FROM latest_reading('B1', '101', %(start)s)",
    ],
)
def test_what_is_found_in_a_few_chunks_is_looked_for_in_no_others(community: Urls, question: str) -> None:
    weeks = 60
    store_one_a_week(community, FIRST, weeks)
    asked = {"first": FIRST, "start": FIRST + 20 * timedelta(days=7), "end": FIRST + weeks * timedelta(days=7)}
    with psycopg.connect(community(READER)) as reader:
        assert reader.execute(question.encode(), asked).fetchall()
        assert (reader.execute(CHUNKS).fetchone() or (99,))[0] <= 5


def test_the_plans_that_a_session_keeps_stay_small_whatever_is_asked_of_however_many_chunks(community: Urls) -> None:
    weeks = 104
    store_one_a_week(community, FIRST - timedelta(days=7 * weeks), weeks)
    # Others may not see what a session uses.
    database = Database(community(SUPERUSER), connections=1, pooled=False, deadline_seconds=10)
    with psycopg.connect(database.url, **database.options) as reader:
        before = _megabytes(reader)
        for days in range(1, 25):
            for room in ("101", None):
                for bucket in (None, DAY, HOUR, timedelta(minutes=7)):
                    end = FIRST - timedelta(days=29 * days)
                    start = FIRST - timedelta(days=30 * days, minutes=7)
                    asked = {
                        "building_id": "B1",
                        "room_id": room,
                        "start": start,
                        "end": end,
                        "bucket": bucket,
                        "by_hours": not (bucket and bucket % HOUR),
                        "by_days": not (bucket and bucket % DAY),
                        "by_weeks": not (bucket and bucket % WEEK),
                    }
                    reader.execute(summaries.BY_WIDTH.of_a_room if room else summaries.BY_WIDTH.of_a_building, asked)
                    bounds = [start, *(end - number * HOUR / 4 for number in range(9, 0, -1)), end]
                    statement = summaries.BY_BOUNDS.of_a_room if room else summaries.BY_BOUNDS.of_a_building
                    reader.execute(statement, {**asked, "bounds": bounds})
                    if room:
                        reader.execute(summaries.OF_A_ROOM_WITHOUT_HOURS, asked)
        grown = _megabytes(reader) - before
        print(f"{grown:.1f} MB")
        assert grown < 20


def _megabytes(connection: psycopg.Connection[Any]) -> float:
    [(bytes_used,)] = connection.execute("SELECT sum(total_bytes) FROM pg_backend_memory_contexts").fetchall()
    return float(bytes_used) / 1e6
