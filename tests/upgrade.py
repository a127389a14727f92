"""A database as the version before made it, and what is written to it while it is brought to the newest schema."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import psycopg

from local.postgres import OWNER, READER, WRITER
from tests.exactness import Reading
from tests.support import Urls, alembic, wait_until

BEFORE = "0003"
# That of the version before.
INSERT = """
    INSERT INTO temperatures (building_id, room_id, timestamp, temperature)
    SELECT * FROM unnest(%s::text[], %s::text[], %s::timestamptz[], %s::float8[])
        AS reading (building_id, room_id, timestamp, temperature)
    ORDER BY building_id COLLATE "C", room_id COLLATE "C", timestamp, temperature
"""


def version_before(urls: Urls) -> None:
    """Bring the database to the last revision of the version before."""
    alembic(urls(OWNER), "downgrade", BEFORE)
    with psycopg.connect(urls(OWNER)) as connection:
        connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {READER}")


def at(urls: Urls, revision: str) -> None:
    """Bring the database to what the revision made of an empty one, and let the functions of then use it."""
    alembic(urls(OWNER), "downgrade", "base")
    alembic(urls(OWNER), "upgrade", revision)
    with psycopg.connect(urls(OWNER)) as connection:
        connection.execute(f"GRANT INSERT ON temperatures TO {WRITER}")


def store(connection: psycopg.Connection[Any], rows: list[Reading]) -> None:
    """Store readings as the version before does."""
    connection.execute(INSERT, [list(column) for column in zip(*rows, strict=True)])


@contextmanager
def still_written_to(urls: Urls, since: datetime) -> Iterator[list[Reading]]:
    """Let a function of the version before store readings of some rooms, late ones too; yield those it stored."""
    stored: list[Reading] = []
    over, errors = threading.Event(), []

    def write() -> None:
        try:
            with psycopg.connect(urls(WRITER), autocommit=True) as writer:
                while not over.is_set():
                    number = len(stored)
                    rows = [
                        ("B1", f"{100 + number % 7}", since + _hours(number * 37 % 100, number), 20.1),
                        ("B1", "new", since + _hours(200 - number % 200, number), 19.9),
                    ]
                    store(writer, rows)
                    stored.extend(rows)
                    over.wait(0.01)
        except BaseException as error:  # noqa: BLE001 - it is raised below
            errors.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    wait_until(lambda: stored or errors)
    try:
        yield stored
    finally:
        over.set()
        thread.join()
    if errors:
        raise errors[0]


def _hours(hours: int, number: int) -> timedelta:
    return timedelta(hours=hours, seconds=number, microseconds=1)
