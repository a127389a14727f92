#!/usr/bin/env bash
# Makes the data of the first instance from the newest backup that was whole before UNTIL (an instant; all of it), and
# leaves it as a server that was shut down. Needs a volume without data. With LOOK it only looks whether there is such a backup.
set -euo pipefail

fail() {
    echo "$*" >&2
    exit 1
}

place=/home/postgres/pgdata/pgroot
# Patroni starts with nothing that is half restored.
data=$place/restoring
until=${UNTIL:+$(date -u -d "$UNTIL" +%Y-%m-%dT%H:%M:%S.%6N+00:00)} || fail "UNTIL is $UNTIL; it must be an instant, such as 2026-11-26T08:30:00Z"
backup=''
for base in /backup/*Z/base; do
    [ -e "$base" ] || continue
    # The copy is nothing before the instant at which it ended, when its list of files was written.
    if [ -z "$until" ] || [ "$(date -r "$base/backup_manifest" +%s)" -lt "$(date -d "$until" +%s)" ]; then backup=${base%/base}; fi
done
[ -n "$backup" ] || fail "The volume backup has no backup${until:+ that was whole before $until}"
[ -z "${LOOK:-}" ] || exit 0
[ -z "$(ls -A "$place/data" 2>/dev/null)" ] || fail "The volume pgdata-temperature-db-0 has data already"

rm -rf "$data"
mkdir -p "$data"
cp -a "$backup/base/." "$data"
chmod 0700 "$data"
# Patroni leaves them in there from when this was a standby, and PostgreSQL takes two targets for too many, also where one
# is empty.
sed -i '/^recovery_/d; /^primary_/d; /^restore_command/d' "$data/postgresql.conf"
# Patroni's settings are those of the manifest as it is now, not as it was.
rm -f "$data/patroni.dynamic.json"
touch "$data/recovery.signal"
# The settings are those that Patroni left, but for what belongs to a pod. The last file of the log is not full yet, and
# named so. A copy that fails, as on a volume that is full, is not the end of the log.
echo 'local all all trust' >/tmp/hba
export PGHOST=/tmp PATH=/usr/lib/postgresql/17/bin:$PATH
replay() {
    postgres -D "$data" -c listen_addresses= -c unix_socket_directories=/tmp -c ssl=off -c hba_file=/tmp/hba \
        -c archive_mode=off -c hot_standby=off -c logging_collector=off -c log_destination=stderr \
        -c synchronous_standby_names= \
        -c "restore_command=f=$backup/wal/%f; [ -e \$f ] || f=\$f.partial; [ -e \$f ] || exit 1; cp \$f %p || exit 255" \
        "$@" 2> >(tee /tmp/log >&2) &
    server=$!
}

replay ${until:+-c "recovery_target_time=$until" -c recovery_target_action=promote}
trap 'kill "$server" 2>/dev/null' EXIT
until psql -U postgres -d temperature -qc 'SELECT 1' >/dev/null 2>&1; do
    if ! kill -0 "$server" 2>/dev/null; then
        # Where the log ends before UNTIL, all of it was before.
        grep -q 'recovery ended before configured recovery target was reached' /tmp/log ||
            fail "The backup $backup cannot be restored, see above"
        replay
    fi
    sleep 1
done
psql -U postgres -d postgres -qX -v ON_ERROR_STOP=1 <<'SQL'
\getenv postgres POSTGRES_PASSWORD
\getenv standby STANDBY_PASSWORD
ALTER ROLE postgres PASSWORD :'postgres';
ALTER ROLE standby PASSWORD :'standby';
SQL
found=$(psql -U postgres -d temperature -qXAtc \
    "SELECT count(*) || ' readings, the latest of ' || coalesce(to_char(max(timestamp) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US'), 'never') FROM temperatures")
trap - EXIT
pg_ctl stop -D "$data" -m fast
rm -rf "$place/data"
mv "$data" "$place/data"
# The log of what comes from now on would hide what there was between that instant and now. So no backup that there is gets
# it, and a new one begins.
[ -z "$until" ] || for each in /backup/*Z; do touch "$each/closed"; done
echo "Restored ${backup##*/}${until:+ up to $until}: $found UTC"
