-- What only the database knows of how it is. Each row is something that is measured, with the value above which it is at
-- fault, if there is one, and then what is wrong in words. Metrics, `make status` and `make run` have it from here.

CREATE OR REPLACE FUNCTION duration_in_words(seconds double precision) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
-- As numeric: how many digits a double precision has as text is a setting.
RETURN CASE
    WHEN seconds < 120 THEN round(seconds)::numeric || ' seconds'
    WHEN seconds < 7200 THEN round(seconds / 60)::numeric || ' minutes'
    WHEN seconds < 172800 THEN round(seconds / 3600)::numeric || ' hours'
    ELSE round(seconds / 86400)::numeric || ' days'
END;

-- What is in the tables. Whoever may ask it need not be able to read them.
CREATE OR REPLACE FUNCTION schema_health()
RETURNS TABLE (metric text, of text, value double precision, most double precision, fault text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT SET jit = off AS $$
    WITH room AS MATERIALIZED (
        SELECT
            count(*) AS number, count(since) AS waiting, min(since) AS since,
            -- Every hour is over for all of them at once, and summed up some minutes later.
            count(*) FILTER (WHERE since < (SELECT now() - interval '2:00')) AS behind,
            count(courses_missing_before) AS without_courses
        FROM rooms CROSS JOIN LATERAL (
            -- As `unsummarized` has it, in half of the time: what is the same for all of them is computed once.
            SELECT CASE
                WHEN late_from IS NOT NULL THEN late_from
                WHEN summed_until < (SELECT date_bin('1 hour', now(), '2000-01-03 00:00+00')) AND timestamp >= summed_until
                THEN summed_until
            END AS since
        ) AS part
    ), removal AS (
        SELECT count(*) AS number, min(asked) AS asked FROM removals WHERE finished IS NULL
    ), event AS (
        SELECT
            count(*) FILTER (WHERE given_up IS NULL) AS waiting,
            -- Events for a sink that there is not any more wait for ever, and are not tried.
            min(made) FILTER (
                WHERE given_up IS NULL AND attempts > 0 AND next_attempt > now() - interval '15 minutes'
            ) AS tried_since,
            count(*) FILTER (WHERE given_up > now() - interval '24:00') AS given_up
        FROM alarm_events
    ), work AS (
        SELECT
            CASE WHEN is_called THEN to_timestamp(last_value) END AS summed_up,
            -- What never was has been due since the server started, or since the database was made.
            greatest(pg_postmaster_start_time(), CASE WHEN NOT is_called THEN to_timestamp(last_value) END) AS begun
        FROM summarized
    ), age AS (
        SELECT
            extract(epoch FROM now() - coalesce(summed_up, begun)) AS of_summaries,
            extract(epoch FROM now() - room.since) AS of_hours,
            extract(epoch FROM retention_overdue()) AS of_readings,
            extract(epoch FROM now() - removal.asked) AS of_removals,
            extract(epoch FROM now() - event.tried_since) AS of_events,
            -- Where looks are rare, nobody waits for the next one.
            CASE WHEN NOT rarely AND room.number > 0 THEN
                extract(epoch FROM now() - coalesce(checked, begun))
            END AS of_looks
        FROM work, room, removal, event, watching
    )
    SELECT metric, of, value::double precision, most::double precision, fault
    FROM room CROSS JOIN removal CROSS JOIN event CROSS JOIN age CROSS JOIN LATERAL (VALUES
        ('rooms', '', room.number, NULL, NULL),
        ('rooms_unsummarized', '', room.waiting, NULL, NULL),
        ('unsummarized_seconds', '', coalesce(of_hours, 0), NULL, NULL),
        ('rooms_without_courses', '', without_courses, NULL, NULL),
        ('rooms_behind', '', behind, ceil(room.number / 2.0),
            'Of ' || room.number || ' rooms ' || behind || ' have readings older than two hours that are not summed up:'
            || ' summaries do not keep up. docs/reliability.md#summaries-stop'),
        ('summaries_seconds', '', of_summaries, 900,
            'Nothing has summed up readings for ' || duration_in_words(of_summaries) || ', and averages get slower.'
            || ' docs/reliability.md#summaries-stop'),
        ('retention_seconds', '', greatest(of_readings, 0), 86400,
            'Readings are there ' || duration_in_words(of_readings) || ' longer than RETENTION_DAYS says; '
            || CASE
                WHEN removal.number > 0 THEN 'a removal is not finished.'
                WHEN without_courses > 0 THEN without_courses || ' rooms are not ready for it yet.'
                ELSE 'summaries come before.'
            END || ' docs/reliability.md#summaries-stop'),
        ('removals_unfinished', '', removal.number, NULL, NULL),
        ('removal_seconds', '', coalesce(of_removals, 0), 3600,
            'A removal of readings has not been finished for ' || duration_in_words(of_removals)
            || '. docs/reliability.md#removals-stop'),
        ('watch_seconds', '', of_looks, 600,
            'Nobody has looked for alarms for ' || duration_in_words(of_looks) || '. docs/reliability.md#watch-stops'),
        ('alarm_events_unsent', '', event.waiting, NULL, NULL),
        ('alarm_event_seconds', '', coalesce(of_events, 0), 900,
            'The sink of alarms has not taken an event for ' || duration_in_words(of_events)
            || '. docs/reliability.md#alarms-are-not-delivered'),
        ('alarm_events_given_up', '', event.given_up, 0,
            'The sink of alarms was not told of ' || event.given_up || ' events in the last day, which were given up.'
            || ' docs/reliability.md#alarms-are-not-delivered')
    ) AS health (metric, of, value, most, fault)
$$;

-- The jobs of TimescaleDB that belong to this schema. Why one failed only their owner may see.
CREATE OR REPLACE FUNCTION jobs_health()
RETURNS TABLE (metric text, of text, value double precision, most double precision, fault text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT AS $$
#variable_conflict use_column
BEGIN
    IF to_regclass('timescaledb_information.job_stats') IS NULL
       OR current_setting('timescaledb.license', true) IS DISTINCT FROM 'timescale' THEN
        RETURN;
    END IF;
    RETURN QUERY
    WITH aggregate AS (
        SELECT * FROM timescaledb_information.continuous_aggregates WHERE view_schema = current_schema()
    ), job AS (
        SELECT
            CASE job.proc_name
                WHEN 'policy_refresh_continuous_aggregate' THEN 'refresh'
                WHEN 'compress' THEN 'columnstore'
                WHEN 'policy_retention' THEN 'retention'
                ELSE job.proc_name::text
            END AS name,
            job.*, stats.last_run_status, stats.job_status, stats.total_runs,
            extract(epoch FROM now() - greatest(stats.last_successful_finish, pg_postmaster_start_time())) AS age,
            isfinite(stats.last_successful_finish) IS TRUE AS has_succeeded
        FROM timescaledb_information.jobs AS job
        LEFT JOIN timescaledb_information.job_stats AS stats USING (job_id)
        LEFT JOIN aggregate ON aggregate.materialization_hypertable_schema = job.hypertable_schema
            AND aggregate.materialization_hypertable_name = job.hypertable_name
        WHERE current_schema() IN (job.proc_schema, job.hypertable_schema, aggregate.view_schema)
    ), meant AS (
        SELECT 'summarize' AS name UNION SELECT 'refresh' FROM aggregate UNION SELECT name FROM job
    ), state AS (
        SELECT
            meant.name, bool_or(job_id IS NULL) AS missing, bool_or(NOT scheduled) IS TRUE AS paused,
            max(job_id) FILTER (WHERE last_run_status = 'Failed') AS failed, max(age) AS age,
            -- What runs for the first time, or after an import, may take hours.
            max(3 * extract(epoch FROM schedule_interval) + 600
                + CASE WHEN job_status = 'Running' THEN 6 * 3600 ELSE 0 END) AS patience,
            bool_and(has_succeeded) AS has_succeeded
        FROM meant LEFT JOIN job USING (name) GROUP BY meant.name
    )
    SELECT metric, name::text, value::double precision, most::double precision, fault
    FROM state CROSS JOIN LATERAL (VALUES
        ('job_off', (missing OR paused)::integer, 0,
            'The job ' || name || ' of TimescaleDB is ' || CASE WHEN missing THEN 'missing' ELSE 'paused' END
            || '. docs/reliability.md#jobs-fail'),
        ('job_failed', (failed IS NOT NULL)::integer, 0,
            'The job ' || name || ' of TimescaleDB failed the last time it ran: ' || coalesce((
                SELECT trim(TRAILING '.' FROM left(err_message, 200)) FROM timescaledb_information.job_errors
                WHERE job_id = failed ORDER BY finish_time DESC NULLS LAST LIMIT 1
            ), 'the log of the server says why') || '. docs/reliability.md#jobs-fail'),
        ('job_seconds', age, patience,
            'The job ' || name || ' of TimescaleDB has not succeeded for ' || duration_in_words(age)
            || CASE WHEN has_succeeded THEN '' ELSE ', nor ever' END || '. docs/reliability.md#jobs-fail')
    ) AS health (metric, value, most, fault);
END
$$;

-- What the server knows. Some of it only members of pg_monitor are told; without that it is left out.
CREATE OR REPLACE FUNCTION server_health()
RETURNS TABLE (metric text, of text, value double precision, most double precision, fault text)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
#variable_conflict use_column
DECLARE
    is_standby constant boolean := pg_is_in_recovery();
    sees_all constant boolean := pg_has_role('pg_read_all_stats', 'USAGE');
    -- Of max_connections some are kept for superusers.
    connections constant integer := current_setting('max_connections')::integer
        - current_setting('superuser_reserved_connections')::integer
        - coalesce(current_setting('reserved_connections', true)::integer, 0);
    segment constant numeric := pg_size_bytes(current_setting('wal_segment_size'));
    written pg_lsn;
    standbys integer;
BEGIN
    RETURN QUERY
    SELECT metric, of, value::double precision, most::double precision, fault FROM (
        SELECT 'database_bytes', '', pg_database_size(current_database()), NULL::numeric, NULL
        UNION ALL
        SELECT 'database_connections', '', count(*), floor(0.8 * connections),
            count(*) || ' of ' || connections || ' connections are used. docs/reliability.md#connections-run-out'
        FROM pg_stat_activity WHERE datid IS NOT NULL AND coalesce(backend_type, 'client backend') = 'client backend'
        UNION ALL
        SELECT 'database_transaction_age', of, age, most,
            'The oldest ' || of || ' id of the server is ' || age / 1000000 || ' million old, and at 2000 million it'
            || ' stops taking readings. docs/reliability.md#transaction-ids-run-out'
        FROM (
            -- What has none yet is infinitely old.
            SELECT
                max(age(datfrozenxid)) FILTER (WHERE age(datfrozenxid) < 2147483647) AS transactions,
                max(mxid_age(datminmxid)) FILTER (WHERE mxid_age(datminmxid) < 2147483647) AS multixacts
            FROM pg_database
        ) AS oldest CROSS JOIN LATERAL (VALUES
            ('transaction', transactions, current_setting('autovacuum_freeze_max_age')::numeric),
            ('multixact', multixacts, current_setting('autovacuum_multixact_freeze_max_age')::numeric)
        ) AS id (of, age, freezing)
        -- From there on vacuum has been late for long.
        CROSS JOIN LATERAL (SELECT least(1.5 * freezing + 200000000, 1500000000)) AS limits (most)
        UNION ALL
        SELECT 'database_prepared_seconds', '', coalesce(extract(epoch FROM now() - min(prepared)), 0), 600,
            'A prepared transaction has been left open for '
            || duration_in_words(extract(epoch FROM now() - min(prepared))::double precision)
            || ', and holds what it locked. docs/reliability.md#transactions-stay-open'
        FROM pg_prepared_xacts WHERE database = current_database()
        UNION ALL
        SELECT 'database_transaction_seconds', '', coalesce(extract(epoch FROM now() - min(xact_start)), 0), 3600,
            'A transaction has been open for '
            || duration_in_words(extract(epoch FROM now() - min(xact_start))::double precision)
            || ', and nothing that changed since can be cleaned up. docs/reliability.md#transactions-stay-open'
        FROM pg_stat_activity WHERE sees_all AND backend_type = 'client backend'
        HAVING sees_all
        UNION ALL
        SELECT 'archive_failing', '', (last_failed_time > coalesce(last_archived_time, '-infinity'))::integer, 0,
            'The log cannot be archived (' || last_failed_wal || '), so that backups end before it.'
            || ' docs/reliability.md#archiving-fails'
        FROM pg_stat_archiver
        -- One that was the primary has what failed then, and tries it no more.
        WHERE last_failed_time IS NOT NULL
          AND (current_setting('archive_mode') = 'always' OR current_setting('archive_mode') = 'on' AND NOT is_standby)
    ) AS health (metric, of, value, most, fault);
    IF is_standby THEN
        RETURN;
    END IF;
    written := pg_current_wal_lsn();
    RETURN QUERY
    SELECT
        'archive_bytes', '', greatest(behind, 0)::double precision, 1073741824::double precision,
        pg_size_pretty(behind::bigint) || ' of the log are not archived yet, and fill the disk.'
        || ' docs/reliability.md#the-log-is-kept'
    FROM pg_stat_archiver CROSS JOIN LATERAL (
        SELECT pg_wal_lsn_diff(written, (
            SELECT '0/0'::pg_lsn + ('x' || substr(last_archived_wal, 9, 8))::bit(32)::bigint * 4294967296::numeric
                + ('x' || substr(last_archived_wal, 17, 8))::bit(32)::bigint * segment
        )) AS behind
    ) AS log
    WHERE current_setting('archive_mode') <> 'off' AND last_archived_wal ~ '^[0-9A-F]{24}$';
    RETURN QUERY
    SELECT metric, slot_name::text, value::double precision, most::double precision, fault
    FROM pg_replication_slots CROSS JOIN LATERAL (
        SELECT coalesce(pg_wal_lsn_diff(written, restart_lsn), 0) AS kept
    ) AS log CROSS JOIN LATERAL (VALUES
        ('slot_bytes', kept, 1073741824,
            pg_size_pretty(kept) || ' of the log are kept for ' || slot_name || ', which has not read them.'
            || ' docs/reliability.md#the-log-is-kept'),
        ('slot_unused', (NOT active)::integer, 0,
            'Nobody reads the log that the slot ' || slot_name || ' is for'
            || CASE WHEN wal_status = 'lost' THEN ', and it is gone' ELSE '' END
            || '. docs/reliability.md#a-standby-does-not-follow')
    ) AS health (metric, value, most, fault)
    WHERE NOT temporary;
    IF sees_all THEN
        -- What only keeps the log, such as pg_receivewal, replays nothing, and who subscribes to changes is no copy.
        standbys := (
            SELECT count(*) FROM pg_stat_replication LEFT JOIN pg_replication_slots ON active_pid = pid
            WHERE state = 'streaming' AND replay_lsn IS NOT NULL AND slot_type IS DISTINCT FROM 'logical'
        );
        RETURN QUERY
        SELECT
            'standby_seconds', name, lag, 60::double precision,
            name || ' is ' || duration_in_words(lag) || ' behind the primary. docs/reliability.md#a-standby-does-not-follow'
        FROM (
            -- Several may have one name, which by default all have.
            SELECT application_name::text AS name, max(coalesce(extract(epoch FROM replay_lag), 0))::double precision AS lag
            FROM pg_stat_replication LEFT JOIN pg_replication_slots ON active_pid = pid
            WHERE state = 'streaming' AND replay_lsn IS NOT NULL AND slot_type IS DISTINCT FROM 'logical'
            GROUP BY application_name
        ) AS standby;
    ELSE
        standbys := (SELECT count(*) FROM pg_replication_slots WHERE slot_type = 'physical' AND active AND NOT temporary);
    END IF;
    RETURN QUERY
    SELECT
        'standbys_missing', '', greatest(standbys_meant() - standbys, 0)::double precision, 0::double precision,
        'Of ' || standbys_meant() || ' standbys ' || standbys || ' follow the primary.'
        || ' docs/reliability.md#a-standby-does-not-follow';
END
$$;

-- The version of TimescaleDB that the database uses, beside that of its server. On a standby nobody can update it.
CREATE OR REPLACE FUNCTION extension_health()
RETURNS TABLE (metric text, of text, value double precision, most double precision, fault text)
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT
        'extension_outdated', '', (of_database < of_server)::integer::double precision, 0::double precision,
        'The database uses TimescaleDB ' || installed_version || ', and the server has ' || default_version
        || '. docs/reliability.md#timescaledb-is-outdated'
    FROM pg_available_extensions CROSS JOIN LATERAL (
        SELECT
            string_to_array(substring(installed_version, '^\d+(?:\.\d+)*'), '.')::integer[] AS of_database,
            string_to_array(substring(default_version, '^\d+(?:\.\d+)*'), '.')::integer[] AS of_server
    ) AS version
    WHERE name = 'timescaledb' AND installed_version IS NOT NULL AND NOT pg_is_in_recovery()
$$;

-- All of it.
CREATE OR REPLACE FUNCTION database_health()
RETURNS TABLE (metric text, of text, value double precision, most double precision, fault text)
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT metric, of, value, most, CASE WHEN value > most THEN fault END
    FROM (
        SELECT * FROM schema_health() UNION ALL SELECT * FROM jobs_health() UNION ALL SELECT * FROM extension_health()
        UNION ALL SELECT * FROM server_health()
    ) AS health
    WHERE value IS NOT NULL ORDER BY metric, of
$$;

REVOKE EXECUTE ON FUNCTION
    schema_health(), jobs_health(), extension_health(), server_health(), database_health()
FROM PUBLIC;
