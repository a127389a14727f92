#!/usr/bin/env bash
# Whether the server starts with the libraries that Spilo has it load and with TimescaleDB's, and whether TimescaleDB's jobs
# and its community edition work. Runs in the image that was built.
set -euo pipefail
folder=/usr/lib/postgresql/17
taken=$folder/taken
try=/tmp/try
log=$try/log

fail() {
    [ ! -s "$log" ] || grep -E 'FATAL|PANIC|ERROR|HINT|could not|terminated by signal' "$log" | tail -n 20 >&2 || true
    printf '%s\n' "" "$@" "SPILO_IMAGE       $SPILO_IMAGE" "TIMESCALEDB_IMAGE $TIMESCALEDB_IMAGE" \
        "Which of them were tried together: docs/kubernetes.md#the-image-of-the-database" >&2
    exit 1
}

as_postgres() {
    su postgres -c "PATH=$folder/bin:\$PATH PGDATA=$try/data PGHOST=$try; export PATH PGDATA PGHOST; $1"
}

# ask STATEMENT...
ask() {
    local statement
    for statement; do
        printf '%s;\n' "$statement"
    done | as_postgres "psql --no-psqlrc --dbname postgres --quiet --tuples-only --no-align --set ON_ERROR_STOP=1" 2>>"$log"
}

# Those of configure_spilo.py and spilo_commons.py, as far as this Spilo has them.
preloaded() {
    local name names=()
    for name in bg_mon pg_stat_statements pgextwlist pg_auth_mon set_user timescaledb pg_cron pg_stat_kcache; do
        [ ! -f "$folder/lib/$name.so" ] || names+=("$name")
    done
    local IFS=,
    echo "${names[*]}"
}

# What the programs of the server need, and Spilo does not have.
lacks() {
    [ -f "$taken" ] || return 0
    cd /usr
    grep '/bin/' "$taken" | xargs ldd -r 2>&1 | grep -E 'not found|undefined symbol' | sort -u | head -n 10
}

start() {
    as_postgres "initdb --auth trust --no-locale --encoding UTF8" >>"$log" 2>&1 &&
        as_postgres "pg_ctl start --wait --log $log --options '-k $try -c listen_addresses= -c timescaledb.telemetry_level=off \
            -c shared_preload_libraries=$(preloaded)'" >/dev/null
}

# What replication needs, then what only the community edition has.
use_timescaledb() {
    ask "LOAD 'libpqwalreceiver'" "CREATE EXTENSION timescaledb" \
        "CREATE TABLE readings (at timestamptz NOT NULL, room text, temperature double precision)" \
        "SELECT create_hypertable('readings', by_range('at', interval '1 day'))" \
        "INSERT INTO readings SELECT timestamptz '2026-01-01' + n * interval '1 minute', 'room', n FROM generate_series(1, 2880) n" \
        "ALTER TABLE readings SET (timescaledb.compress, timescaledb.compress_segmentby = 'room')" \
        "SELECT compress_chunk(chunk) FROM show_chunks('readings') chunk" \
        "CREATE MATERIALIZED VIEW hours WITH (timescaledb.continuous, timescaledb.materialized_only) AS
            SELECT time_bucket('1 hour', at) AS hour, room, avg(temperature) FROM readings GROUP BY 1, 2 WITH NO DATA" \
        "SELECT add_continuous_aggregate_policy('hours', NULL, NULL, interval '1 hour')" >/dev/null
}

# TimescaleDB's own process does it, not this session: what that does is watched by nobody in the cluster.
await_refresh() {
    local _ ran
    for _ in $(seq 60); do
        ran=$(ask "SELECT last_run_status FROM timescaledb_information.job_stats JOIN timescaledb_information.jobs USING (job_id)
            WHERE proc_name = 'policy_refresh_continuous_aggregate'") || return
        case $ran in
            Success) [ "$(ask "SELECT count(*) FROM hours")" -ge 48 ] && return ;;
            Failed) return 1 ;;
        esac
        sleep 1
    done
    return 1
}

install --directory --owner postgres --mode 700 "$try"
install --owner postgres /dev/null "$log"
trap 'as_postgres "pg_ctl stop --mode immediate" >/dev/null 2>&1 || true; rm -rf "$try" "$taken"' EXIT
version=$("$folder/bin/postgres" --version 2>&1) || fail "PostgreSQL does not run here: $version" \
    "The two images are of different distributions. Name those of one, such as Ubuntu 22.04:"
lacking=$(lacks || true)
[ -z "$lacking" ] || fail "$lacking" "" "$version needs what this Spilo does not have." \
    "Name a Spilo that is newer, or a TIMESCALEDB_IMAGE that is older:"
start || fail "$version does not start with $(preloaded)." \
    "An undefined symbol means that a library was built for a newer minor version. Name a TIMESCALEDB_IMAGE or a Spilo that fits:"
use_timescaledb || fail "$version runs, and TimescaleDB's community edition does not work in it." \
    "Name another TIMESCALEDB_IMAGE:"
await_refresh || fail "$(ask "SELECT err_message FROM timescaledb_information.job_errors LIMIT 1")" "" \
    "$version runs, and TimescaleDB's jobs fail in it. Name a TIMESCALEDB_IMAGE with an older PostgreSQL, or a newer TimescaleDB:"
echo "$version with $(preloaded), TimescaleDB $(ask "SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'")"
