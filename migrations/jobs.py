"""TimescaleDB's jobs: made where one is missing, changed where a setting says otherwise, and else left as they are.

A job is never made anew, so its number and history stay, and so does what somebody set with `alter_job`: its schedule,
its retries, whether it is paused.
"""

import logging
from datetime import timedelta

from sqlalchemy import Connection, text

from migrations.database import interval
from migrations.edition import has_aggregate, has_hypertable
from migrations.schema import BUCKET_AVERAGES
from migrations.settings import Settings

log = logging.getLogger("migrations")

REFRESH_BATCH_BUCKETS = 1000
"""Buckets refreshed in one transaction. With the default of 10, the backlog of a device makes thousands of them."""

_ORDER = "timescaledb.orderby = 'timestamp'"
"""Of the columnstore, by one column. With several, TimescaleDB before 2.27 mixes up a chunk that is written to and
compressed again, and `ORDER BY` answers wrongly from then on (its pull request 9739)."""
ENABLE_COLUMNSTORE = (
    "ALTER TABLE temperatures SET (timescaledb.enable_columnstore,"
    f" timescaledb.segmentby = 'building_id, room_id', {_ORDER})"
)

_OF_SUMMARIES = "proc_schema = current_schema() AND proc_name = 'summarize'"
_OF_REFRESHES = f"""
    proc_name = 'policy_refresh_continuous_aggregate' AND EXISTS (
        SELECT FROM timescaledb_information.continuous_aggregates
        WHERE view_schema = current_schema() AND view_name = '{BUCKET_AVERAGES}'
          AND (jobs.hypertable_schema, jobs.hypertable_name) IN (
            (view_schema, view_name),
            -- As earlier versions of TimescaleDB call it.
            (materialization_hypertable_schema, materialization_hypertable_name)
        )
    )
"""
_OF_COLUMNSTORE = "proc_schema = current_schema() AND proc_name = 'compress'"
_ON_READINGS = "hypertable_schema = current_schema() AND hypertable_name = 'temperatures'"
_REMOVALS = {
    "policy_retention": (
        "SELECT remove_retention_policy('temperatures')",
        "retention policy is removed: it would drop readings before they are summed up."
        " RETENTION_DAYS drops them afterwards",
    ),
    "policy_compression": (
        "CALL remove_columnstore_policy('temperatures')",
        "columnstore policy is removed: while it compresses a chunk again, answers may lack readings"
        " of it that came late. COLUMNSTORE_AFTER_DAYS compresses without that",
    ),
}
"""How TimescaleDB's own policies on the readings are removed, and why."""


def keep(connection: Connection, settings: Settings) -> None:
    """Have TimescaleDB's community edition summarize, refresh and compress as the settings say."""
    if not _one(connection, _OF_SUMMARIES):
        _add(connection, "summarize", timedelta(minutes=1))
    if has_aggregate(connection, BUCKET_AVERAGES):
        _keep_refresh(connection, settings)
    if has_hypertable(connection):
        _remove_policies(connection)
        _keep_columnstore(connection, settings)
        _keep_order(connection)


def _remove_policies(connection: Connection) -> None:
    for policy, (removal, reason) in _REMOVALS.items():
        if _jobs(connection, f"proc_name = '{policy}' AND {_ON_READINGS}"):
            log.warning("TimescaleDB's own %s", reason)
            connection.exec_driver_sql(removal)


def _keep_refresh(connection: Connection, settings: Settings) -> None:
    # Everything that changed is refreshed, however old: devices send days later what they read. But nothing of which
    # readings were dropped, where a refresh would find none any more and empty the averages.
    dropped = connection.scalar(
        text("SELECT date_trunc('hour', now() - dropped_before) FROM upkeep WHERE dropped_before > '-infinity'")
    )
    oldest = min((age for age in (dropped, settings.retention) if age is not None), default=None)
    if job := _one(connection, _OF_REFRESHES):
        _set_age(connection, job, "start_offset", oldest)
    else:
        connection.exec_driver_sql(
            f"SELECT add_continuous_aggregate_policy('{BUCKET_AVERAGES}',"
            f" start_offset => {interval(oldest) if oldest else 'NULL'}, end_offset => interval '10 seconds',"
            f" schedule_interval => {interval(settings.bucket)}, buckets_per_batch => {REFRESH_BATCH_BUCKETS})"
        )


def _keep_columnstore(connection: Connection, settings: Settings) -> None:
    if settings.columnstore_after is None:
        for job, _ in _jobs(connection, _OF_COLUMNSTORE):
            connection.exec_driver_sql(f"SELECT delete_job({job})")
    elif found := _one(connection, _OF_COLUMNSTORE):
        _set_age(connection, found, "compress_after", settings.columnstore_after)
    else:
        connection.exec_driver_sql(ENABLE_COLUMNSTORE)
        config = f"jsonb_build_object('compress_after', {interval(settings.columnstore_after)})"
        _add(connection, "compress", timedelta(hours=12), config)


def _keep_order(connection: Connection) -> None:
    """Earlier versions ordered the columnstore by two columns. Chunks keep the order that they were compressed with."""
    by_several = "hypertable = CAST('temperatures' AS regclass) AND strpos(orderby, ',') > 0"
    tables, chunks = connection.execute(
        text(
            f"SELECT (SELECT count(*) FROM timescaledb_information.hypertable_columnstore_settings WHERE {by_several}),"
            f" (SELECT count(*) FROM timescaledb_information.chunk_columnstore_settings WHERE {by_several})"
        )
    ).one()
    if tables:
        connection.exec_driver_sql(f"ALTER TABLE temperatures SET ({_ORDER})")
    if chunks:
        log.warning(
            "%d chunks may be out of order in the columnstore: pages of readings, downloads and removals may then miss"
            " some of theirs. docs/upgrades.md says how to put them in order",
            chunks,
        )


def _add(connection: Connection, procedure: str, every: timedelta, config: str = "NULL") -> None:
    schema = connection.scalar(text("SELECT quote_ident(current_schema())"))
    connection.execute(
        text(
            f"SELECT add_job(CAST(:procedure AS regproc), {interval(every)}, config => {config},"
            " fixed_schedule => false)"
        ),
        {"procedure": f"{schema}.{procedure}"},
    )


def _jobs(connection: Connection, condition: str) -> list[tuple[int, bool]]:
    rows = connection.execute(
        text(f"SELECT job_id, scheduled FROM timescaledb_information.jobs WHERE {condition} ORDER BY job_id")
    )
    return [(row.job_id, row.scheduled) for row in rows]


def _one(connection: Connection, condition: str) -> int | None:
    """The number of the job, None if there is none. Of several the oldest is left."""
    found = _jobs(connection, condition)
    if not found:
        return None
    (job, scheduled), *others = found
    for other, _ in others:
        log.warning("TimescaleDB's job %d does what %d does, and is removed", other, job)
        connection.exec_driver_sql(f"SELECT delete_job({other})")
    if not scheduled:
        log.warning(
            "TimescaleDB's job %d is paused, and stays so. To let it run: SELECT alter_job(%d, scheduled => true)",
            job,
            job,
        )
    return job


def _set_age(connection: Connection, job: int, key: str, age: timedelta | None) -> None:
    """Set what the job's configuration says about an age, unless it does so already."""
    wanted = interval(age) if age else "NULL::interval"
    changed = connection.exec_driver_sql(
        f"SELECT alter_job(job_id, config => config || jsonb_build_object('{key}', {wanted})), fixed_schedule"
        " FROM timescaledb_information.jobs"
        f" WHERE job_id = {job} AND (config ->> '{key}')::interval IS DISTINCT FROM {wanted}"
    ).one_or_none()
    if changed and changed.fixed_schedule:
        # No view of TimescaleDB shows it.
        log.warning(
            "TimescaleDB's job %d has a fixed schedule. If it had a time zone, that is gone with the change of %s:"
            " SELECT alter_job(%d, timezone => 'Europe/Berlin')",
            job,
            key,
            job,
        )
