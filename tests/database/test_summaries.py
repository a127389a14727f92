"""How summaries are brought up to date beside writers, and what else happens to a schema in use."""

import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from starlette.testclient import TestClient

from local.postgres import MONITOR, OWNER, READER, WRITER
from migrations import backfill, health
from tests.crowd import Crowd
from tests.support import LONG, SUPERUSER, Urls, migrate, wait_for_locks

LONGEST_WAIT_SECONDS = 0.5
"""Five times what is promised, for the machine has other work."""
MOST_READINGS_OF_A_STEP = 16 * 3600
"""Those of the hours that are always summed up together, of a room with a reading each second."""
NOTE_STEPS = """
    CREATE TABLE steps (
        building_id text, room_id text, since timestamptz, before timestamptz, step xid8 DEFAULT pg_current_xact_id()
    );
    CREATE FUNCTION note_step() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO steps VALUES (NEW.building_id, NEW.room_id, OLD.summed_until, NEW.summed_until);
        RETURN NULL;
    END $$;
    CREATE TRIGGER note_step AFTER UPDATE ON rooms FOR EACH ROW WHEN (OLD.summed_until < NEW.summed_until)
    EXECUTE FUNCTION note_step()
"""
READINGS_OF_STEPS = """
    SELECT count(*), max(readings)::int FROM (
        SELECT sum(readings) AS readings FROM steps CROSS JOIN LATERAL (
            SELECT count(*) AS readings FROM temperatures
            WHERE building_id = steps.building_id AND room_id = steps.room_id
              AND timestamp >= since AND timestamp < before
        ) AS of_room GROUP BY step
    ) AS step
"""
SUMMED_UP = "SELECT coalesce(sum(count), 0)::bigint FROM room_hours"
READING = "INSERT INTO temperatures VALUES ('B1', '101', %s, 20.1)"


def owner(urls: Urls) -> psycopg.Connection[Any]:
    return psycopg.connect(urls(OWNER), autocommit=True)


def one(connection: psycopg.Connection[Any], statement: str) -> Any:
    [(value,)] = connection.execute(statement).fetchall()
    return value


def test_no_writer_waits_for_a_backlog_however_unevenly_it_is_spread(plain: Urls) -> None:
    with owner(plain) as connection:
        # One of 15 years ago, so that a slice of time grows long before it meets the others.
        connection.execute(READING, (datetime(2010, 1, 1, tzinfo=UTC),))
        connection.execute(
            "INSERT INTO temperatures SELECT 'B1', '101', instant, 20.1"
            " FROM generate_series('2026-01-01'::timestamptz, '2026-01-06', '1 second') AS instant"
        )
        connection.execute("VACUUM ANALYZE temperatures")
        connection.execute(NOTE_STEPS.encode())
        done = threading.Event()

        def summarize() -> None:
            try:
                while one(connection, "SELECT count(*) FROM unsummarized WHERE since < '2026-02-01'"):
                    connection.execute("CALL summarize()")
            finally:
                done.set()

        thread = threading.Thread(target=summarize)
        waits = []
        with psycopg.connect(plain(WRITER), autocommit=True) as writer:
            begun = time.monotonic()
            thread.start()
            while not done.is_set():
                started = time.monotonic()
                writer.execute(READING, (datetime.now(UTC),))
                waits.append(time.monotonic() - started)
                time.sleep(0.02)
            thread.join()
            seconds = time.monotonic() - begun
        steps, most = connection.execute(READINGS_OF_STEPS).fetchone() or (0, 0)
        print(f"longest of {len(waits)} waits: {max(waits):.3f} s of {seconds:.1f}, {most} readings of {steps} steps")
        # A writer waits for one step.
        assert most <= MOST_READINGS_OF_A_STEP
        assert max(waits) < max(LONGEST_WAIT_SECONDS, seconds / 3)


@pytest.mark.parametrize(
    ("readings", "most_steps", "most_readings"),
    [
        # As of a clock that was never set.
        ("VALUES ('B1', '101', timestamptz '2000-01-01Z', 20.1), ('B1', '101', now(), 20.1)", 50, 1),
        (
            "SELECT 'B1', room::text, timestamptz '2024-01-01Z' + hour * interval '1:00', 20.1"
            " FROM generate_series(1, 20) AS room CROSS JOIN generate_series(1, 1000) AS hour",
            50,
            2000,
        ),
    ],
    ids=["nearly none", "one an hour"],
)
def test_a_step_of_a_backlog_takes_as_long_however_few_readings_an_hour_has(
    plain: Urls, readings: str, most_steps: int, most_readings: int
) -> None:
    with owner(plain) as connection:
        connection.execute(NOTE_STEPS.encode())
        connection.execute(f"INSERT INTO temperatures {readings}".encode())
        connection.execute("CALL summarize()")
        steps, most = connection.execute(READINGS_OF_STEPS).fetchone() or (0, 0)
        assert steps <= most_steps
        assert most <= most_readings
        assert not one(connection, "SELECT count(*) FROM unsummarized")


def test_a_day_of_a_backlog_is_summed_up_in_few_parts_beside_however_many_rooms(plain: Urls) -> None:
    with owner(plain) as connection:
        connection.execute(NOTE_STEPS.encode())
        connection.execute(
            "INSERT INTO temperatures SELECT 'B1', room::text, timestamptz '2024-01-01Z' + hour * interval '1:00', 20.1"
            " FROM generate_series(1, 200) AS room CROSS JOIN generate_series(0, 10 * 24 - 1) AS hour"
        )
        connection.execute("CALL summarize()")
        assert one(connection, "SELECT count(*) FROM steps") < 2 * 200 * 10
        assert not one(connection, "SELECT count(*) FROM unsummarized")


def test_a_reading_outside_of_time_is_refused(plain: Urls) -> None:
    outside = ("infinity", "-infinity", "0001-12-31 23:59:59.999999+00 BC", "10000-01-01 00:00+00")
    with psycopg.connect(plain(WRITER), autocommit=True) as writer:
        for known in range(2):
            for instant in outside:
                with pytest.raises(psycopg.errors.CheckViolation):
                    writer.execute(READING, (instant,))
            if not known:
                writer.execute(READING, (datetime(2026, 1, 1, tzinfo=UTC),))


def test_a_late_reading_that_is_committed_while_rooms_are_made_known_is_summed_up(plain: Urls) -> None:
    with owner(plain) as connection, psycopg.connect(plain(WRITER)) as writer:
        connection.execute(READING, (datetime(2026, 1, 1, 5, tzinfo=UTC),))
        connection.execute("DELETE FROM rooms; UPDATE upkeep SET rooms_known = false")
        writer.execute(READING, (datetime(2026, 1, 1, 12, tzinfo=UTC),))
        writer.execute(READING, (datetime(2026, 1, 1, 3, tzinfo=UTC),))
        thread = threading.Thread(target=migrate, args=(plain(OWNER),))
        thread.start()
        wait_for_locks(plain)
        writer.commit()
        thread.join()
        connection.execute("CALL summarize()")
        assert one(connection, SUMMED_UP) == 3


def test_weeks_of_days_of_the_version_before_are_made_while_late_readings_are_summed_up(plain: Urls) -> None:
    """The version before had no weeks. Whoever began to sum up with its functions may end after this."""
    monday, rooms = datetime(2026, 1, 5, tzinfo=UTC), backfill.ROOMS_OF_WEEKS_AT_ONCE + 2
    with owner(plain) as connection, psycopg.connect(plain(OWNER)) as before:
        connection.execute(
            "INSERT INTO temperatures SELECT 'B1', room::text, day, 20.1 FROM generate_series(1, %s) AS room,"
            " generate_series(%s::timestamptz, %s, '25 hours') AS day",
            (rooms, monday, monday + timedelta(days=30)),
        )
        connection.execute("CALL summarize()")
        meant = connection.execute("SELECT * FROM room_weeks ORDER BY room_id, week").fetchall()
        # The last one is not over.
        assert len(meant) == 4 * rooms
        # A run that was killed left those of a room. Meanwhile a day changed, and nobody knew of weeks.
        connection.execute("DELETE FROM room_weeks WHERE room_id <> '2'")
        connection.execute("UPDATE rooms SET weeks_until = '-infinity' WHERE room_id <> '2'")
        changed = (monday + timedelta(minutes=7),)
        before.execute("INSERT INTO temperatures VALUES ('B1', '1', %s, 30)", changed)
        before.execute("SELECT FROM rooms WHERE room_id = '1' FOR UPDATE")
        before.execute(
            "SELECT summarize_hours('{B1}', '{1}', ARRAY[%s::timestamptz], ARRAY[%s::timestamptz])",
            (monday, monday + timedelta(hours=1)),
        )
        before.execute("SELECT roll_up_days('{B1}', '{1}', ARRAY[%s::timestamptz])", (monday,))
        thread = threading.Thread(target=migrate, args=(plain(OWNER),))
        thread.start()
        wait_for_locks(plain)
        before.commit()
        thread.join()
        made = connection.execute("SELECT * FROM room_weeks ORDER BY room_id, week").fetchall()
        count, total, lowest, highest = made[0][3:7]
        assert (count, Fraction(total), lowest, highest) == (meant[0][3] + 1, Fraction(meant[0][4]) + 30, 20.1, 30)
        assert made[1:] == meant[1:]


@pytest.mark.parametrize("level", ["read committed", "repeatable read", "serializable"])
def test_what_is_committed_while_a_summary_waits_for_it_is_summed_up(plain: Urls, level: str) -> None:
    with psycopg.connect(plain(SUPERUSER), autocommit=True) as superuser:
        superuser.execute(f"ALTER DATABASE {superuser.info.dbname} SET default_transaction_isolation = '{level}'")
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    met = 0
    with owner(plain) as connection, owner(plain) as observer, psycopg.connect(plain(WRITER)) as writer:
        for hour in range(20):
            # Two of one hour that is summed up: the second finds its room marked, and changes nothing there.
            for minute in (1, 30, 40):
                connection.execute(READING, (datetime(2026, 1, 2, hour, minute, tzinfo=UTC),))
                if minute == 1:
                    connection.execute("CALL summarize()")
            writer.execute(READING, (datetime(2026, 1, 2, hour, 35, tzinfo=UTC),))
            thread = threading.Thread(target=connection.execute, args=("CALL summarize()",))
            thread.start()
            while thread.is_alive() and not (found := one(observer, waiting)):
                pass
            met += found
            writer.commit()
            thread.join()
            connection.execute("CALL summarize()")
            assert one(observer, SUMMED_UP) == 4 * (hour + 1)
    assert met > 5


@pytest.fixture
def two_schemas(plain: Urls) -> Callable[[str], Urls]:
    """The product twice in one database, each in a schema of its own."""

    def of(schema: str) -> Urls:
        return lambda role: f"{plain(role)}&options={quote(f'-csearch_path={schema}')}"

    with psycopg.connect(plain(SUPERUSER), autocommit=True) as superuser:
        superuser.execute(sql.SQL("CREATE SCHEMA temps AUTHORIZATION {}").format(sql.Identifier(OWNER)))
    migrate(of("temps")(OWNER))
    return of


def test_each_schema_of_a_database_has_summaries_of_its_own(two_schemas: Callable[[str], Urls]) -> None:
    for schema, number in (("public", 2), ("temps", 3)):
        with psycopg.connect(two_schemas(schema)(WRITER), autocommit=True) as writer:
            for minute in range(number):
                writer.execute(READING, (datetime(2026, 1, 1, 5, minute, tzinfo=UTC),))
    # One that is at work does not keep the other from it.
    with psycopg.connect(two_schemas("public")(OWNER)) as busy:
        busy.execute("SELECT pg_advisory_xact_lock(hashtext('temperature summaries of public'))")
        for schema in ("public", "temps"):
            with owner(two_schemas(schema)) as connection:
                connection.execute("CALL summarize()")
        with owner(two_schemas("public")) as connection:
            assert one(connection, SUMMED_UP) == 0, "it is left to the one that is at work"
        with psycopg.connect(two_schemas("temps")(READER)) as reader:
            assert reader.execute("SELECT count, sum FROM room_hours").fetchall() == [(3, 3 * Fraction(20.1))]
    # What the one grants to a role is not taken away by the other.
    for schema in ("public", "temps"):
        assert health.look(two_schemas(schema)(MONITOR))
    with owner(two_schemas("public")) as connection:
        connection.execute("CALL summarize()")
        assert one(connection, SUMMED_UP) == 2


@pytest.mark.parametrize("place", ["URL", "PGOPTIONS", "PGSERVICE", "service of the URL"])
def test_the_functions_find_the_schema_that_libpq_is_told(
    two_schemas: Callable[[str], Urls],
    plain: Urls,
    serve: Callable[..., TestClient],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
) -> None:
    """They ask for settings of their own in the same parameter."""
    urls = two_schemas("temps") if place == "URL" else plain
    services = tmp_path / "services"
    services.write_text("[temperatures]\noptions=-csearch_path=temps\n")
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    if place.startswith("PG"):
        monkeypatch.setenv(place, {"PGOPTIONS": "-csearch_path=temps", "PGSERVICE": "temperatures"}[place])
    service = "temperatures" if place == "service of the URL" else None
    ingest, average = (
        serve(name, DATABASE_URL=make_conninfo(urls(role), service=service))
        for name, role in (("ingest", WRITER), ("average", READER))
    )
    reading = {"building_id": "Büro", "room_id": "1", "temperature": 20.5, "timestamp": "2026-01-01T05:00:00Z"}
    assert ingest.post("/", json=reading).status_code == 201
    query = {"building_id": "Büro", "start": "2026-01-01T00:00:00Z", "end": "2026-01-02T00:00:00Z"}
    assert average.get("/v1/temperature/average", params=query).json()["count"] == 1
    with owner(two_schemas("public")) as connection:
        assert one(connection, "SELECT count(*) FROM temperatures") == 0


def test_the_zone_of_the_database_is_nothing_to_the_answers(plain: Urls, serve: Callable[..., TestClient]) -> None:
    with psycopg.connect(plain(SUPERUSER), autocommit=True) as superuser:
        superuser.execute(
            f"ALTER ROLE {READER} IN DATABASE {superuser.info.dbname} SET timezone = 'America/Los_Angeles'"
        )
    with psycopg.connect(plain(WRITER), autocommit=True) as writer:
        for instant in (datetime(2026, 1, 1, 5, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC)):
            writer.execute(READING, (instant,))
    average = serve("average", DATABASE_URL=plain(READER))
    query = {"building_id": "B1", "start": "0001-01-01T00:00:00Z", "end": "2026-02-01T00:00:00Z"}
    answer = average.get("/v1/temperature/average", params=query)
    assert (answer.status_code, answer.json()["count"]) == (200, 2), answer.text
    series = average.get("/v1/temperature/series", params={**query, "bucket": "3650d"}).json()["series"]
    assert [point["start"] for point in series] == ["0001-01-01T00:00:00Z", "2019-12-29T00:00:00Z"]


def test_each_answer_is_a_state_between_its_question_and_itself(plain: Urls, serve: Callable[..., TestClient]) -> None:
    seed = random.randrange(10**6)
    Crowd(plain, serve("average", DATABASE_URL=plain(READER)), seed).play(60 if LONG else 4)


def test_an_hour_is_summed_up_once_it_is_over_even_if_its_first_instant_is_all_it_has(plain: Urls) -> None:
    this_hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    with owner(plain) as connection:
        connection.execute(READING, (this_hour - timedelta(hours=1),))
        assert one(connection, "SELECT count(*) FROM unsummarized") == 1
        connection.execute("CALL summarize()")
        assert one(connection, "SELECT array_agg(hour) FROM room_hours") == [this_hour - timedelta(hours=1)]
        connection.execute(READING, (this_hour,))
        # At the turn of the hour it is over meanwhile.
        if datetime.now(UTC) < this_hour + timedelta(hours=1):
            assert one(connection, "SELECT count(*) FROM unsummarized") == 0


def test_readings_to_sum_up_are_counted_over_all_rooms_that_are_meant(plain: Urls) -> None:
    with owner(plain) as connection:
        connection.execute(
            "INSERT INTO temperatures SELECT building, '101', instant, 20"
            " FROM unnest(ARRAY['B1', 'B2']) AS building"
            " CROSS JOIN generate_series('2024-12-01'::timestamptz, '2024-12-01 00:02', '1 minute') AS instant"
        )
        more = "SELECT more_readings('{B1,B2}', '{101,101}', 1, %s)"
        assert [one(connection, more % than) for than in (3, 5, 6)] == [True, True, False]


def test_of_what_is_older_than_the_retention_the_oldest_hour_is_dropped_first(plain: Urls) -> None:
    with owner(plain) as connection:
        connection.execute(
            "INSERT INTO temperatures SELECT 'B1', room, '2024-12-01'::timestamptz + hour * interval '1 hour', 20"
            " FROM (VALUES ('101', 0), ('102', 1), ('102', 5)) AS reading (room, hour)"
        )
        connection.execute("UPDATE upkeep SET retention = interval '7 days'")
        assert not one(connection, "SELECT drop_expired()"), "their summaries are to stay"
        connection.execute("UPDATE upkeep SET retention = NULL")
        connection.execute("CALL summarize()")
        connection.execute("UPDATE upkeep SET retention = interval '7 days'")
        connection.execute("UPDATE rooms SET courses_missing_before = summed_until WHERE room_id = '102'")
        assert not one(connection, "SELECT drop_expired()"), "their courses are to be made"
        connection.execute("UPDATE rooms SET courses_missing_before = NULL")
        left = []
        while one(connection, "SELECT drop_expired()"):
            left.append(one(connection, "SELECT count(*) FROM temperatures"))
        # The last step is over the time in which there is nothing.
        assert left == [2, 1, 0, 0]


def test_only_what_comes_to_hours_that_are_summed_up_is_late(plain: Urls) -> None:
    late = "SELECT array_agg((late_from, late_to)::text) FROM rooms"
    hour = datetime(2024, 12, 1, 8, tzinfo=UTC)
    with owner(plain) as connection:
        connection.execute("SET timezone = 'UTC'")
        for minute in (0, 30):
            connection.execute(READING, (hour + timedelta(minutes=minute),))
        assert one(connection, late) == ["(,)"]
        connection.execute("CALL summarize()")
        connection.execute(READING, (hour + timedelta(minutes=10),))
        assert one(connection, late) == ['("2024-12-01 08:00:00+00","2024-12-01 09:00:00+00")']


def test_hours_get_their_course_room_by_room(plain: Urls) -> None:
    with owner(plain) as connection:
        connection.execute(
            "INSERT INTO temperatures VALUES ('B1', '101', '2024-12-01', 20), ('B1', '102', '2024-12-01', 20),"
            " ('B2', '101', '2024-12-01', 20)"
        )
        connection.execute("CALL summarize()")
        connection.execute("UPDATE rooms SET courses_missing_before = summed_until")
        connection.execute("CALL summarize(0, '{\"seconds\": 0}')")
        assert one(connection, "SELECT count(courses_missing_before) FROM rooms") == 3, "there was no time"
        assert one(connection, "SELECT complete_courses('B1', '101', 1)")
        untouched = "SELECT array_agg(building_id || room_id) FROM rooms WHERE courses_missing_before = summed_until"
        assert sorted(one(connection, untouched)) == ["B1102", "B2101"]
