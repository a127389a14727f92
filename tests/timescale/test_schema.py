"""The schema on TimescaleDB, in both of its editions, and what the policies do."""

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from starlette.testclient import TestClient

import migrations.__main__ as migrations
from average.intervals import DAY, floor
from local.postgres import ADMIN, OWNER, READER, WRITER
from migrations import edition, state
from migrations.edition import Edition
from tests import schema
from tests.support import Urls, alembic, migrate

Connection = psycopg.Connection[Any]
NOW = datetime.now(UTC)
BUCKETS = "avg_temperature_time_interval"
AVERAGES = [BUCKETS, "avg_temperature_hourly", "avg_temperature_daily"]


@pytest.fixture
def owner(community: Urls) -> Iterator[Connection]:
    with psycopg.connect(community(OWNER), autocommit=True) as connection:
        yield connection
    # The settings that a test chose end with it.
    migrate(community(OWNER))


def run_jobs(connection: Connection, procedure: str = "policy_refresh_continuous_aggregate") -> None:
    """Do now what TimescaleDB's scheduler does in its time, from fine to coarse."""
    jobs = connection.execute(
        "SELECT job_id FROM timescaledb_information.jobs WHERE proc_name = %s ORDER BY job_id", (procedure,)
    )
    for (job,) in jobs.fetchall():
        connection.execute(f"CALL run_job({job})")


def materialized(connection: Connection, view: str) -> list[tuple[Any, ...]]:
    """What the aggregate itself holds, without its real-time part."""
    connection.execute(f"ALTER MATERIALIZED VIEW {view} SET (timescaledb.materialized_only = true)")
    rows = connection.execute(f"SELECT bucket, count, avg_temp FROM {view} ORDER BY bucket").fetchall()
    connection.execute(f"ALTER MATERIALIZED VIEW {view} SET (timescaledb.materialized_only = false)")
    return rows


def insert(connection: Connection, instant: datetime, temperature: float) -> None:
    connection.execute("INSERT INTO temperatures VALUES ('B1', '101', %s, %s)", (instant, temperature))


def policies(connection: Connection) -> dict[str, Any]:
    """What follows a setting: the configuration of each job but `summarize`."""
    rows = connection.execute("SELECT proc_name, config FROM timescaledb_information.jobs WHERE job_id >= 1000")
    return {name: config for name, config in rows.fetchall() if name != "summarize"}


def test_down_and_up_again_leave_nothing_behind(community: Urls, monkeypatch: pytest.MonkeyPatch) -> None:
    # With all the jobs there are.
    monkeypatch.setenv("COLUMNSTORE_AFTER_DAYS", "30")
    migrate(community(OWNER))
    schema.assert_down_and_up_again_leave_nothing_behind(community)


def test_roles_can_do_what_they_need_and_no_more(community: Urls) -> None:
    schema.assert_roles_can_do_what_they_need_and_no_more(community)


def test_the_community_edition_gets_a_hypertable_and_a_real_time_continuous_aggregate(owner: Connection) -> None:
    aggregates = owner.execute(
        "SELECT view_name, materialized_only FROM timescaledb_information.continuous_aggregates ORDER BY 1"
    ).fetchall()
    assert aggregates == [(BUCKETS, False)]
    assert owner.execute("SELECT hypertable_name FROM timescaledb_information.hypertables").fetchall()[0] == (
        "temperatures",
    )


def test_a_reading_is_in_the_averages_before_any_refresh(owner: Connection) -> None:
    insert(owner, NOW - timedelta(minutes=1), 22.5)
    for view in AVERAGES:
        assert owner.execute(f"SELECT avg_temp, count FROM {view}").fetchall() == [(22.5, 1)]


def test_readings_that_come_days_late_are_folded_into_the_continuous_aggregate(owner: Connection) -> None:
    early, late = NOW - timedelta(days=9), NOW - timedelta(days=40)
    insert(owner, early, 20.0)
    run_jobs(owner)
    assert [row[1:] for row in materialized(owner, BUCKETS)] == [(1, 20.0)]
    insert(owner, early, 30.0)
    insert(owner, late, 10.0)
    run_jobs(owner)
    assert [row[1:] for row in materialized(owner, BUCKETS)] == [(1, 10.0), (2, 25.0)]


@pytest.mark.parametrize("refreshed", [True, False])
def test_readings_that_are_removed_are_gone_from_the_continuous_aggregate_at_once(
    owner: Connection, community: Urls, refreshed: bool
) -> None:
    hour = floor(NOW, timedelta(hours=1)) - timedelta(days=9)
    for minute in range(6):
        insert(owner, hour - timedelta(minutes=minute), 20.0 + minute)
    # Another room, which keeps its own.
    owner.execute("INSERT INTO temperatures VALUES ('B1', '102', %s, 22)", (hour,))
    if refreshed:
        run_jobs(owner)
    remove(community, room="101", above=22.5)
    left = [("101", 2, 21.5, 43.0, 21.0, 22.0), ("101", 1, 20.0, 20.0, 20.0, 20.0), ("102", 1, 22.0, 22.0, 22.0, 22.0)]
    assert bucket_averages(owner) == left
    run_jobs(owner)
    assert bucket_averages(owner) == left


def test_a_room_that_is_forgotten_is_gone_from_averages_of_readings_that_were_dropped(
    owner: Connection, community: Urls
) -> None:
    insert(owner, NOW - timedelta(days=40), 20.0)
    owner.execute("INSERT INTO temperatures VALUES ('B1', '102', %s, 25)", (NOW - timedelta(days=40),))
    run_jobs(owner)
    owner.execute("UPDATE upkeep SET retention = '7 days'")
    owner.execute("CALL summarize()")
    assert owner.execute("SELECT FROM temperatures").rowcount == 0
    remove(community, room="101")
    assert bucket_averages(owner) == [("102", 1, 25.0, 25.0, 25.0, 25.0)]


def remove(urls: Urls, room: str | None = None, above: float | None = None) -> None:
    """Remove readings of a room, or of all, above a limit; without one forget all of it."""
    since, before = (None, None) if above is None else (NOW - timedelta(days=400), NOW)
    begin = "SELECT begin_removal('B1', %s, %s::timestamptz, %s::timestamptz, %s, NULL, 'somebody', NULL, '1 day')"
    with psycopg.connect(urls(ADMIN), autocommit=True) as admin:
        [(removal,)] = admin.execute(begin, (room, since, before, above)).fetchall()
        while not admin.execute("SELECT FROM continue_removal(%s) WHERE is_finished", (removal,)).rowcount:
            pass


def bucket_averages(connection: Connection) -> list[tuple[Any, ...]]:
    columns = "room_id, count, avg_temp, sum, min, max"
    return connection.execute(f"SELECT {columns} FROM {BUCKETS} ORDER BY bucket, room_id").fetchall()


def test_an_average_counts_a_late_reading_before_it_is_folded_in(
    owner: Connection, community: Urls, serve: Callable[..., TestClient]
) -> None:
    client = serve("average", DATABASE_URL=community(READER))
    query = {
        "building_id": "B1",
        "room_id": "101",
        "start": (NOW - timedelta(days=30)).isoformat(),
        "end": NOW.isoformat(),
    }
    insert(owner, NOW - timedelta(days=9), 20.0)
    run_jobs(owner)
    insert(owner, NOW - timedelta(days=9), 30.0)
    assert client.get("/v1/temperature/average", params=query).json()["average_temperature"] == 25.0


def test_a_reading_stored_through_ingest_is_in_the_average_asked_next(
    owner: Connection, community: Urls, serve: Callable[..., TestClient]
) -> None:
    del owner
    ingest = serve("ingest", DATABASE_URL=community(WRITER))
    average = serve("average", DATABASE_URL=community(READER))
    room = {"building_id": "B1", "room_id": "101"}
    body = [{**room, "temperature": 20 + number, "timestamp": NOW.isoformat()} for number in range(3)]
    assert ingest.post("/", json=body).json()["duplicates"] == 0
    assert ingest.post("/", json=body).json()["duplicates"] == 3
    start = (NOW - timedelta(days=1)).isoformat()
    answer = average.get("/v1/temperature/average", params={**room, "start": start}).json()
    assert (answer["average_temperature"], answer["count"]) == (21, 3)
    assert [
        (found["building_id"], found["room_id"]) for found in average.get("/v1/temperature/rooms").json()["rooms"]
    ] == [("B1", "101")]


def test_columnstore_and_retention_are_settings(
    owner: Connection, community: Urls, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert set(policies(owner)) == {"policy_refresh_continuous_aggregate"}
    monkeypatch.setenv("COLUMNSTORE_AFTER_DAYS", "30")
    monkeypatch.setenv("RETENTION_DAYS", "365")
    migrate(community(OWNER))
    found = policies(owner)
    assert set(found) == {"policy_refresh_continuous_aggregate", "compress"}
    assert found["policy_refresh_continuous_aggregate"]["start_offset"] == f"{365 * 24}:00:00"
    monkeypatch.setenv("COLUMNSTORE_AFTER_DAYS", "0")
    monkeypatch.setenv("RETENTION_DAYS", "0")
    migrate(community(OWNER))
    assert set(policies(owner)) == {"policy_refresh_continuous_aggregate"}
    assert policies(owner)["policy_refresh_continuous_aggregate"]["start_offset"] is None


@pytest.mark.skipif("TIMESCALE_URL" not in os.environ, reason="PGlite does not tell a client of a setting that changes")
def test_settings_of_a_session_change_nothing_of_what_the_migrations_do(
    community: Urls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGOPTIONS", "-cIntervalStyle=iso_8601 -cDateStyle=SQL,DMY -cquote_all_identifiers=on")
    assert migrate(community(OWNER)) is Edition.COMMUNITY


def test_readings_dropped_by_retention_stay_in_the_averages_whatever_the_setting_becomes(
    owner: Connection, community: Urls, serve: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    old = NOW - timedelta(days=25)
    insert(owner, old, 20.0)
    insert(owner, NOW - timedelta(days=1), 30.0)
    run_jobs(owner)
    [by_bucket, _] = materialized(owner, BUCKETS)
    monkeypatch.setenv("RETENTION_DAYS", "7")
    migrate(community(OWNER))
    run_jobs(owner, "summarize")
    assert owner.execute("SELECT temperature FROM temperatures").fetchall() == [(30.0,)]
    client = serve("average", DATABASE_URL=community(READER))

    def answer() -> tuple[float, int]:
        query = {"building_id": "B1", "start": (old - timedelta(days=3)).isoformat(), "end": NOW.isoformat()}
        found = client.get("/v1/temperature/average", params=query).json()
        return found["average_temperature"], found["count"]

    assert answer() == (25.0, 2)
    # What comes later still is added, before and after it is summed up.
    insert(owner, old, -20.0)
    assert answer() == (10.0, 3)
    for days in ("30", "0", "7"):
        if days == "0":
            # It is made anew.
            owner.execute(f"SELECT remove_continuous_aggregate_policy('{BUCKETS}')")
        monkeypatch.setenv("RETENTION_DAYS", days)
        migrate(community(OWNER))
        run_jobs(owner)
        run_jobs(owner, "summarize")
        assert answer() == (10.0, 3)
        assert by_bucket in materialized(owner, BUCKETS)


def test_a_chunk_is_dropped_once_all_is_made_of_it_and_only_if_it_ends_with_an_hour(owner: Connection) -> None:
    def is_dropped() -> bool:
        return owner.execute("SELECT drop_expired()").fetchall() == [(True,)]

    old = floor(NOW - timedelta(days=25), DAY)
    # The first ends at 01:30, the second at 03:00.
    owner.execute("SELECT set_chunk_time_interval('temperatures', interval '90 minutes')")
    for half_hours in range(9):
        insert(owner, old + half_hours * timedelta(minutes=30), 20.0)
    owner.execute("SELECT set_chunk_time_interval('temperatures', interval '7 days')")
    owner.execute("UPDATE upkeep SET retention = interval '7 days'")
    assert not is_dropped(), "it is not summed up"
    owner.execute("UPDATE upkeep SET retention = NULL")
    owner.execute("CALL summarize()")
    owner.execute("UPDATE upkeep SET retention = interval '7 days'")
    owner.execute("UPDATE rooms SET courses_missing_before = summed_until")
    assert not is_dropped(), "its hours have no course yet"
    owner.execute("UPDATE rooms SET courses_missing_before = NULL")
    owner.execute(
        "INSERT INTO removals (building_id, since, before, everything, until, asked_by, known_until)"
        " VALUES ('B1', '-infinity', 'infinity', true, now(), '', now())"
    )
    assert not is_dropped(), "it is being removed"
    owner.execute("UPDATE removals SET finished = now()")
    assert is_dropped()
    found = owner.execute("SELECT min(timestamp), min(dropped_before) FROM temperatures CROSS JOIN upkeep").fetchall()
    assert found == [(old + timedelta(hours=3),) * 2]


def test_readings_in_the_columnstore_are_deduplicated_and_averaged_like_others(
    owner: Connection, community: Urls, serve: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNSTORE_AFTER_DAYS", "1")
    migrate(community(OWNER))
    ingest = serve("ingest", DATABASE_URL=community(WRITER))
    average = serve("average", DATABASE_URL=community(READER))
    body = [
        {
            "building_id": "B1",
            "room_id": "101",
            "temperature": hour / 4,
            "timestamp": (NOW - timedelta(days=20, hours=hour)).isoformat(),
        }
        for hour in range(100)
    ]
    assert ingest.post("/", json=body).json()["duplicates"] == 0
    run_jobs(owner, "compress")
    assert owner.execute(
        "SELECT is_compressed FROM timescaledb_information.chunks WHERE hypertable_name = 'temperatures'"
    ).fetchall()[0] == (True,)
    assert ingest.post("/", json=body).json()["duplicates"] == 100
    query = {"building_id": "B1", "start": (NOW - timedelta(days=60)).isoformat(), "end": NOW.isoformat()}
    answer = average.get("/v1/temperature/average", params=query).json()
    assert (answer["average_temperature"], answer["count"]) == (12.375, 100)


def test_another_bucket_width_builds_the_averages_anew_unless_readings_are_missing(
    owner: Connection, community: Urls, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert(owner, NOW - timedelta(days=30), 20.0)
    with monkeypatch.context() as patch:
        patch.setenv("BUCKET_MINUTES", "15")
        migrate(community(OWNER))
        assert owner.execute("SELECT avg_temperature_bucket_width()").fetchone() == (timedelta(minutes=15),)
        assert owner.execute(f"SELECT count FROM {BUCKETS}").fetchall() == [(1,)]
        patch.setenv("RETENTION_DAYS", "7")
        migrate(community(OWNER))
        run_jobs(owner, "summarize")
        patch.setenv("BUCKET_MINUTES", "2")
        with pytest.raises(SystemExit, match=r"buckets of 15 minutes\. .+ lack the readings that were dropped since"):
            migrate(community(OWNER))
    owner.execute("TRUNCATE temperatures")


@pytest.fixture
def apache(community: Urls, monkeypatch: pytest.MonkeyPatch) -> Iterator[Urls]:
    """TimescaleDB taken for its Apache edition, of which it can do all."""
    alembic(community(OWNER), "downgrade", "base")
    with monkeypatch.context() as patch:
        for module in (edition, migrations, state):
            patch.setattr(module, "detect", lambda _: Edition.APACHE)
        patch.setattr(state, "has_aggregate", lambda *_: False)
        migrate(community(OWNER))
        yield community
        alembic(community(OWNER), "downgrade", "base")
    migrate(community(OWNER))


def test_the_apache_edition_gets_a_hypertable_and_views_of_the_same_names(
    apache: Urls, serve: Callable[..., TestClient]
) -> None:
    client = serve("average", DATABASE_URL=apache(READER))
    query = {"building_id": "B1", "start": (NOW - timedelta(days=30)).isoformat()}
    with psycopg.connect(apache(OWNER), autocommit=True) as connection:
        assert connection.execute("SELECT FROM timescaledb_information.continuous_aggregates").rowcount == 0
        assert connection.execute("SELECT hypertable_name FROM timescaledb_information.hypertables").fetchall() == [
            ("temperatures",)
        ]
        insert(connection, NOW - timedelta(days=2), 22.5)
        assert client.get("/v1/temperature/average", params=query).json()["average_temperature"] == 22.5
        for view in AVERAGES:
            assert connection.execute(f"SELECT avg_temp, count FROM {view}").fetchall() == [(22.5, 1)]


def test_down_and_up_again_leave_nothing_behind_on_the_apache_edition(apache: Urls) -> None:
    schema.assert_down_and_up_again_leave_nothing_behind(apache)


def test_with_a_licence_that_does_not_allow_it_any_more_the_continuous_aggregate_becomes_a_view(
    owner: Connection, community: Urls, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert(owner, NOW - timedelta(days=2), 22.5)
    kind = f"SELECT count(*) FROM timescaledb_information.continuous_aggregates WHERE view_name = '{BUCKETS}'"
    assert owner.execute(kind).fetchall() == [(1,)]
    with monkeypatch.context() as patch:
        for module in (edition, migrations, state):
            patch.setattr(module, "detect", lambda _: Edition.APACHE)
        assert migrate(community(OWNER)) is Edition.APACHE
    assert owner.execute(kind).fetchall() == [(0,)]
    assert owner.execute(f"SELECT avg_temp, count FROM {BUCKETS}").fetchall() == [(22.5, 1)]
    migrate(community(OWNER))
    assert owner.execute(kind).fetchall() == [(1,)]


def test_readings_that_were_there_before_the_extension_stay_in_their_table(
    owner: Connection, community: Urls, caplog: pytest.LogCaptureFixture
) -> None:
    alembic(community(OWNER), "downgrade", "0001")
    owner.execute("CREATE TABLE plain (LIKE temperatures INCLUDING ALL)")
    owner.execute("DROP TABLE temperatures")
    owner.execute("ALTER TABLE plain RENAME TO temperatures")
    insert(owner, NOW - timedelta(days=40), 22.5)
    try:
        for days in (0, 7):
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("RETENTION_DAYS", str(days))
                migrate(community(OWNER))
            assert "the extension timescaledb came after the readings, which stay in a plain table" in caplog.text
            run_jobs(owner, "summarize")
            assert owner.execute("SELECT count FROM room_hours").fetchall() == [(1,)]
            assert owner.execute("SELECT FROM temperatures").rowcount == (0 if days else 1)
    finally:
        alembic(community(OWNER), "downgrade", "base")
