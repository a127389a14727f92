#!/usr/bin/env bash
# What an operator looks at: status, with what is wrong in words, logs, psql, urls.
set -euo pipefail
CDPATH='' cd "$(dirname "$0")/.."
. kind/settings.sh
. kind/steps.sh

need_cluster

status() {
    local faults
    k -n temperature get ksvc,postgresql,cronjob,job,pods
    faults=$(database_faults; volume_faults; node_faults; pooler_faults; health_faults; backup_faults; timer_faults; function_faults; reach_faults; platform_faults)
    echo
    in_context "${faults:-Nothing is wrong that can be seen from here.}"
}

# What an instance of a function says of its database; it listens to itself without a token.
READY='
import http.client
connection = http.client.HTTPConnection("127.0.0.1", 8080, timeout=10)
connection.request("GET", "/ready")
print(connection.getresponse().status)'

# What an instance answers its superuser. Where it is frozen, or a table is locked, nothing is an answer too.
query() {
    k -n temperature exec "$1" -c postgres -- env PGCONNECT_TIMEOUT=5 PGOPTIONS='-c statement_timeout=5s' psql -U postgres -d temperature -qXAtc "$2" 2>/dev/null
}

# standby_fault POD LEADER: why it does not follow. Whether the log that it needs next is gone is asked of the one that has it.
standby_fault() {
    local reached
    if reached=$(query "$1" 'SELECT pg_last_wal_replay_lsn()') &&
        [ "$(query "$2" "SELECT substr(pg_walfile_name('$reached'::pg_lsn + 1), 9) < min(substr(name, 9)) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}\$'")" = t ]; then
        echo "$1 cannot follow the primary any more, since the log is gone that it needs. Have it copied anew: kubectl -n temperature exec $2 -c postgres -- patronictl reinit temperature-db $1 --force"
    else
        echo "$1 does not follow the primary: it is no copy, and cannot take over. If that lasts: docs/reliability.md#a-standby-does-not-follow"
    fi
}

database_faults() {
    local wanted pods pod leader following names config
    wanted=$(database_spec numberOfInstances)
    if [ -z "$wanted" ]; then
        echo "There is no database: make deploy"
        return
    fi
    if [ "$wanted" = 0 ]; then
        echo "The database has no instances, as while make recover is at work. If that ended early: make recover REPLACE=true CONTEXT=$CONTEXT; or, before it removed anything, make deploy"
        return
    fi
    pods=$(k -n temperature get pod -l "$instance_pods" \
        --field-selector status.phase=Running -o jsonpath='{.items[*].metadata.name}')
    [ "$(wc -w <<<"$pods")" -ge "$wanted" ] ||
        echo "The database has fewer instances than $wanted:${pods:+ }${pods:- none}. Why: kubectl -n temperature describe pod -l cluster-name=temperature-db"
    leader=$(primary)
    if ! names=$(query "$leader" 'SHOW synchronous_standby_names'); then
        unreachable "$leader" ||
            echo "The database has no primary that answers, and readings are refused (503): docs/reliability.md#commits-fail"
        return
    fi
    following=$(query "$leader" "SELECT application_name FROM pg_stat_replication WHERE state = 'streaming'")
    for pod in $pods; do
        [ "$pod" = "$leader" ] || grep -qx "$pod" <<<"$following" || standby_fault "$pod" "$leader"
    done
    config=$(k -n temperature exec "$leader" -c postgres -- patronictl show-config 2>/dev/null)
    ! grep -q '^pause: true' <<<"$config" ||
        echo "Patroni is paused, and no standby takes over: kubectl -n temperature exec $leader -c postgres -- patronictl resume"
    ! is_strict || grep -q '^synchronous_mode_strict: true' <<<"$config" ||
        echo "Patroni does not have synchronous_mode_strict, as the manifest says, and may go on with one copy: make deploy"
    if [ "$wanted" -gt 1 ] && [ -z "$names" ]; then
        echo "No standby confirms what is stored: a reading has one copy. docs/reliability.md#copies-are-missing"
    elif [ -n "$names" ] && [ "$(query "$leader" "SELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')")" = 0 ]; then
        echo "There is no standby to confirm what is stored, and readings are refused (503): docs/reliability.md#copies-are-missing"
    fi
}

# unreachable POD: say that no command reaches it, if so. It may be at work all the same.
unreachable() {
    [[ $(k -n temperature exec "$1" -c postgres -- true 2>&1) == *"dialing backend"* ]] &&
        echo "The primary $1 cannot be asked, and may take readings or not: no command reaches its node. Why: kubectl -n temperature describe node $(k -n temperature get pod "$1" -o jsonpath='{.spec.nodeName}')"
}

# Instances that are lost together. Where there is one node only, they cannot be apart.
node_faults() {
    [ "$(k get nodes -o name 2>/dev/null | wc -l)" -eq 1 ] ||
        k -n temperature get pod -l "$instance_pods" --field-selector status.phase=Running \
            -o jsonpath='{range .items[*]}{.spec.nodeName}{"\t"}{.metadata.name}{"\n"}{end}' |
        awk -F '\t' 'NF > 1 { pods[$1] = pods[$1] (number[$1]++ ? ", " : "") $2 }
            END { for (node in pods) if (number[node] > 1) print "The node " node " has " number[node] " instances of the database, and they are lost with it: " pods[node] ". docs/kubernetes.md#when-something-goes-wrong-on-the-cluster" }'
}

# The functions reach the database through them, where the overlay says so.
pooler_faults() {
    k -n temperature get deployment -l cluster-name=temperature-db,application=db-connection-pooler \
        -o jsonpath='{range .items[*]}{.metadata.name}{"\t"}{.spec.replicas}{"\t"}{.status.readyReplicas}{"\n"}{end}' |
        awk -F '\t' 'NF > 1 && $3 + 0 < $2 { print "The pooler " $1 " has " $3 + 0 " of " $2 " instances. Why: kubectl -n temperature describe pod -l connection-pooler=" $1 }'
}

# What the database knows of itself, and how full its volumes are.
health_faults() {
    local pod leader
    leader=$(primary)
    # Without a primary there is nobody to say it, which is said already.
    ! query "$leader" 'SELECT' || query "$leader" 'SELECT fault FROM database_health() WHERE fault IS NOT NULL' ||
        echo "The database does not say how it is: docs/reliability.md#the-database-does-not-say-how-it-is"
    for pod in $(k -n temperature get pod -l "$instance_pods" -o jsonpath='{.items[*].metadata.name}'); do
        k -n temperature exec "$pod" -c postgres -- df --output=pcent,avail -BM /home/postgres/pgdata 2>/dev/null |
            awk -v pod="$pod" 'NR == 2 && $1 + 0 > 90 { print "The volume of " pod " is " $1 " full, " $2 " are left: docs/reliability.md#the-disk-fills" }'
    done
}

# Instances of the functions that get no answer of a database that answers, as with a password that is not its own any more.
reach_faults() {
    local pod
    query "$(primary)" 'SELECT' >/dev/null || return 0
    for pod in $(k -n temperature get pods -l serving.knative.dev/service --field-selector status.phase=Running -o jsonpath='{.items[*].metadata.name}'); do
        [ "$(k -n temperature exec "$pod" -c user-container -- python -c "$READY" 2>/dev/null)" != 503 ] ||
            echo "$pod does not get to the database: docs/reliability.md#commits-fail. Its log says why: kubectl -n temperature logs $pod -c user-container --tail 5"
    done
}

# What is no part of the product, and runs it. pingsource-mt-adapter has no instance where there is no PingSource.
platform_faults() {
    k get deployment -A -o jsonpath='{range .items[*]}{.metadata.namespace}{"\t"}{.metadata.name}{"\t"}{.spec.replicas}{"\t"}{.status.readyReplicas}{"\n"}{end}' 2>/dev/null |
        awk -F '\t' '($1 ~ /^(knative-serving|knative-eventing|kourier-system)$/ || $2 == "postgres-operator") && $2 != "pingsource-mt-adapter" && ($4 + 0 < $3 || $3 == 0) {
            print "Of " $2 " in the namespace " $1 ", which the product needs, " $4 + 0 " of " ($3 ? $3 : 1) " instances are ready. Why: kubectl -n " $1 " describe deployment " $2 }'
}

# What should happen every few minutes, and was switched off.
timer_faults() {
    k -n temperature get cronjob -o jsonpath='{range .items[?(@.spec.suspend==true)]}{.metadata.name}{"\n"}{end}' |
        awk '{ print "The timer " $1 " is suspended. It goes on with suspend: false, kubectl -n temperature edit cronjob " $1 }'
    ! k get crd pingsources.sources.knative.dev >/dev/null 2>&1 ||
        k -n temperature get pingsource,sinkbinding,broker,trigger -o jsonpath='{range .items[*]}{.kind}{" "}{.metadata.name}{"\t"}{.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}' |
        awk -F '\t' '$2 != "True" { print $1 " is not ready: kubectl -n temperature describe " $1 }'
    [ "$(k -n temperature get deployment health --ignore-not-found -o jsonpath='{.status.readyReplicas}')" = 1 ] ||
        echo "Nothing asks the database how it is, for a Prometheus: kubectl -n temperature describe deployment health"
}

backup_faults() {
    local ready
    ready=$(k -n temperature get deployment backup --ignore-not-found -o jsonpath='{.metadata.name} {.status.readyReplicas}')
    [ -z "$ready" ] || [ "$ready" = "backup 1" ] ||
        echo "There is no whole backup, or the log does not come: kubectl -n temperature logs deployment/backup; where it was stopped: make backup"
}

function_faults() {
    ready_faults ''
    # The pod waits for it, and no state of it says so.
    k -n temperature get configmap alarms >/dev/null 2>&1 ||
        echo "There is no ConfigMap alarms, and watch does not start: docs/kubernetes.md#alarms. make deploy makes one without rules, and alarms end"
    [ -z "$(k -n temperature get job migrations --ignore-not-found -o jsonpath='{.status.conditions[?(@.type=="Failed")].status}')" ] ||
        echo "The migrations failed, and say why: kubectl -n temperature logs -l job-name=migrations --prefix --tail 20"
    start_faults ''
}

logs() {
    local functions=${FUNCTION:-ingest,average,simulate,watch}
    k -n temperature logs --follow --prefix --tail 20 --max-log-requests 20 --container user-container \
        --selector "serving.knative.dev/service in ($functions)"
}

# The password goes by way of a file in the pod's memory: neither arguments nor the environment show it.
psql() {
    local user=temperature-${ROLE:-reader}-user pod secret
    pod=$(primary)
    [ -n "$pod" ] || fail "The database has no primary at the moment: make status"
    secret=$(k -n temperature get secret "$user.temperature-db.credentials.postgresql.acid.zalan.do" \
        -o jsonpath='{.data.password}') || fail "ROLE is reader, writer, watcher, admin, monitor or owner"
    k -n temperature exec -i "$pod" -c postgres -- sh -c "umask 077; printf '*:*:*:*:%s' \$(base64 -d) >/dev/shm/$user" <<<"$secret"
    [ -t 0 ] && set -- -it || set -- -i
    k -n temperature exec "$@" "$pod" -c postgres -- sh -c "PGPASSFILE=/dev/shm/$user \
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
