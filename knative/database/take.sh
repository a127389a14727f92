#!/usr/bin/env bash
# Runs in Timescale's image, and lays out in /files what Spilo gets for its /usr: TimescaleDB, and the server that it was
# built for, unless Spilo's own is as new.
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

safe=2.29.1

# The version of TimescaleDB that CREATE EXTENSION takes, and the libraries of safe ones before it: a database needs that
# which it was made with until it is updated. Those that Spilo has stay for the same reason.
timescaledb_files() {
    local library version
    printf '%s\n' "$lib"/lib/timescaledb.so "$share"/extension/timescaledb{.control,--*"$1".sql}
    for library in "$lib"/lib/timescaledb-tsl-*.so; do
        version=${library##*-}
        version=${version%.so}
        if at_least "$version" "$safe"; then printf '%s\n' "$lib"/lib/timescaledb{,-tsl}-"$version".so; fi
    done
}

cd /usr
[ -f "$lib/bin/postgres" ] || fail "TIMESCALEDB_IMAGE has no PostgreSQL 17: name one whose tag begins with pg17."
timescaledb=$(sed -n "s/^default_version = '\(.*\)'/\1/p" "$share/extension/timescaledb.control")
at_least "$timescaledb" "$safe" ||
    fail "TIMESCALEDB_IMAGE has TimescaleDB $timescaledb, which has a known weakness: name one with $safe or newer."
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
