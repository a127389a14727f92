#!/usr/bin/env bash
# Keeps backups in /backup, each in a folder named after the instant of its beginning: `base` is a copy of the data, and
# `wal` the log since then, as it is written. A new one begins every day, and where the last one cannot go on.
set -u
trap 'kill $(jobs -p) 2>/dev/null; exit 0' TERM

every_minutes=${EVERY_MINUTES:-1440}
kept=2
# A receiver that ends within them cannot go on; another one that ends lost the server.
short_seconds=5
current='' receiver='' began=0 failed=0 said=''
# A server that vanished without a word is given up, also by who only listens to it or connects. By itself the system waits
# for minutes, or for two hours, while another leads.
watched='connect_timeout=4 tcp_user_timeout=20000 keepalives_idle=10 keepalives_interval=5'
# So often in a row a server may refuse what one that takes connections has to answer, as while another one begins to lead.
most_refusals=3
refusals=0

# initdb gives each database a number of its own, which a restored one keeps. It is what pg_control begins with.
is_of_this_database() {
    local own
    if ! own=$(psql --no-psqlrc -AtF ' ' "dbname=postgres replication=true $watched" -c IDENTIFY_SYSTEM); then
        refusals=$((refusals + 1))
        # A container that starts anew has the password that there is by now.
        [ "$refusals" -lt "$most_refusals" ] || exit 1
        return 1
    fi
    refusals=0
    [ "${own%% *}" != "$(od -An -tu8 -N8 "$1/base/global/pg_control" | tr -d ' ')" ] || return 0
    [ -n "$said" ] || cat >&2 <<'END'
The volume has the backup of another database, and is left as it is. This database has no backup. Bring the other one
back: make recover REPLACE=true. Or remove it: kubectl -n temperature delete deployment/backup pvc/backup, make backup
END
    said=true
    return 1
}

# is_older MINUTES: than that is the last one. Nobody knows how old one is that was made while the clock was ahead.
is_older() {
    [ -n "$(find "$current" -maxdepth 0 \( -mmin "+$1" -o -newermt '1 hour' \))" ]
}

# The last one is what is restored, and the first one what is removed, whatever the clock said when they were made.
next_name() {
    local name last
    name=$(date -u +%Y%m%dT%H%M%SZ)
    last=$(find /backup -maxdepth 1 -name '*Z' -printf '%f\n' | sort | tail -n 1)
    [[ $name > $last ]] || name=$(date -u -d "${last:0:8} ${last:9:2}:${last:11:2}:${last:13:2}Z 1 second" +%Y%m%dT%H%M%SZ)
    echo "$name"
}

whole() {
    ls -d /backup/*Z/base 2>/dev/null | sort
}

# Not with --synchronous, nor with a slot: where Patroni has a commit wait for any standby, it would be taken for one.
receive() {
    pg_receivewal --directory "$1/wal" --no-loop --dbname "$watched" &
    receiver=$! began=$SECONDS
}

stop_receiving() {
    rm -f /tmp/receiving
    [ -z "$receiver" ] || { kill "$receiver"; wait "$receiver"; } 2>/dev/null
    receiver=''
}

# remove_older NUMBER: than the last ones that are whole.
remove_older() {
    whole | head -n "-$1" | while read -r base; do rm -rf "${base%/base}"; done
}

# The log is written before the copy begins, so that nothing is missed between them.
begin() {
    local before=$receiver place number=$kept
    # So that there are no more than three while a copy is made.
    remove_older "$kept"
    # What a restore went back behind may be in the log of the one before it alone.
    [ ! -e "$current/closed" ] || number=$((kept + 1))
    place=/backup/$(next_name)
    mkdir -p "$place/wal"
    receive "$place"
    for _ in $(seq 300); do
        [ -z "$(ls "$place/wal")" ] || break
        sleep 0.1
    done
    # Only a whole one is called `base`.
    if [ -n "$(ls "$place/wal")" ] && pg_basebackup --dbname "$watched" --pgdata "$place/base.new" --checkpoint fast; then
        mv "$place/base.new" "$place/base"
        [ -z "$before" ] || kill "$before" 2>/dev/null
        current=$place
        echo "$place is whole, and has all that is written from now on"
        remove_older "$number"
    else
        kill "$receiver" 2>/dev/null
        rm -rf "$place"
        receiver=$before
        echo "No copy could be made; it is tried again" >&2
        sleep 10
    fi
}

# What an earlier run left half made.
for place in /backup/*Z; do [ -e "$place/base" ] || rm -rf "$place"; done
current=$(whole | tail -n 1)
current=${current%/base}
while true; do
    # Where no copy can be made any more, the last one goes on, and would hide it.
    [ -z "$current" ] || ! is_older $((2 * every_minutes)) || rm -f /tmp/receiving
    if ! pg_isready --quiet --dbname postgres; then
        rm -f /tmp/receiving
    elif [ -n "$current" ] && { [ -z "$receiver" ] || is_older "$every_minutes"; } && ! is_of_this_database "$current"; then
        # It may be all that is left of that. A receiver that hangs does not say whose log it waits for.
        rm -f /tmp/receiving
    # A restore that went back behind its end closed it.
    elif [ -z "$current" ] || [ "$failed" -ge 3 ] || [ -e "$current/closed" ] || is_older "$every_minutes"; then
        failed=0
        begin
    elif [ -z "$receiver" ]; then
        receive "$current"
    elif ! kill -0 "$receiver" 2>/dev/null; then
        [ $((SECONDS - began)) -gt $short_seconds ] && failed=0 || failed=$((failed + 1))
        stop_receiving
    elif [ $((SECONDS - began)) -gt $short_seconds ]; then
        touch /tmp/receiving
    fi
    sleep 1
done
