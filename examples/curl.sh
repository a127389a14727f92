#!/bin/sh
# A reading in, an average out, a day and the days of this month as CSV: sh curl.sh http://localhost:8080
# With tokens: WRITE_TOKEN=... READ_TOKEN=... sh curl.sh ...
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
