"""What the statements of `average` read: ranges of indexes, whatever the interval, and no table as a whole."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from average import queries, summaries
from local.postgres import OWNER, READER
from tests.schema import SUMMARIES
from tests.support import Urls

FIRST, MONDAY = datetime(2025, 1, 1, tzinfo=UTC), datetime(2025, 1, 6, tzinfo=UTC)
PARAMETERS = {
    "building_id": "B1",
    "start": FIRST + timedelta(minutes=7),
    "bucket": None,
    "by_hours": True,
    "by_days": True,
    "by_weeks": True,
}
FILL = """
    INSERT INTO rooms (building_id, room_id, timestamp, temperature, summed_until, weeks_until)
    SELECT 'B1', room::text, %(last)s, 20, date_bin('1 hour', %(last)s, '2000-01-03 00:00+00'), %(last)s
    FROM generate_series(1, 30) AS room;
    INSERT INTO room_hours (building_id, room_id, hour, count, sum, min, max, counts, sums, mins, maxs)
    SELECT 'B1', room::text, %(first)s + hour * interval '1 hour', 120, 2400, 19, 21,
        '{30,30,30,30}', '{600,600,600,600}', '{19,19,19,19}', '{21,21,21,21}'
    FROM generate_series(1, 30) AS room CROSS JOIN generate_series(0, 2400) AS hour;
    INSERT INTO room_days SELECT 'B1', room::text, %(first)s + day * interval '24 hours', 2880, 57600, 19, 21
    FROM generate_series(1, 30) AS room CROSS JOIN generate_series(0, 99) AS day;
    INSERT INTO room_weeks SELECT 'B1', room::text, %(monday)s + week * interval '168 hours', 20160, 403200, 19, 21
    FROM generate_series(1, 30) AS room CROSS JOIN generate_series(0, 13) AS week;
    INSERT INTO building_hours SELECT 'B1', %(first)s + hour * interval '1 hour', 3600, 72000, 19, 21
    FROM generate_series(0, 24000) AS hour;
    INSERT INTO building_days SELECT 'B1', %(first)s + day * interval '24 hours', 86400, 1728000, 19, 21
    FROM generate_series(0, 10000) AS day;
    INSERT INTO temperatures SELECT 'B1', room::text, %(last)s + minute * interval '1 minute', 20
    FROM generate_series(1, 30) AS room CROSS JOIN generate_series(0, 999) AS minute
"""


@pytest.fixture
def reader(plain: Urls) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(plain(OWNER), autocommit=True) as owner:
        for statement in FILL.split(";"):
            owner.execute(statement.encode(), {"first": FIRST, "monday": MONDAY, "last": FIRST + timedelta(days=100)})
        owner.execute("ANALYZE")
    with psycopg.connect(plain(READER), autocommit=True) as connection:
        connection.execute("SET plan_cache_mode = force_generic_plan")
        yield connection


def scans(
    connection: psycopg.Connection[Any], statement: bytes = summaries.BY_WIDTH.of_a_room, **parameters: object
) -> dict[str, tuple[str, float]]:
    """How each table is reached that the statement reads, and how many rows that were."""
    (plan,) = connection.execute(
        b"EXPLAIN (ANALYZE, FORMAT JSON) " + statement, {**PARAMETERS, **parameters}, prepare=True
    ).fetchone() or [None]
    found: dict[str, tuple[str, float]] = {}

    def visit(node: dict[str, Any]) -> None:
        if (name := node.get("Relation Name")) and node["Actual Loops"]:
            found[name] = node["Node Type"], found.get(name, ("", 0.0))[1] + node["Actual Rows"] * node["Actual Loops"]
        for part in node.get("Plans", []):
            visit(part)

    visit((json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"])
    return {name: scan for name, scan in found.items() if name not in {"rooms", "upkeep"}}


@pytest.mark.parametrize("days", [1, 10, 90])
def test_an_average_of_a_room_reads_whole_weeks_a_few_days_and_hours(
    reader: psycopg.Connection[Any], days: int
) -> None:
    read = scans(reader, room_id="7", end=FIRST + timedelta(days=days, hours=5, minutes=9))
    assert {kind.partition(" ")[0] for kind, _ in read.values()} <= {"Index", "Bitmap"}
    # FIRST is a Wednesday: five days of its week are left behind the first one, of the last week those that are over.
    weeks = max(days - 5, 0) // 7
    assert read["room_hours"][1] == 23 + 5
    assert read.get("room_days", ("", 0))[1] == days - 1 - 7 * weeks
    assert read.get("room_weeks", ("", 0))[1] == weeks


@pytest.mark.parametrize("minutes", [0, 45])
def test_local_days_read_hours_and_their_quarters(reader: psycopg.Connection[Any], minutes: int) -> None:
    """In a zone whose hours begin with those of UTC, and in one where each day begins and ends within one."""
    start = FIRST + timedelta(hours=1)
    end = start + timedelta(days=90, hours=5)
    midnights = [start + timedelta(days=day, hours=3, minutes=minutes) for day in range(91)]
    asked = {"room_id": "7", "start": start, "end": end, "bounds": [start, *midnights, end]}
    read = scans(reader, summaries.BY_BOUNDS.of_a_room, **asked)
    # Of an hour in which a day begins, each quarter of that and of no other hour.
    assert round(read["room_hours"][1]) == 90 * 24 + 5
    assert "temperatures" not in read
    assert {kind.partition(" ")[0] for kind, _ in read.values()} <= {"Index", "Bitmap"}
    found = reader.execute(summaries.BY_BOUNDS.of_a_room, {**PARAMETERS, **asked}).fetchall()
    assert [number for number, *_ in found] == list(range(1, 93))
    assert sum(count for _, count, *_ in found) == 120 * (90 * 24 + 5)


def test_an_average_of_less_than_an_hour_reads_its_readings_and_nothing_else(reader: psycopg.Connection[Any]) -> None:
    start = FIRST + timedelta(days=100, hours=3, minutes=7)
    read = scans(reader, summaries.OF_A_ROOM_WITHOUT_HOURS, room_id="7", start=start, end=start + timedelta(minutes=52))
    # Seen in here, they are part of the statement's own plan.
    assert {name: rows for name, (_, rows) in read.items()} == {"temperatures": 52}
    assert read["temperatures"][0].startswith(("Index", "Bitmap"))


def test_an_average_of_a_building_reads_its_own_summaries(reader: psycopg.Connection[Any]) -> None:
    read = scans(reader, summaries.BY_WIDTH.of_a_building, end=FIRST + timedelta(days=90, hours=5, minutes=9))
    assert {name: rows for name, (_, rows) in read.items()} == {"building_hours": 23 + 5, "building_days": 89}
    assert {kind.partition(" ")[0] for kind, _ in read.values()} <= {"Index", "Bitmap"}


HOURS_OF_A_STEP, READINGS_OF_AN_HOUR = 4, 20
MOST_ROWS_OF_A_STEP = 10 * HOURS_OF_A_STEP * READINGS_OF_AN_HOUR
"""What a step reads again and again of its own hours, of their days and of its room."""
READ = """
    SELECT relname, pg_stat_get_xact_tuples_returned(oid) + pg_stat_get_xact_tuples_fetched(oid)
    FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'i')
"""
PAGE = "SELECT * FROM page_of_readings('B1', %s, %s, %s, %s, %s, %s)"
STEP = "SELECT * FROM summarize_rooms(ARRAY['B1'], ARRAY['101'], %s, patient => true)"


def rows_read(connection: psycopg.Connection[Any], statement: str, *parameters: object) -> dict[str, int]:
    """How many rows and entries of each table and index a statement reads, whatever it calls."""
    with connection.transaction():
        before = dict(connection.execute(READ.encode()).fetchall())
        connection.execute(statement.encode(), parameters)
        after = dict(connection.execute(READ.encode()).fetchall())
    return {name: number - before[name] for name, number in after.items() if number != before[name]}


def test_a_step_of_a_backlog_reads_its_own_hours_also_where_nothing_was_analysed(plain: Urls) -> None:
    """As after a large import. A plan that is made of guesses may read all of a room for each step of it."""
    with psycopg.connect(plain(OWNER), autocommit=True) as owner:
        for table in ("temperatures", *SUMMARIES):
            owner.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = false)")
        owner.execute(
            "INSERT INTO temperatures SELECT 'B1', '101', %s + number * interval '3 minutes', 20"
            " FROM generate_series(0, 19999) AS number",
            (FIRST,),
        )
        assert owner.execute("SELECT FROM pg_class WHERE relname = 'temperatures' AND reltuples >= 0").rowcount == 0
        # A plan that is kept is made after a few times.
        for _ in range(30):
            read = rows_read(owner, STEP, HOURS_OF_A_STEP)
            assert sum(read.values()) < MOST_ROWS_OF_A_STEP, read
        # Late readings, which are folded into hours of which readings were dropped.
        owner.execute("UPDATE upkeep SET dropped_before = %s", (FIRST + timedelta(hours=40),))
        owner.execute("INSERT INTO temperatures VALUES ('B1', '101', %s, 21)", (FIRST + timedelta(hours=7, seconds=1),))
        for _ in range(3):
            read = rows_read(owner, STEP, HOURS_OF_A_STEP)
            assert sum(read.values()) < MOST_ROWS_OF_A_STEP, read


@pytest.mark.parametrize("begin", [0, 1_950])
def test_a_page_of_readings_reads_little_more_than_its_lines(
    reader: psycopg.Connection[Any], plain: Urls, begin: int
) -> None:
    with psycopg.connect(plain(OWNER), autocommit=True) as owner:
        owner.execute(
            "INSERT INTO temperatures SELECT 'B1', room::text, %s + number * interval '1 minute', 20"
            " FROM generate_series(1, 30) AS room CROSS JOIN generate_series(1, 2000) AS number",
            (FIRST,),
        )
        owner.execute("VACUUM ANALYZE temperatures")
    rooms = [str(room) for room in range(1, 31)]
    after = FIRST + timedelta(minutes=begin)
    read = rows_read(reader, PAGE, rooms, FIRST, FIRST + timedelta(days=10), after, 20.0, 100)
    assert read.pop("temperatures_pkey") <= 201
    assert sum(read.values()) <= 201, read


def test_alarms_of_a_room_are_read_by_their_index(reader: psycopg.Connection[Any], plain: Urls) -> None:
    with psycopg.connect(plain(OWNER), autocommit=True) as owner:
        owner.execute(
            "INSERT INTO alarms (building_id, room_id, kind, threshold, temperature, raised, cleared)"
            " SELECT 'B1', (number %% 100)::text, 'high', 28, 29, %(first)s + number * interval '1 minute', %(last)s"
            " FROM generate_series(1, 20000) AS number",
            {"first": FIRST, "last": FIRST + timedelta(days=20)},
        )
        owner.execute("ANALYZE alarms")
    places = (f"after_{name}" for name in ("over", "raised", "building", "room", "kind", "id"))
    none = dict.fromkeys(["kind", "state", "end", *places])
    read = scans(reader, queries.of_alarms("B1", "7"), **none, room_id="7", start=FIRST, limit=1001)
    assert read["alarms"][0].partition(" ")[0] in {"Index", "Bitmap"}
    assert read["alarms"][1] == 200
