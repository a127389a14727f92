"""What every run of the migrations brings about, whatever was there before: functions, views, jobs, grants.

Revisions make the tables, once. The rest is a desired state: it follows the settings, and roles, extensions and
licences that came later. Jobs that are as they should be are left alone, so that they keep their history.
"""

import logging
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, text

from migrations import roles
from migrations.database import transaction
from migrations.edition import Edition, detect, has_aggregate, has_hypertable
from migrations.settings import Settings
from shared.settings import SettingError

log = logging.getLogger("migrations")

BUCKET_AVERAGES = "avg_temperature_time_interval"
VIEWS = (BUCKET_AVERAGES, "avg_temperature_hourly", "avg_temperature_daily", "avg_temperature_stale")
SUMMARY_TABLES = ("rooms", "room_hours", "room_days", "building_hours", "building_days", "upkeep")
WATCHED_COLUMNS = ("watched_until", "came_from", "came_to", "low", "high")
"""What `watch` takes of a room: that readings came since it looked last."""
REMOVAL_FUNCTIONS = ("preview_removal", "begin_removal", "continue_removal")
OWNER_FUNCTIONS = ("mark_rooms", "forget_rooms", *REMOVAL_FUNCTIONS)
"""Functions that run with the rights of the owner, whoever calls them."""
REFRESH_BATCH_BUCKETS = 1000
"""Buckets refreshed in one transaction. With the default of 10, the backlog of a device makes thousands of them."""
ROOMS_MADE_KNOWN_AT_ONCE = 200
"""Rooms made known in one transaction, during which their writers wait."""

_SQL = Path(__file__).parent / "sql"
_FROM_READINGS = """
    SELECT {bucket} AS bucket, building_id, room_id, avg(temperature) AS avg_temp,
           sum(temperature) AS sum, count(*) AS count, min(temperature) AS min, max(temperature) AS max
    FROM temperatures GROUP BY 1, building_id, room_id
"""


def bring_about(settings: Settings) -> Edition:
    """Bring the database to what the settings say, and return its edition. It may end anywhere and begin again.

    Raises SettingError for a bucket width whose averages could not be built anew from the readings that are left.
    """
    with transaction(settings.url) as connection:
        edition = detect(connection)
        _make_functions(connection, edition)
    _make_rooms_known(settings.url)
    with transaction(settings.url) as connection:
        _make_bucket_averages(connection, edition, settings)
        connection.exec_driver_sql(
            f"UPDATE upkeep SET retention = {interval(settings.retention) if settings.retention else 'NULL'}"
        )
        if edition is Edition.COMMUNITY:
            _keep_jobs(connection, settings)
        if edition is not Edition.PLAIN and not has_hypertable(connection):
            log.warning("the extension timescaledb came after the readings, which stay in a plain table")
        _grant(connection, settings)
    return edition


_PLANNED_BY_EDITION = (
    "readings_summary(text, text[], timestamptz, timestamptz, interval, timestamptz)",
    "readings_by_bucket(text, text[], tstzmultirange, timestamptz[])",
    "readings_up_to(text, text[], timestamptz, timestamptz, integer)",
    "courses(text, text[], tstzmultirange, timestamptz[], interval, double precision, double precision)",
    "latest_reading(text, text, timestamptz)",
    "remove_slice(removals, rooms, integer)",
    "delete_readings(text, text, timestamptz[], double precision[])",
    "refuse_dropped(text, text, timestamptz, timestamptz)",
    "preview_removal(text, text, timestamptz, timestamptz, double precision, double precision)",
    "withdraw_alarms(removals, text)",
)
"""Functions that look into the readings of a span of time."""


def _make_functions(connection: Connection, edition: Edition) -> None:
    path = _search_path(connection)
    connection.exec_driver_sql(f"SET LOCAL search_path = {path}")
    kind = "hypertable" if has_hypertable(connection) else "table"
    of_kind = f"room_readings_of_{kind}", f"retention_of_{kind}"
    for name in ("rooms", "readings", "courses", "summaries", "removals", *of_kind, "summarize"):
        _run(connection, name, path)
    if not connection.scalar(
        text("SELECT 1 FROM pg_trigger WHERE tgname = 'mark_rooms' AND tgrelid = 'temperatures'::regclass")
    ):
        _run(connection, "triggers", path)
    # On a hypertable a generic plan has a part for each chunk, of which one or two are meant.
    plan = "force_custom_plan" if edition is not Edition.PLAIN else "force_generic_plan"
    for function in _PLANNED_BY_EDITION:
        connection.exec_driver_sql(f"ALTER FUNCTION {function} SET plan_cache_mode = {plan}")
    if has_hypertable(connection):
        # Readings that come again may be of many compressed batches; nothing else here is.
        connection.exec_driver_sql(
            "ALTER FUNCTION delete_readings SET timescaledb.max_tuples_decompressed_per_dml_transaction = 0"
        )


def _search_path(connection: Connection) -> str:
    """That of the functions: the schema of the product, and that of TimescaleDB for what is called in there."""
    schema = connection.scalar(text("SELECT quote_ident(current_schema())"))
    extension = connection.scalar(
        text(
            "SELECT quote_ident(nspname) FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace"
            " WHERE extname = 'timescaledb'"
        )
    )
    return ", ".join(dict.fromkeys(filter(None, (schema, extension, "pg_temp"))))


def _run(connection: Connection, name: str, path: str) -> None:
    mark, kept_out = _read("mark"), _read("kept_out")
    parts = {
        "@search_path@": connection.scalar(text("SELECT quote_literal(CAST(:path AS text))"), {"path": path}),
        "@exact_sum@": _read("exact_sum"),
        "@mark_all@": mark.replace("@chosen@", ""),
        "@mark_others@": mark.replace("@chosen@", f"WHERE NOT {kept_out}"),
        "@kept_out@": kept_out,
    }
    statements = _read(name)
    for placeholder, part in parts.items():
        statements = statements.replace(placeholder, part)
    connection.exec_driver_sql(statements)


def _read(name: str) -> str:
    return (_SQL / f"{name}.sql").read_text(encoding="utf-8")


_NEXT_ROOMS = """
    WITH RECURSIVE room AS (
        (
            SELECT building_id, room_id FROM temperatures
            WHERE (building_id, room_id) > (:building_id, :room_id) ORDER BY building_id, room_id LIMIT 1
        )
        UNION ALL
        SELECT next.building_id, next.room_id
        FROM room CROSS JOIN LATERAL (
            SELECT building_id, room_id FROM temperatures
            WHERE (building_id, room_id) > (room.building_id, room.room_id) ORDER BY building_id, room_id LIMIT 1
        ) AS next
    )
    SELECT building_id, room_id FROM room LIMIT :number
"""
"""A jump along the primary key from room to room, instead of reading all of it."""
_KNOW_ROOMS = """
    WITH known AS MATERIALIZED (
        SELECT building_id, room_id, latest.timestamp, latest.temperature,
               date_bin('1 hour', first.timestamp, '2000-01-03 00:00+00') AS summed_until
        FROM unnest(CAST(:buildings AS text[]), CAST(:rooms AS text[])) AS chosen (building_id, room_id)
        CROSS JOIN LATERAL latest_reading(building_id, room_id, 'infinity') AS latest
        CROSS JOIN LATERAL (
            SELECT min(timestamp) AS timestamp FROM temperatures
            WHERE temperatures.building_id = chosen.building_id AND temperatures.room_id = chosen.room_id
        ) AS first
    )
    INSERT INTO rooms AS room (building_id, room_id, timestamp, temperature, summed_until)
    SELECT building_id, room_id, timestamp, temperature, summed_until FROM known
    -- All are found before the first is locked.
    ORDER BY building_id, room_id
    ON CONFLICT (building_id, room_id) DO UPDATE SET
        timestamp = greatest(room.timestamp, excluded.timestamp),
        temperature = CASE
            WHEN (excluded.timestamp, excluded.temperature) > (room.timestamp, room.temperature)
            THEN excluded.temperature ELSE room.temperature
        END,
        -- What a writer marked meanwhile may have come after `known` was looked up.
        summed_until = least(room.summed_until, excluded.summed_until, room.late_from),
        late_from = NULL, late_to = NULL
"""


def _make_rooms_known(url: str) -> None:
    """Make known the rooms of readings that came before there were rooms. Writers go on meanwhile.

    Nobody may read the summaries before that, since the grants come later.
    """
    last, known = ("", ""), 0
    while True:
        with transaction(url) as connection:
            if connection.scalar(text("SELECT rooms_known FROM upkeep")):
                return
            found = connection.execute(
                text(_NEXT_ROOMS), {"building_id": last[0], "room_id": last[1], "number": ROOMS_MADE_KNOWN_AT_ONCE}
            ).all()
            if not found:
                connection.execute(text("UPDATE upkeep SET rooms_known = true"))
                return
            buildings, names = ([str(room[place]) for room in found] for place in (0, 1))
            connection.execute(text(_KNOW_ROOMS), {"buildings": buildings, "rooms": names})
        last = buildings[-1], names[-1]
        known += len(found)
        log.info("%d rooms are known", known)


def _make_bucket_averages(connection: Connection, edition: Edition, settings: Settings) -> None:
    """Make the averages that people read by SQL: a continuous aggregate on the community edition, elsewhere a view."""
    if has_aggregate(connection, BUCKET_AVERAGES):
        if not (reason := _why_to_build_anew(connection, edition, settings)):
            return
        _drop_bucket_averages(connection, reason)
    width = interval(settings.bucket)
    connection.exec_driver_sql(
        "CREATE OR REPLACE FUNCTION avg_temperature_bucket_width() RETURNS interval"
        f" LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN {width}"
    )
    if edition is Edition.COMMUNITY and has_hypertable(connection):
        connection.exec_driver_sql(f"DROP VIEW IF EXISTS {BUCKET_AVERAGES}")
        query = _FROM_READINGS.format(bucket=f"time_bucket({width}, timestamp)")
        connection.exec_driver_sql(
            f"CREATE MATERIALIZED VIEW {BUCKET_AVERAGES} WITH (timescaledb.continuous,"
            f" timescaledb.materialized_only = false, timescaledb.create_group_indexes = false) AS {query} WITH NO DATA"
        )
        connection.exec_driver_sql(f"CREATE INDEX ON {BUCKET_AVERAGES} (building_id, room_id, bucket)")
    else:
        # time_bucket's own origin, so that buckets are the same everywhere.
        query = _FROM_READINGS.format(bucket=f"date_bin({width}, timestamp, '2000-01-03 00:00+00')")
        connection.exec_driver_sql(f"CREATE OR REPLACE VIEW {BUCKET_AVERAGES} AS {query}")


def _why_to_build_anew(connection: Connection, edition: Edition, settings: Settings) -> str:
    """Why the continuous aggregate cannot stay as it is; empty if it can."""
    if edition is not Edition.COMMUNITY:
        # Its trigger refuses all readings then.
        return f"TimescaleDB's licence does not allow {BUCKET_AVERAGES} to be a continuous aggregate any more"
    before = connection.scalar(text("SELECT avg_temperature_bucket_width()"))
    return (
        ""
        if before == settings.bucket
        else f"BUCKET_MINUTES is {settings.bucket}, but {BUCKET_AVERAGES} has buckets of {before}"
    )


def _drop_bucket_averages(connection: Connection, reason: str) -> None:
    """Drop the continuous aggregate. Raises SettingError if some of it could not be built anew."""
    if connection.scalar(text("SELECT dropped_before > '-infinity' FROM upkeep")):
        raise SettingError(
            f"{reason}, some of readings that were dropped since. To build it anew without these, drop it first:"
            " DROP MATERIALIZED VIEW"
        )
    log.warning("%s: it is built anew", reason)
    connection.exec_driver_sql(f"DROP MATERIALIZED VIEW {BUCKET_AVERAGES}")


def _keep_jobs(connection: Connection, settings: Settings) -> None:
    """Have TimescaleDB summarize, refresh and compress as the settings say."""
    schema = connection.scalar(text("SELECT quote_ident(current_schema())"))
    if not _job(connection, "summarize"):
        connection.exec_driver_sql(
            f"SELECT add_job('{schema}.summarize', interval '1 minute', fixed_schedule => false)"
        )
    if has_aggregate(connection, BUCKET_AVERAGES):
        _keep_refresh(connection, settings)
    if has_hypertable(connection):
        # One of TimescaleDB's own would drop readings before they are summed up: summarize() drops them.
        connection.exec_driver_sql("SELECT remove_retention_policy('temperatures', if_exists => true)")
        _keep_columnstore(connection, settings)


def _keep_refresh(connection: Connection, settings: Settings) -> None:
    start, every = _refreshed_from(connection, settings), interval(settings.bucket)
    as_wanted = (
        f"({start})::interval IS NOT DISTINCT FROM (config ->> 'start_offset')::interval"
        f" AND schedule_interval = {every}"
    )
    if _job_is(connection, "policy_refresh_continuous_aggregate", as_wanted):
        return
    connection.exec_driver_sql(f"SELECT remove_continuous_aggregate_policy('{BUCKET_AVERAGES}', if_exists => true)")
    connection.exec_driver_sql(
        f"SELECT add_continuous_aggregate_policy('{BUCKET_AVERAGES}', start_offset => {start},"
        f" end_offset => interval '10 seconds', schedule_interval => {every},"
        f" buckets_per_batch => {REFRESH_BATCH_BUCKETS})"
    )


def _refreshed_from(connection: Connection, settings: Settings) -> str:
    """The age up to which averages are refreshed, as an SQL literal; NULL for any.

    Every change is refreshed, however old it is: devices may send readings days later. But averages of readings that
    were dropped stay as they are: a refresh would find no readings, and empty them.
    """
    dropped = connection.scalar(
        text(
            "SELECT date_trunc('hour', now() - nullif(dropped_before, '-infinity')) FROM upkeep"
            " WHERE dropped_before > '-infinity'"
        )
    )
    ages = [age for age in (dropped, settings.retention) if age is not None]
    return interval(min(ages)) if ages else "NULL"


def _keep_columnstore(connection: Connection, settings: Settings) -> None:
    after = settings.columnstore_after
    as_wanted = after and f"(config ->> 'compress_after')::interval = {interval(after)}"
    if as_wanted and _job_is(connection, "policy_compression", as_wanted):
        return
    connection.exec_driver_sql("CALL remove_columnstore_policy('temperatures', if_exists => true)")
    if after:
        connection.exec_driver_sql(
            "ALTER TABLE temperatures SET (timescaledb.enable_columnstore,"
            " timescaledb.segmentby = 'building_id, room_id', timescaledb.orderby = 'timestamp, temperature')"
        )
        connection.exec_driver_sql(f"CALL add_columnstore_policy('temperatures', after => {interval(after)})")


def _job_is(connection: Connection, procedure: str, as_wanted: str) -> bool:
    """Whether there is a job of this schema that runs the procedure, and is as an SQL condition says."""
    job = _job(connection, procedure)
    statement = f"SELECT {as_wanted} FROM timescaledb_information.jobs WHERE job_id = :job"
    return job is not None and bool(connection.scalar(text(statement), {"job": job}))


def _job(connection: Connection, procedure: str) -> Any:
    """The number of the job of this schema that runs the procedure, None if there is none."""
    return connection.scalar(
        text(
            "SELECT min(job_id) FROM timescaledb_information.jobs AS job"
            " LEFT JOIN timescaledb_information.continuous_aggregates AS aggregate"
            " ON job.hypertable_schema = aggregate.materialization_hypertable_schema"
            " AND job.hypertable_name = aggregate.materialization_hypertable_name"
            " WHERE proc_name = :procedure"
            " AND current_schema() IN (job.proc_schema, job.hypertable_schema, aggregate.view_schema)"
        ),
        {"procedure": procedure},
    )


def _grant(connection: Connection, settings: Settings) -> None:
    roles.reserve(connection, list(OWNER_FUNCTIONS))
    for role in (settings.writer, settings.reader, settings.watcher, settings.admin):
        roles.let_in(connection, role)
    roles.grant(connection, "INSERT", ["temperatures"], settings.writer)
    roles.grant(connection, "SELECT", ["temperatures", "alarms", *SUMMARY_TABLES, *VIEWS], settings.reader)
    roles.grant(connection, "SELECT", ["temperatures", "rooms"], settings.watcher)
    roles.grant(connection, f"UPDATE ({', '.join(WATCHED_COLUMNS)})", ["rooms"], settings.watcher)
    roles.grant(connection, "SELECT, INSERT, UPDATE, DELETE", ["alarms", "alarm_events"], settings.watcher)
    roles.grant(connection, "SELECT, UPDATE", ["watching"], settings.watcher)
    roles.grant(connection, "SELECT", ["removals"], settings.admin)
    roles.grant(connection, "EXECUTE", [f"FUNCTION {name}" for name in REMOVAL_FUNCTIONS], settings.admin)


def interval(width: timedelta) -> str:
    """The width as an SQL literal, in hours and minutes: a day may be longer in the zone of a session."""
    minutes = int(width.total_seconds()) // 60
    return f"interval '{minutes // 60}:{minutes % 60:02}'"
