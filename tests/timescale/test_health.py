"""The jobs of TimescaleDB: one that is paused or gone is found. That it fails is tried where they run by themselves."""

import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from local.postgres import OWNER
from migrations import health
from tests.support import SUPERUSER, Urls, migrate


@pytest.fixture
def owner(community: Urls, monkeypatch: pytest.MonkeyPatch) -> Iterator[psycopg.Connection[Any]]:
    monkeypatch.setenv("COLUMNSTORE_AFTER_DAYS", "7")
    migrate(community(OWNER))
    with psycopg.connect(community(OWNER), autocommit=True) as connection:
        connection.execute("CALL summarize()")
        yield connection
    monkeypatch.undo()
    migrate(community(OWNER))


def faults(urls: Urls) -> dict[tuple[str, str], str]:
    """What is wrong, but that jobs and looks for alarms do not run by themselves here, since the server started."""
    return {
        (each.metric, each.of): each.fault
        for each in health.look(urls(SUPERUSER))
        if each.fault and each.metric not in {"job_seconds", "watch_seconds"}
    }


def test_each_job_is_known_and_well(community: Urls, owner: psycopg.Connection[Any]) -> None:
    found = {each.of: each for each in health.look(community(SUPERUSER)) if each.metric == "job_seconds"}
    assert found.keys() == {"columnstore", "refresh", "summarize"}
    # Three times its interval, and ten minutes.
    assert (found["refresh"].most, found["summarize"].most) == (960, 780)
    assert faults(community) == {}


def test_a_job_that_is_paused_or_missing_is_found(community: Urls, owner: psycopg.Connection[Any]) -> None:
    owner.execute(
        "SELECT alter_job(job_id, scheduled => false) FROM timescaledb_information.jobs WHERE proc_name = 'compress'"
    )
    owner.execute(
        "SELECT delete_job(job_id) FROM timescaledb_information.jobs WHERE proc_name IN ("
        " 'policy_refresh_continuous_aggregate', 'summarize')"
    )
    where = "docs/reliability.md#jobs-fail"
    assert faults(community) == {
        ("job_off", "columnstore"): f"The job columnstore of TimescaleDB is paused. {where}",
        ("job_off", "refresh"): f"The job refresh of TimescaleDB is missing. {where}",
        ("job_off", "summarize"): f"The job summarize of TimescaleDB is missing. {where}",
    }
    owner.execute(
        "SELECT alter_job(job_id, scheduled => true) FROM timescaledb_information.jobs WHERE proc_name = 'compress'"
    )
    migrate(community(OWNER))
    assert faults(community) == {}


def test_readings_that_should_have_been_dropped_are_found_by_chunk(
    community: Urls, owner: psycopg.Connection[Any]
) -> None:
    for days in (400, 40):
        owner.execute("INSERT INTO temperatures VALUES ('B1', '101', now() - %s * interval '1 day', 20)", (days,))
    owner.execute("UPDATE upkeep SET retention = interval '7 days'")
    owner.execute("INSERT INTO temperatures VALUES ('B1', '101', now(), 20)")
    [(about, words)] = faults(community).items()
    assert about == ("retention_seconds", "")
    # A chunk has a week.
    assert re.match(r"Readings are there 3(8[5-9]|9[0-4]) days longer than RETENTION_DAYS says", words)
    owner.execute("CALL summarize()")
    assert faults(community) == {}


def test_a_job_of_somebody_else_is_nothing_to_it(community: Urls, owner: psycopg.Connection[Any]) -> None:
    with psycopg.connect(community(SUPERUSER), autocommit=True) as superuser:
        superuser.execute("CREATE SCHEMA others CREATE TABLE measures (at timestamptz NOT NULL, value float8)")
        try:
            superuser.execute("SELECT create_hypertable('others.measures', 'at')")
            superuser.execute(
                "CREATE MATERIALIZED VIEW others.hourly WITH (timescaledb.continuous) AS"
                " SELECT time_bucket('1 hour', at) AS bucket, avg(value) FROM others.measures GROUP BY 1 WITH NO DATA"
            )
            superuser.execute(
                "SELECT alter_job(add_continuous_aggregate_policy('others.hourly', start_offset => NULL,"
                " end_offset => interval '1 hour', schedule_interval => interval '1 hour'), scheduled => false)"
            )
            assert faults(community) == {}
        finally:
            superuser.execute("DROP SCHEMA others CASCADE")
