"""What the migrations leave of TimescaleDB's jobs: their numbers, their history, and what somebody set of them."""

import os
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from local.postgres import OWNER
from migrations.jobs import ENABLE_COLUMNSTORE
from tests.support import LONG, SUPERUSER, Urls, migrate, python, wait_until

Connection = psycopg.Connection[Any]
SEED = int(os.environ.get("SEED") or random.randrange(10**6))
SUMMARIZE, REFRESH, COMPRESS = "summarize", "policy_refresh_continuous_aggregate", "compress"
BUCKETS = "avg_temperature_time_interval"
# What `alter_job` sets, and no setting of the migrations does.
OPERATED = "schedule_interval, max_runtime, max_retries, retry_period, scheduled, fixed_schedule, initial_start"


@pytest.fixture
def owner(community: Urls) -> Iterator[Connection]:
    with psycopg.connect(community(OWNER), autocommit=True) as connection:
        yield connection
        for procedure in (SUMMARIZE, REFRESH, COMPRESS):
            for job, *_ in jobs(connection, procedure):
                connection.execute("SELECT delete_job(%s)", (job,))
    # The settings that a test chose end with it.
    migrate(community(OWNER))


def jobs(connection: Connection, procedure: str) -> list[tuple[Any, ...]]:
    """The jobs of the schema that run the procedure: number, configuration, and what somebody may have set of them."""
    return connection.execute(
        f"SELECT job_id, config, {OPERATED} FROM timescaledb_information.jobs WHERE proc_name = %s ORDER BY job_id",
        (procedure,),
    ).fetchall()


def history(connection: Connection) -> list[tuple[Any, ...]]:
    """What is known of the runs of all jobs."""
    return connection.execute(
        "SELECT job_id, total_runs, total_successes, total_failures,"
        " last_run_started_at::text, next_start::text"
        " FROM timescaledb_information.job_stats WHERE job_id >= 1000 ORDER BY job_id"
    ).fetchall()


def run_for_a_while(community: Urls, connection: Connection) -> None:
    """Have TimescaleDB's scheduler run each job once; in WebAssembly there is none: then say when it would."""
    if not os.environ.get("TIMESCALE_URL"):
        connection.execute(
            "SELECT alter_job(job_id, next_start => '2030-01-01 00:00+00')"
            " FROM timescaledb_information.jobs WHERE job_id >= 1000"
        )
        return
    with psycopg.connect(community(SUPERUSER), autocommit=True) as superuser:
        superuser.execute("SELECT _timescaledb_functions.start_background_workers()")
        try:
            # One that is running starts next at '-infinity'. One of TimescaleDB's own may stay so for minutes.
            running = "SELECT FROM timescaledb_information.jobs WHERE job_id >= 1000 AND next_start = '-infinity'"
            wait_until(
                lambda: all(runs for _, runs, *_ in history(connection)) and not connection.execute(running).rowcount,
                seconds=120,
            )
        finally:
            superuser.execute("SELECT _timescaledb_functions.stop_background_workers()")


def test_three_runs_of_the_migrations_change_nothing_of_jobs_that_ran(
    owner: Connection, community: Urls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETENTION_DAYS", "30")
    monkeypatch.setenv("COLUMNSTORE_AFTER_DAYS", "30")
    migrate(community(OWNER))
    run_for_a_while(community, owner)
    everything = "SELECT * FROM timescaledb_information.jobs WHERE job_id >= 1000 ORDER BY job_id"
    before = history(owner), owner.execute(everything).fetchall()
    assert len(before[1]) == 3
    for _ in range(3):
        migrate(community(OWNER))
    assert (history(owner), owner.execute(everything).fetchall()) == before


def test_a_setting_that_changes_changes_the_job_and_nothing_else_of_it(
    owner: Connection, community: Urls, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("COLUMNSTORE_AFTER_DAYS", "30")
    migrate(community(OWNER))
    run_for_a_while(community, owner)
    for procedure, further in (
        (SUMMARIZE, None),
        (REFRESH, "max_batches_per_execution"),
        (COMPRESS, "anything"),
    ):
        ((job, *_),) = jobs(owner, procedure)
        owner.execute(
            "SELECT alter_job(%s, schedule_interval => interval '7 minutes', max_runtime => interval '8 minutes',"
            " max_retries => 9, retry_period => interval '10 minutes', scheduled => false)",
            (job,),
        )
        if further:
            owner.execute(
                "SELECT alter_job(job_id, config => config || jsonb_build_object(%s::text, 11))"
                " FROM timescaledb_information.jobs WHERE job_id = %s",
                (further, job),
            )
    past = history(owner)
    before = {procedure: jobs(owner, procedure) for procedure in (SUMMARIZE, REFRESH, COMPRESS)}
    monkeypatch.setenv("COLUMNSTORE_AFTER_DAYS", "40")
    monkeypatch.setenv("RETENTION_DAYS", "365")
    caplog.clear()
    migrate(community(OWNER))
    assert history(owner) == past
    ages = {SUMMARIZE: {}, REFRESH: {"start_offset": "8760:00:00"}, COMPRESS: {"compress_after": "960:00:00"}}
    for procedure, ((job, config, *operated),) in before.items():
        changed = config if config is None else {**config, **ages[procedure]}
        assert jobs(owner, procedure) == [(job, changed, *operated)]
        assert f"TimescaleDB's job {job} is paused, and stays so" in caplog.text
    monkeypatch.setenv("COLUMNSTORE_AFTER_DAYS", "0")
    monkeypatch.setenv("RETENTION_DAYS", "0")
    migrate(community(OWNER))
    assert jobs(owner, COMPRESS) == []
    ((job, config, *_),) = jobs(owner, REFRESH)
    assert (job, config["start_offset"]) == (before[REFRESH][0][0], None)


def test_a_job_that_may_have_lost_its_time_zone_is_named(
    owner: Connection, community: Urls, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("COLUMNSTORE_AFTER_DAYS", "30")
    migrate(community(OWNER))
    ((job, *_),) = jobs(owner, COMPRESS)
    owner.execute(
        "SELECT alter_job(%s, fixed_schedule => true, initial_start => '2026-01-01 03:00+01',"
        " timezone => 'Europe/Berlin')",
        (job,),
    )
    migrate(community(OWNER))
    assert "time zone" not in caplog.text
    monkeypatch.setenv("COLUMNSTORE_AFTER_DAYS", "40")
    monkeypatch.setenv("RETENTION_DAYS", "365")
    migrate(community(OWNER))
    assert caplog.text.count("time zone") == 1
    assert f"TimescaleDB's job {job} has a fixed schedule. If it had a time zone, that is gone" in caplog.text


def test_jobs_on_what_is_not_the_products_are_left_alone(
    owner: Connection, community: Urls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNSTORE_AFTER_DAYS", "30")
    owner.execute("CREATE TABLE others (at timestamptz NOT NULL, value float8)")
    owner.execute("SELECT create_hypertable('others', 'at')")
    owner.execute(
        "CREATE MATERIALIZED VIEW of_others WITH (timescaledb.continuous) AS"
        " SELECT time_bucket(interval '1 hour', timestamp) AS bucket, count(*) FROM temperatures GROUP BY 1"
        " WITH NO DATA"
    )
    try:
        owner.execute("ALTER TABLE others SET (timescaledb.enable_columnstore)")
        owner.execute("CALL add_columnstore_policy('others', after => interval '3 days')")
        owner.execute("SELECT add_retention_policy('others', drop_after => interval '9 days')")
        owner.execute(
            "SELECT add_continuous_aggregate_policy('of_others', start_offset => interval '3 days',"
            " end_offset => interval '1 hour', schedule_interval => interval '1 hour')"
        )
        owner.execute("SELECT delete_job(job_id) FROM timescaledb_information.jobs WHERE proc_name = 'summarize'")
        with psycopg.connect(community(SUPERUSER), autocommit=True) as superuser:
            superuser.execute(f"CREATE SCHEMA of_others AUTHORIZATION {OWNER}")
        # As the product has them, in a schema of its own.
        for procedure in (SUMMARIZE, COMPRESS):
            owner.execute(f"CREATE PROCEDURE of_others.{procedure}(integer, jsonb) LANGUAGE plpgsql AS 'BEGIN END'")
            owner.execute(f"SELECT add_job('of_others.{procedure}', '1 hour', config => '{{\"age\": \"9 days\"}}')")
        theirs = "SELECT * FROM timescaledb_information.jobs WHERE config::text ~ '3 days|9 days' ORDER BY job_id"
        before = owner.execute(theirs).fetchall()
        assert len(before) == 5
        migrate(community(OWNER))
        assert owner.execute(theirs).fetchall() == before
        assert [len(jobs(owner, procedure)) for procedure in (SUMMARIZE, REFRESH, COMPRESS)] == [2, 2, 2]
    finally:
        owner.execute("DROP SCHEMA of_others CASCADE")
        owner.execute("DROP MATERIALIZED VIEW of_others")
        owner.execute("DROP TABLE others")


def test_whatever_was_done_to_the_jobs_there_is_one_of_each_and_the_oldest_stays(
    owner: Connection, community: Urls, monkeypatch: pytest.MonkeyPatch
) -> None:
    print(f"SEED={SEED}")
    chance = random.Random(SEED)
    for step in range(60 if LONG else 6):
        retention, compressed = chance.choice([0, 30, 365]), chance.choice([0, 10, 20])
        monkeypatch.setenv("RETENTION_DAYS", str(retention))
        monkeypatch.setenv("COLUMNSTORE_AFTER_DAYS", str(compressed))
        before = {procedure: jobs(owner, procedure) for procedure in (SUMMARIZE, REFRESH, COMPRESS)}
        for procedure, found in before.items():
            for job, config, *_ in found:
                do = chance.choice(["nothing", "delete", "pause", "configure", "twice"])
                if do == "delete":
                    owner.execute("SELECT delete_job(%s)", (job,))
                elif do == "pause":
                    owner.execute("SELECT alter_job(%s, scheduled => %s)", (job, chance.random() < 0.3))
                elif do == "configure" and procedure != SUMMARIZE:
                    key = "start_offset" if procedure == REFRESH else "compress_after"
                    owner.execute(
                        "SELECT alter_job(%s, config => %s::jsonb || jsonb_build_object(%s::text, interval '77 days'))",
                        (job, psycopg.types.json.Jsonb(config), key),
                    )
                elif do == "twice" and procedure == SUMMARIZE:
                    owner.execute("SELECT add_job('summarize', interval '1 hour')")
        left = {procedure: jobs(owner, procedure) for procedure in before}
        migrate(community(OWNER))
        for procedure, found in left.items():
            wanted = compressed if procedure == COMPRESS else 1
            now = jobs(owner, procedure)
            assert len(now) == bool(wanted), f"SEED={SEED}, step {step}: {procedure} {now}"
            if found and now:
                (job, config, *operated), (job_now, config_now, *operated_now) = found[0], now[0]
                assert (job_now, operated_now) == (job, operated), f"SEED={SEED}, step {step}"
                assert (config or {}).keys() == (config_now or {}).keys()
        ((_, config, *_),) = jobs(owner, REFRESH)
        assert config["start_offset"] == (f"{retention * 24}:00:00" if retention else None), f"SEED={SEED}, step {step}"
        for _, config, *_ in jobs(owner, COMPRESS):
            assert config["compress_after"] == f"{compressed * 24}:00:00", f"SEED={SEED}, step {step}"


@pytest.mark.parametrize(
    ("name", "policy", "adding"),
    [
        ("retention", "policy_retention", "SELECT add_retention_policy('temperatures', interval '9 days')"),
        ("columnstore", "policy_compression", "CALL add_columnstore_policy('temperatures', interval '9 days')"),
    ],
)
def test_a_policy_of_timescaledbs_own_is_removed_and_that_is_said(
    owner: Connection, community: Urls, caplog: pytest.LogCaptureFixture, name: str, policy: str, adding: str
) -> None:
    owner.execute(ENABLE_COLUMNSTORE)
    owner.execute(adding)
    migrate(community(OWNER))
    assert jobs(owner, policy) == []
    assert f"TimescaleDB's own {name} policy is removed" in caplog.text


def test_a_width_that_cannot_be_is_refused_at_once_before_anything_is_changed(
    owner: Connection, community: Urls, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = datetime.now(UTC) - timedelta(days=30)
    owner.execute("INSERT INTO temperatures VALUES ('B1', '101', %s, 20)", (old,))
    with monkeypatch.context() as patch:
        patch.setenv("RETENTION_DAYS", "7")
        migrate(community(OWNER))
        ((summarize, *_),) = jobs(owner, SUMMARIZE)
        owner.execute(f"CALL run_job({summarize})")
    # Whatever is made anew, as every function is by a run that goes through, has another number of its transaction.
    versions = "SELECT oid, xmin::text FROM {} ORDER BY oid"
    before = [owner.execute(versions.format(name)).fetchall() for name in ("pg_proc", "pg_class")]
    said = python("-m", "migrations", DATABASE_URL=community(OWNER), BUCKET_MINUTES="15", RETENTION_DAYS="0")
    assert (said.returncode, said.stdout) == (78, "")
    (sentence,) = said.stderr.splitlines()
    assert sentence.startswith(f"BUCKET_MINUTES is 15, but {BUCKETS} has buckets of 2 minutes. It is left as it is")
    assert "Set BUCKET_MINUTES to 2 to keep it" in sentence
    assert [owner.execute(versions.format(name)).fetchall() for name in ("pg_proc", "pg_class")] == before
    assert owner.execute("SELECT retention FROM upkeep").fetchone() == (timedelta(days=7),)
    # As the sentence has it.
    _, _, statement = sentence.rpartition("again: ")
    owner.execute(statement)
    try:
        assert python("-m", "migrations", DATABASE_URL=community(OWNER), BUCKET_MINUTES="15").returncode == 0
        assert owner.execute("SELECT avg_temperature_bucket_width()").fetchone() == (timedelta(minutes=15),)
        assert owner.execute("SELECT count FROM room_hours").fetchall() == [(1,)]
    finally:
        owner.execute("TRUNCATE temperatures")


def test_a_backlog_in_the_columnstore_is_summed_up_where_it_is(community: Urls) -> None:
    # Whoever decompresses more than one reading fails.
    with psycopg.connect(
        community(OWNER), autocommit=True, options="-c timescaledb.max_tuples_decompressed_per_dml_transaction=1"
    ) as connection:
        connection.execute("ALTER TABLE temperatures SET (timescaledb.enable_columnstore)")
        connection.execute(
            "INSERT INTO temperatures SELECT 'B1', '101', at, 20"
            " FROM generate_series(now() - interval '40 days', now() - interval '20 days', interval '1 hour') AS at"
        )
        connection.execute(
            "SELECT compress_chunk(chunk) FROM show_chunks('temperatures', older_than => interval '10 days') AS chunk"
        )
        connection.execute("CALL summarize()")
        assert connection.execute("SELECT sum(count) FROM room_hours").fetchone() == (481,)
        assert connection.execute("SELECT FROM unsummarized WHERE since < now() - interval '1 day'").rowcount == 0
