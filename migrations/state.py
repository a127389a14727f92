"""What every run of the migrations brings about, whatever was there before: functions, views, jobs, grants.

Revisions make the tables, once. The rest is a desired state: it follows the settings, and roles, extensions and
licences that came later. What is as it should be is left alone, so that jobs keep their history.
"""

import logging
from pathlib import Path

from sqlalchemy import Connection, text

from migrations import backfill, jobs, roles
from migrations.database import interval, run, transaction
from migrations.edition import HIDES_READINGS, READINGS_ARE_HIDDEN, Edition, detect, has_aggregate, has_hypertable
from migrations.failures import Final
from migrations.schema import BUCKET_AVERAGES
from migrations.settings import Settings

log = logging.getLogger("migrations")

VIEWS = (BUCKET_AVERAGES, "avg_temperature_hourly", "avg_temperature_daily", "avg_temperature_stale")
SUMMARY_TABLES = ("rooms", "room_hours", "room_days", "room_weeks", "building_hours", "building_days", "upkeep")
WATCHED_COLUMNS = ("watched_until", "came_from", "came_to", "low", "high")
"""What `watch` takes of a room: that readings came since it looked last."""
REMOVAL_FUNCTIONS = ("preview_removal", "begin_removal", "continue_removal")
HEALTH_FUNCTIONS = ("database_health", "schema_health", "jobs_health", "extension_health", "server_health")
OWNER_FUNCTIONS = ("mark_rooms", "forget_rooms", *REMOVAL_FUNCTIONS, *HEALTH_FUNCTIONS)
"""Functions that run with the rights of the owner, whoever calls them, or that only some may call."""
FUNCTIONS_ON_READINGS = (
    "readings_summary(text, text[], timestamptz, timestamptz, interval)",
    "readings_by_bucket(text, text[], tstzmultirange, timestamptz[])",
    "readings_up_to(text, text[], timestamptz, timestamptz, integer)",
    "courses(text, text[], tstzmultirange, timestamptz[], interval, double precision, double precision)",
    "courses_of_hours(text, text[], tstzmultirange)",
    "latest_reading(text, text, timestamptz)",
    "page_of_readings(text, text[], timestamptz, timestamptz, timestamptz, double precision, integer)",
    "remove_slice(removals, rooms, integer, integer, tstzrange)",
    "find_latest(removals, text, tstzrange)",
    "delete_readings(text, text, timestamptz[], double precision[])",
    "refuse_dropped(text, text, timestamptz, timestamptz)",
    "preview_removal(text, text, timestamptz, timestamptz, double precision, double precision)",
    "withdraw_alarms(removals, text, tstzrange)",
)
"""Functions whose plans depend on whether the readings are in chunks."""
FUNCTIONS_ON_CHUNKS = ("stored_readings(text, text, timestamptz, timestamptz)",)
"""Such as there are only where they are."""

FORGET = f"""
    DROP FUNCTION IF EXISTS {", ".join(HEALTH_FUNCTIONS)};
    DROP FUNCTION IF EXISTS standbys_meant, retention_overdue, duration_in_words, readings_may_begin, courses_of_hours,
        stored_readings, page_of_readings, whole_parts, need_readings;
    DROP SEQUENCE IF EXISTS summarized;
    DO $$ BEGIN
        IF to_regclass('timescaledb_information.jobs') IS NOT NULL THEN
            PERFORM delete_job(job_id) FROM timescaledb_information.jobs
            WHERE proc_schema = current_schema() AND proc_name = 'compress';
        END IF;
    END $$;
    DROP PROCEDURE IF EXISTS compress
"""
"""Removes what no revision knows of and all of the rest would leave behind."""

_SQL = Path(__file__).parent / "sql"
_TRIGGERS_WORK = """
    SELECT count(*) = 2 FROM pg_trigger
    WHERE tgname IN ('mark_rooms', 'forget_rooms') AND tgrelid = 'temperatures'::regclass AND tgenabled <> 'D'
"""
_FROM_READINGS = """
    SELECT {bucket} AS bucket, building_id, room_id, avg(temperature) AS avg_temp,
           sum(temperature) AS sum, count(*) AS count, min(temperature) AS min, max(temperature) AS max
    FROM temperatures GROUP BY 1, building_id, room_id
"""


def bring_about(settings: Settings) -> Edition:
    """Bring the database to what the settings say, and return its edition. It may end anywhere and begin again.

    Raises Final for a bucket width whose averages could not be built anew from the readings that are left.
    """
    with transaction(settings.url) as connection:
        edition = detect(connection)
        _make_functions(connection, edition, settings)
    backfill.complete(settings.url)
    with transaction(settings.url) as connection:
        _make_bucket_averages(connection, edition, settings)
        connection.exec_driver_sql(
            f"UPDATE upkeep SET retention = {interval(settings.retention) if settings.retention else 'NULL'}"
        )
        if edition is Edition.COMMUNITY:
            jobs.keep(connection, settings)
        if edition is not Edition.PLAIN and not has_hypertable(connection):
            log.warning("the extension timescaledb came after the readings, which stay in a plain table")
        _grant(connection, settings)
        _say_what_is_outdated(connection)
    return edition


def _say_what_is_outdated(connection: Connection) -> None:
    for fault in connection.execute(text("SELECT fault FROM extension_health() WHERE value > most")).scalars():
        log.warning("%s", fault)


def _search_path(connection: Connection) -> str:
    """Of the functions: their own schema, and that of the extension for what is called in there."""
    schema = connection.scalar(text("SELECT quote_ident(current_schema())"))
    extension = connection.scalar(
        text(
            "SELECT quote_ident(nspname) FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace"
            " WHERE extname = 'timescaledb'"
        )
    )
    return ", ".join(dict.fromkeys(filter(None, (schema, extension, "pg_temp"))))


def _make_functions(connection: Connection, edition: Edition, settings: Settings) -> None:
    path = _search_path(connection)
    run(connection, f"SET LOCAL search_path = {path}")
    in_chunks = has_hypertable(connection)
    kind = "hypertable" if in_chunks else "table"
    of_kind = f"room_readings_of_{kind}", f"retention_of_{kind}"
    for name in ("rooms", "readings", "courses", "summaries", "removals", *of_kind, "summarize", "health"):
        _run(connection, name, path, in_chunks=in_chunks)
    if edition is Edition.COMMUNITY and in_chunks:
        _run(connection, "compress", path, in_chunks=in_chunks)
    connection.exec_driver_sql(
        f"CREATE OR REPLACE FUNCTION standbys_meant() RETURNS integer LANGUAGE sql IMMUTABLE RETURN {settings.standbys}"
    )
    if not connection.scalar(text(_TRIGGERS_WORK)):
        _run(connection, "triggers", path, in_chunks=in_chunks)
        # Readings that came without them are in no room.
        connection.exec_driver_sql("UPDATE upkeep SET rooms_known = false")
    _choose_plans(connection, edition, in_chunks=in_chunks)


def _choose_plans(connection: Connection, edition: Edition, *, in_chunks: bool) -> None:
    # On a hypertable a generic plan has a part for each chunk, of which one or two are meant. It has none for what
    # comes to a compressed chunk where nothing was stored since. If the first of that comes while a plan is made,
    # nobody hears that it is wrong: kept, it would leave out all that comes to the chunk.
    plan = "force_custom_plan" if edition is not Edition.PLAIN else "force_generic_plan"
    for function in (*FUNCTIONS_ON_READINGS, *(FUNCTIONS_ON_CHUNKS if in_chunks else ())):
        connection.exec_driver_sql(f"ALTER FUNCTION {function} SET plan_cache_mode = {plan}")
        if in_chunks:
            # TimescaleDB knows which chunks are meant. PostgreSQL would read the constraints of each once more.
            connection.exec_driver_sql(f"ALTER FUNCTION {function} SET constraint_exclusion = off")
    if in_chunks:
        # What it has of a few readings reads no hypertable itself. Before the rest it sets this back.
        connection.exec_driver_sql("ALTER FUNCTION courses SET plan_cache_mode = force_generic_plan")
        # Readings that come again may be of many compressed batches; nothing else here is.
        connection.exec_driver_sql(
            "ALTER FUNCTION delete_readings SET timescaledb.max_tuples_decompressed_per_dml_transaction = 0"
        )


_NEED_TIMESCALEDB = f"""PERFORM time_bucket(interval '1 hour', timestamptz '2000-01-03 00:00+00');
    IF {HIDES_READINGS.strip()} THEN
        RAISE EXCEPTION '{READINGS_ARE_HIDDEN}' USING ERRCODE = 'cannot_connect_now';
    END IF"""
"""Fails in a session without TimescaleDB: the server lacks the version that the database uses, or a setting says so.

The first statement fails without that version, and the next ones go on: a reading is stored where nobody finds it, and
what is compressed is not there. Whatever is stored, summed up or removed is behind this. The version is looked for once
in each session.
"""


def _run(connection: Connection, name: str, path: str, *, in_chunks: bool) -> None:
    mark, kept_out = _read("mark"), _read("kept_out")
    parts = {
        # They have placeholders of their own.
        "@few_courses@": _read("few_courses").rstrip() if in_chunks else "",
        "@course@": _course("temperatures"),
        "@course_of_few@": _course("stored_readings(building, among[1], lower(span), upper(span))"),
        "@course_of_quarters@": _course("temperatures", **_OF_QUARTERS),
        "@search_path@": connection.scalar(text("SELECT quote_literal(CAST(:path AS text))"), {"path": path}),
        "@exact_sum@": _read("exact_sum"),
        "@mark_all@": mark.replace("@chosen@", ""),
        "@mark_others@": mark.replace("@chosen@", f"WHERE NOT {kept_out}"),
        "@kept_out@": kept_out,
        "@need_timescaledb@": _NEED_TIMESCALEDB if in_chunks else "NULL",
        "@near_spans@": "first_spans(spans)" if in_chunks else "spans",
        "@bucket_averages@": _read("bucket_averages").rstrip(),
        "@roll_up_days@": _roll_up("day", "24:00", part="hour"),
        "@roll_up_weeks@": _roll_up("week", "168:00", part="day"),
    }
    statements = _read(name)
    for placeholder, part in parts.items():
        statements = statements.replace(placeholder, part)
    run(connection, statements)


def _roll_up(whole: str, width: str, *, part: str) -> str:
    return _read("roll_up").replace("@whole@", whole).replace("@width@", width).replace("@part@", part).rstrip()


_OF_PARTS_OF_HOURS = {
    # PL/pgSQL holds an array in a form that would be made flat again for each reading.
    "at": """greatest(
                    date_bin('1 hour', timestamp, '2000-01-03 00:00+00'),
                    (SELECT array_cat(bounds, '{}'))[width_bucket(timestamp, (SELECT array_cat(bounds, '{}')))]
                )""",
    "group": "ordered.at",
    "held": "CASE WHEN gap > most_held THEN most_held ELSE gap END",
}
"""What course.sql says of hours that are cut where a bucket begins: a reading holds within its part."""
_OF_QUARTERS = {
    "at": "date_bin('1 hour', timestamp, '2000-01-03 00:00+00')",
    "group": "date_bin('15 minutes', timestamp, '2000-01-03 00:00+00')",
    "held": "gap",
    "beyond": "",
}
"""What it says of quarters: a reading holds within its hour, and nobody asks for limits."""


def _course(readings: str, **parts: str) -> str:
    statement = _read("course").replace("@readings@", readings)
    for part, text_of_part in {
        "beyond": ",\n" + _read("beyond_limits").rstrip(),
        **_OF_PARTS_OF_HOURS,
        **parts,
    }.items():
        statement = statement.replace(f"@{part}@", text_of_part)
    return statement.rstrip()


def _read(name: str) -> str:
    return (_SQL / f"{name}.sql").read_text(encoding="utf-8")


def check(connection: Connection, settings: Settings) -> None:
    """Raise Final if the averages could not be built as the settings say: before anything is changed."""
    if connection.scalar(text("SELECT to_regclass(quote_ident(current_schema()) || '.upkeep') IS NOT NULL")):
        _outdated(connection, detect(connection), settings)


def _outdated(connection: Connection, edition: Edition, settings: Settings) -> str:
    """Why the continuous aggregate has to be built anew; empty if it has not, or if there is none.

    Raises Final if it would be without readings that were dropped.
    """
    if not has_aggregate(connection, BUCKET_AVERAGES):
        return ""
    wanted, built = (
        int(width.total_seconds()) // 60
        for width in (settings.bucket, connection.scalar(text("SELECT avg_temperature_bucket_width()")))
    )
    if edition is not Edition.COMMUNITY:
        # Its trigger refuses all readings then.
        reason = f"TimescaleDB's licence does not allow {BUCKET_AVERAGES} to be a continuous aggregate any more"
        otherwise = "Allow it (timescaledb.license = 'timescale')"
    elif wanted != built:
        reason = f"BUCKET_MINUTES is {wanted}, but {BUCKET_AVERAGES} has buckets of {built} minutes"
        otherwise = f"Set BUCKET_MINUTES to {built}"
    else:
        return ""
    if connection.scalar(text("SELECT dropped_before > '-infinity' FROM upkeep")):
        raise Final(
            f"{reason}. It is left as it is: built anew, it would lack the readings that were dropped since"
            f" (RETENTION_DAYS). {otherwise} to keep it. To do without its old averages (those by hour and day stay),"
            f" drop it as the owner (on a cluster: make psql ROLE=owner), then try again:"
            f" DROP MATERIALIZED VIEW {BUCKET_AVERAGES};"
        )
    return reason


def _make_bucket_averages(connection: Connection, edition: Edition, settings: Settings) -> None:
    """Make the averages that people read by SQL: a continuous aggregate on the community edition, elsewhere a view."""
    width = interval(settings.bucket)
    if has_aggregate(connection, BUCKET_AVERAGES):
        reason = _outdated(connection, edition, settings)
        if not reason:
            return
        log.warning("%s: it is built anew", reason)
        connection.exec_driver_sql(f"DROP MATERIALIZED VIEW {BUCKET_AVERAGES}")
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


def _grant(connection: Connection, settings: Settings) -> None:
    roles.reserve(connection, list(OWNER_FUNCTIONS))
    for role in settings.roles:
        roles.let_in(connection, role)
    roles.grant(connection, "INSERT", ["temperatures"], settings.writer)
    roles.grant(connection, "SELECT", ["temperatures", "alarms", *SUMMARY_TABLES, *VIEWS], settings.reader)
    roles.grant(connection, "SELECT", ["temperatures", "rooms"], settings.watcher)
    roles.grant(connection, f"UPDATE ({', '.join(WATCHED_COLUMNS)})", ["rooms"], settings.watcher)
    roles.grant(connection, "SELECT, INSERT, UPDATE, DELETE", ["alarms", "alarm_events"], settings.watcher)
    roles.grant(connection, "SELECT, UPDATE", ["watching"], settings.watcher)
    roles.grant(connection, "SELECT", ["removals"], settings.admin)
    roles.grant(connection, "EXECUTE", [f"FUNCTION {name}" for name in REMOVAL_FUNCTIONS], settings.admin)
    roles.grant(connection, "EXECUTE", [f"FUNCTION {name}" for name in HEALTH_FUNCTIONS], settings.monitor)
    roles.say_what_hides_rows(connection, settings.roles)
