#!/bin/sh
# A reading in, an average out, a day and the days of this month as CSV: sh curl.sh http://localhost:8080
# With tokens: WRITE_TOKEN=... READ_TOKEN=... ADMIN_TOKEN=... sh curl.sh ...
set -eu
address=$1
now=$(date -u +%Y-%m-%dT%H:%M:%SZ)

curl -fsS -X POST "$address/v1/temperature" -H 'Content-Type: application/json' \
    -H "Authorization: Bearer ${WRITE_TOKEN:-}" \
    -d "{\"building_id\": \"B1\", \"room_id\": \"106\", \"temperature\": 22.5, \"timestamp\": \"$now\"}"
echo

# Names are encoded by curl, whatever characters they hold.
curl -fsS -G "$address/v1/temperature/average" -H "Authorization: Bearer ${READ_TOKEN:-}" \
    --data-urlencode building_id=B1 --data-urlencode room_id=106 --data-urlencode "start=2024-01-01T00:00:00Z"
echo

curl -fsS -G "$address/v1/temperature/series" -H "Authorization: Bearer ${READ_TOKEN:-}" -H 'Accept: text/csv' \
    -d building_id=B1 -d room_id=106 -d bucket=1h -d "start=$(date -u +%Y-%m-%dT00:00:00Z)"

# The days of this month as people in a time zone have them.
curl -fsS -G "$address/v1/temperature/series" -H "Authorization: Bearer ${READ_TOKEN:-}" -H 'Accept: text/csv' \
    -d building_id=B1 -d room_id=106 -d bucket=1d -d tz=Europe/Zurich -d "start=$(date -u +%Y-%m-01)"

# The average over time: the reading holds until now. How long it was warmer than 22 degrees, and the last reading.
curl -fsS -G "$address/v1/temperature/average" -H "Authorization: Bearer ${READ_TOKEN:-}" \
    -d building_id=B1 -d room_id=106 -d "start=$(date -u +%Y-%m-%dT00:00:00Z)" \
    -d weighting=time -d above=22 -d statistics=last
echo

# What would be removed; without dry_run it is.
if [ -n "${ADMIN_TOKEN:-}" ]; then
    curl -fsS -G -X DELETE "$address/v1/temperature/readings" -H "Authorization: Bearer $ADMIN_TOKEN" \
        -d building_id=B1 -d room_id=106 -d "start=$now" --data-urlencode "end=$(date -u +%Y-%m-%dT23:59:59.999999Z)" \
        -d above=22 -d dry_run=true
    echo
fi
