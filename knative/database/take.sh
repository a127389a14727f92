#!/usr/bin/env bash
# Runs in Timescale's image, and lays out in /files what Spilo gets for its /usr: one version of TimescaleDB, and the server
# that it was built for, unless Spilo's own is as new.
set -euo pipefail
lib=lib/postgresql/17
share=share/postgresql/17

fail() {
    echo "$1" >&2
    exit 1
}

# Its own words, without running it: the libraries that it needs may not be here.
version_of() {
    grep --text --only-matching 'postgres (PostgreSQL) 17\.[0-9]*' "$1" | head -n 1 | grep -o '17\..*'
}

# at_least A B: A is B or newer.
at_least() {
    [ "$(printf '%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]
}

# What PostgreSQL's own packages have, less what Spilo leaves out, the sample that Timescale changes, and what compiles
# queries: jit is off (postgresql.yaml), and it needs the very LLVM that it was built with.
server_files() {
    dpkg-query --listfiles postgresql-17 postgresql-client-17 |
        sed -n 's|^/usr/||p' |
        grep -E "^($lib|$share)/" |
        grep -vE '/man/|/bitcode/|/llvmjit|/postgresql\.conf\.sample$' |
        while read -r file; do
            if [ -f "$file" ]; then echo "$file"; fi
        done
}

# One version of TimescaleDB, that which CREATE EXTENSION takes. Those that Spilo has stay, for databases are upgraded from
# them.
timescaledb_files() {
    printf '%s\n' "$lib"/lib/timescaledb{,-"$1",-tsl-"$1"}.so "$share"/extension/timescaledb{.control,--*"$1".sql}
}

cd /usr
[ -f "$lib/bin/postgres" ] || fail "TIMESCALEDB_IMAGE has no PostgreSQL 17: name one whose tag begins with pg17."
timescaledb=$(sed -n "s/^default_version = '\(.*\)'/\1/p" "$share/extension/timescaledb.control")
at_least "$timescaledb" 2.29.1 ||
    fail "TIMESCALEDB_IMAGE has TimescaleDB $timescaledb, which has a known weakness: name one with 2.29.1 or newer."
[ -f "$lib/lib/timescaledb-tsl-$timescaledb.so" ] ||
    fail "TIMESCALEDB_IMAGE has TimescaleDB's Apache edition only: name one whose tag does not end with -oss."

mkdir /files
timescaledb_files "$timescaledb" >/tmp/files
theirs=$(version_of "$lib/bin/postgres")
spilos=$(version_of /tmp/spilo/postgres)
if at_least "$spilos" "$theirs"; then
    echo "TimescaleDB $timescaledb, and Spilo's own PostgreSQL $spilos"
else
    echo "TimescaleDB $timescaledb, and its PostgreSQL $theirs instead of Spilo's $spilos"
    server_files >>/tmp/files || true
    grep -qx "$lib/bin/postgres" /tmp/files ||
        fail "TIMESCALEDB_IMAGE does not say which files are PostgreSQL's (dpkg-query): name another."
    mkdir -p "/files/$lib"
    cp /tmp/files "/files/$lib/taken"
fi
tar --create --files-from /tmp/files | tar --extract --directory /files --no-same-owner
