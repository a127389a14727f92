"""Readings in the columnstore come in order, also where a chunk was written to and compressed again."""

import os
import re
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from starlette.testclient import TestClient

from local.postgres import OWNER, READER
from tests.support import ROOT, Urls, compress, migrate, wait_for_locks
from tests.transfer import text_of

Connection = psycopg.Connection[Any]
needs_sessions = pytest.mark.skipif("TIMESCALE_URL" not in os.environ, reason="PGlite is one session")
CHUNK = datetime(2024, 2, 29, tzinfo=UTC)
COMPRESS = """CALL compress(config => '{"compress_after": "24:00"}')"""
EARLIER_ORDER = "ALTER TABLE temperatures SET (timescaledb.orderby = 'timestamp, temperature')"


@pytest.fixture
def owner(community: Urls) -> Iterator[Connection]:
    with psycopg.connect(community(OWNER), autocommit=True) as connection:
        yield connection


def store(owner: Connection, *readings: tuple[int, float]) -> None:
    """Readings at days of the chunk."""
    for day, temperature in readings:
        owner.execute(
            "INSERT INTO temperatures VALUES ('B1', '101', %s, %s)", (CHUNK + timedelta(days=day), temperature)
        )


def days(owner: Connection, direction: str = "ASC") -> list[int]:
    """The days in the order in which the database has them: it takes one condition away from the index."""
    found = owner.execute(
        "SELECT timestamp FROM temperatures WHERE building_id = 'B1' AND room_id = '101' AND timestamp > %s"
        f" ORDER BY timestamp {direction}",
        (CHUNK,),
    )
    return [(instant - CHUNK).days for (instant,) in found]


def put_in_order(owner: Connection) -> None:
    """Do what the documentation says about chunks of the order of an earlier version."""
    text = (ROOT / "docs" / "upgrades.md").read_text()
    [(settings, chunks)] = re.findall(
        r"^(SELECT set_config\(.+?);\n(SELECT format\(.+?)\\gexec$", text, re.MULTILINE | re.DOTALL
    )
    owner.execute(settings)
    for (statement,) in owner.execute(chunks).fetchall():
        owner.execute(statement)


FIRST = (0, 10.0), (4, -30.0)
BETWEEN_AND_WARMER = (1, 27.0), (3, 28.0)


def test_a_chunk_that_was_written_to_and_compressed_again_has_its_readings_in_order(owner: Connection) -> None:
    for readings in (FIRST, BETWEEN_AND_WARMER):
        store(owner, *readings)
        compress(owner)
    assert days(owner) == [1, 3, 4]
    assert days(owner, "DESC") == [4, 3, 1]


def test_chunks_of_the_order_of_an_earlier_version_are_named_and_can_be_put_in_order(
    owner: Connection, community: Urls, caplog: pytest.LogCaptureFixture
) -> None:
    compress(owner)
    owner.execute(EARLIER_ORDER)
    store(owner, *FIRST)
    owner.execute("SELECT compress_chunk(chunk) FROM show_chunks('temperatures') AS chunk")
    migrate(community(OWNER))
    assert "1 chunks may be out of order in the columnstore" in caplog.text
    assert (
        owner.execute(
            "SELECT orderby FROM timescaledb_information.hypertable_columnstore_settings"
            " WHERE hypertable = 'temperatures'::regclass AND strpos(orderby, ',') > 0"
        ).fetchall()
        == []
    )
    store(owner, *BETWEEN_AND_WARMER)
    compress(owner)
    put_in_order(owner)
    assert days(owner) == [1, 3, 4]
    caplog.clear()
    migrate(community(OWNER))
    assert "out of order" not in caplog.text


@needs_sessions
def test_who_asks_while_a_chunk_is_put_in_order_sees_its_readings(
    owner: Connection, community: Urls, serve: Callable[..., TestClient]
) -> None:
    average = serve("average", DATABASE_URL=community(READER))
    query = {"building_id": "B1", "start": CHUNK.isoformat(), "end": (CHUNK + timedelta(days=7)).isoformat()}
    compress(owner)
    owner.execute(EARLIER_ORDER)
    store(owner, *FIRST)
    owner.execute("SELECT compress_chunk(chunk) FROM show_chunks('temperatures') AS chunk")
    migrate(community(OWNER))
    store(owner, *BETWEEN_AND_WARMER)
    answers: list[int] = []
    with psycopg.connect(community(OWNER)) as operator:
        # The question has its snapshot, and waits for the readings.
        operator.execute("LOCK TABLE ONLY temperatures")
        asking = threading.Thread(
            target=lambda: answers.append(average.get("/v1/temperature/average", params=query).json()["count"])
        )
        asking.start()
        wait_for_locks(community)
        put_in_order(operator)
        operator.commit()
        asking.join()
    assert answers == [len(FIRST + BETWEEN_AND_WARMER)]


@needs_sessions
def test_readings_that_are_compressed_while_they_are_summed_up_are_not_missed(
    owner: Connection, community: Urls
) -> None:
    store(owner, *FIRST)
    owner.execute("CALL summarize()")
    compress(owner)
    store(owner, *BETWEEN_AND_WARMER)
    with (
        psycopg.connect(community(OWNER), autocommit=True) as runner,
        psycopg.connect(community(OWNER)) as policy,
    ):
        # It waits for the readings when it has begun to look for what is to be summed up.
        policy.execute("LOCK TABLE ONLY temperatures")
        summarized = threading.Thread(target=runner.execute, args=("CALL summarize()",))
        summarized.start()
        wait_for_locks(community)
        policy.execute("SELECT compress_chunk(chunk) FROM show_chunks('temperatures') AS chunk")
        policy.commit()
        summarized.join()
    found = owner.execute("SELECT sum(count)::bigint, (SELECT count(*) FROM unsummarized) FROM room_hours").fetchall()
    assert found == [(len(FIRST + BETWEEN_AND_WARMER), 0)]


@needs_sessions
def test_who_asks_while_a_chunk_is_compressed_again_sees_its_readings(owner: Connection, community: Urls) -> None:
    store(owner, *FIRST)
    owner.execute(COMPRESS)
    store(owner, *BETWEEN_AND_WARMER)
    found: list[Any] = []

    def ask() -> None:
        with psycopg.connect(community(READER), autocommit=True) as connection:
            # It has its snapshot before it looks for readings.
            found.extend(
                connection.execute(
                    "SELECT count FROM upkeep LEFT JOIN room_readings("
                    "    'B1', '101', %s + (SELECT interval '0' FROM (SELECT pg_advisory_xact_lock(1)) AS waited), %s"
                    ") ON true",
                    (CHUNK, CHUNK + timedelta(days=7)),
                ).fetchall()
            )

    with (
        psycopg.connect(community(OWNER), autocommit=True) as runner,
        psycopg.connect(community(OWNER)) as holder,
    ):
        holder.execute("SELECT pg_advisory_xact_lock(1)")
        asking, compressing = threading.Thread(target=ask), threading.Thread(target=runner.execute, args=(COMPRESS,))
        asking.start()
        wait_for_locks(community)
        compressing.start()
        wait_for_locks(community, sessions=2)
        holder.commit()
        asking.join()
        compressing.join()
    assert found == [(len(FIRST + BETWEEN_AND_WARMER),)]


@needs_sessions
def test_what_comes_to_a_compressed_chunk_while_a_download_is_planned_is_in_the_next_one(
    owner: Connection, community: Urls, serve: Callable[..., TestClient]
) -> None:
    average = serve("average", DATABASE_URL=community(READER), POOL_SIZE="1")
    week_later = (7, 20.0)
    store(owner, *FIRST, week_later)
    compress(owner)
    chunks = owner.execute("SELECT chunk FROM show_chunks('temperatures') AS chunk ORDER BY 1").fetchall()
    with psycopg.connect(community(OWNER)) as holder:
        # Who plans has looked at the first chunk, and waits for the second.
        holder.execute(f"LOCK TABLE {chunks[1][0]} IN ACCESS EXCLUSIVE MODE")
        asking = threading.Thread(target=text_of, args=(average, "csv"))
        asking.start()
        wait_for_locks(community)
        store(owner, *BETWEEN_AND_WARMER)
        holder.commit()
        asking.join()
    lines = text_of(average, "csv").splitlines()[1:]
    assert len(lines) == len((*FIRST, *BETWEEN_AND_WARMER, week_later))


@needs_sessions
@pytest.mark.parametrize("is_compressed", [False, True])
def test_a_chunk_in_use_is_left_to_the_next_run(owner: Connection, community: Urls, is_compressed: bool) -> None:
    store(owner, *FIRST)
    if is_compressed:
        owner.execute(COMPRESS)
        store(owner, *BETWEEN_AND_WARMER)
    with psycopg.connect(community(READER)) as download:
        download.execute("SELECT FROM upkeep")
        with pytest.raises(psycopg.errors.RaiseException, match=r"1 chunks could not be compressed.+ lock timeout"):
            owner.execute(COMPRESS)
    owner.execute(COMPRESS)
    with psycopg.connect(community(READER)) as download:
        download.execute("SELECT FROM upkeep")
        # Nobody waits for one to which nothing came.
        owner.execute(COMPRESS)


@needs_sessions
def test_a_chunk_that_somebody_writes_to_does_not_keep_others_waiting(owner: Connection, community: Urls) -> None:
    store(owner, *FIRST, (7, 20.0))
    with psycopg.connect(community(OWNER)) as writer:
        store(writer, *BETWEEN_AND_WARMER)
        with pytest.raises(psycopg.errors.RaiseException, match=r"1 chunks could not be compressed.+ lock timeout"):
            owner.execute(COMPRESS)
    compressed = "SELECT is_compressed FROM timescaledb_information.chunks WHERE hypertable_name = 'temperatures'"
    assert owner.execute(f"{compressed} ORDER BY range_start").fetchall() == [(False,), (True,)]


def test_a_chunk_whose_readings_are_not_all_old_enough_is_not_compressed(owner: Connection) -> None:
    owner.execute("INSERT INTO temperatures VALUES ('B1', '101', now(), 20)")
    owner.execute("""CALL compress(config => '{"compress_after": "0:00"}')""")
    assert owner.execute("SELECT FROM timescaledb_information.chunks WHERE is_compressed").rowcount == 0


def test_from_which_age_chunks_are_compressed_is_to_be_said(owner: Connection) -> None:
    with pytest.raises(psycopg.errors.RaiseException, match="from which age"):
        owner.execute("CALL compress()")
