#!/usr/bin/env bash
# What an operator looks at: status, logs, psql, urls.
set -euo pipefail
cd "$(dirname "$0")/.."
. kind/settings.sh
. kind/steps.sh

need_cluster

status() {
    k -n temperature get ksvc,postgresql,cronjob,job,pods
}

logs() {
    local functions=${FUNCTION:-ingest,average,simulate,watch}
    k -n temperature logs --follow --prefix --tail 20 --max-log-requests 20 --container user-container \
        --selector "serving.knative.dev/service in ($functions)"
}

# The password goes by way of a file in the pod's memory: neither arguments nor the environment show it.
psql() {
    local user=temperature-${ROLE:-reader}-user pod secret
    pod=$(k -n temperature get pod -l cluster-name=temperature-db,spilo-role=master -o name)
    [ -n "$pod" ] || fail "The database has no primary at the moment: make status"
    secret=$(k -n temperature get secret "$user.temperature-db.credentials.postgresql.acid.zalan.do" \
        -o jsonpath='{.data.password}') || fail "ROLE is reader, writer, watcher or owner"
    k -n temperature exec -i "$pod" -- sh -c "umask 077; printf '*:*:*:*:%s' \$(base64 -d) >/dev/shm/$user" <<<"$secret"
    [ -t 0 ] && set -- -it || set -- -i
    k -n temperature exec "$@" "$pod" -- sh -c "PGPASSFILE=/dev/shm/$user \
        psql 'host=temperature-db dbname=temperature sslmode=require user=${user//-/_}'; status=\$?; rm /dev/shm/$user; exit \$status"
}

urls() {
    if [ "$CONTEXT" = "kind-$CLUSTER" ]; then
        local address=http://localhost:30080
        printf '%s\n' "" \
            "  Average   curl '$address/v1/temperature/average?building_id=B1&room_id=101'" \
            "  Rooms     curl '$address/v1/temperature/rooms'" \
            "  Alarms    curl '$address/v1/temperature/alarms'" \
            "  Send      curl $address/v1/temperature -H 'Content-Type: application/json' \\" \
            "              -d '{\"building_id\":\"B1\",\"room_id\":\"103\",\"temperature\":22.5,\"timestamp\":\"$(date -u +%Y-%m-%dT%H:%M:%SZ)\"}'" \
            "  Simulate  curl -X POST $address/simulate" \
            "  Database  make psql, or localhost:30432 with the secrets of the namespace temperature" \
            "" "The functions by their Knative names, on port 30080:"
    fi
    k -n temperature get ksvc -o custom-columns=FUNCTION:.metadata.name,URL:.status.url
}

"$1"
