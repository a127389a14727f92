#!/usr/bin/env bash
# Replaces the cluster's database with its newest backup, up to the instant UNTIL or all of it.
set -euo pipefail
CDPATH='' cd "$(dirname "$0")/.."
. kind/settings.sh
. kind/steps.sh

need_cluster
need_images
: "${UNTIL:=}"
k -n temperature get pvc backup >/dev/null 2>&1 ||
    fail "The namespace temperature of $CONTEXT has no volume backup, which make backup fills."
instant='^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?(Z|[+-][0-9]{2}:[0-9]{2})$'
[[ -z "$UNTIL" || "$UNTIL" =~ $instant ]] || fail "UNTIL is $UNTIL; it must be an instant, such as 2026-11-26T08:30:00Z"
[ "${REPLACE:-}" = true ] ||
    fail "This removes the database of $CONTEXT, and puts its backup in the place. If you mean it: make recover REPLACE=true CONTEXT=$CONTEXT${UNTIL:+ UNTIL=$UNTIL}"
instances=$(database_spec numberOfInstances)
[ -n "$instances" ] || fail "There is no database to be replaced on $CONTEXT: make deploy, then this again"
# An earlier attempt that ended half done left fewer than make deploy had made.
deployed=$(k -n temperature apply view-last-applied postgresql/temperature-db -o yaml | sed -n 's/^  numberOfInstances: //p') || deployed=
[ "${deployed:=1}" -le "$instances" ] || instances=$deployed

# Of several attempts at once the one that stopped the database last goes on.
attempt=$(date -u +%Y-%m-%dT%H:%M:%SZ)-$$-$RANDOM

# change COMMAND...: what another attempt has restored meanwhile is not touched.
change() {
    local last
    last=$(k -n temperature get postgresql temperature-db -o jsonpath='{.metadata.annotations.recovery}')
    if [ -n "$last" ] && [ "$last" != "$attempt" ]; then
        echo "Another make recover has begun since, and goes on: this one changes nothing more"
        return 1
    fi
    k -n temperature "$@"
}

set_instances() {
    change patch postgresql temperature-db --type merge -p "{\"spec\": {\"numberOfInstances\": $1}}"
}

# Before anything is removed: there is a backup for this.
look() {
    k -n temperature scale deployment backup --replicas 1
    retry 120 k -n temperature exec deployment/backup -- true
    k -n temperature exec -i deployment/backup -- env "UNTIL=$UNTIL" LOOK=true bash -s <knative/restore/restore.sh
}

# The backup gets what the primary writes last.
stop() {
    k -n temperature patch postgresql temperature-db --type merge \
        -p "{\"metadata\": {\"annotations\": {\"recovery\": \"$attempt\"}}, \"spec\": {\"numberOfInstances\": 0}}"
    # The operator gives a pod five minutes to end. One whose disk is lost may take them.
    k -n temperature wait pod -l "$instance_pods" --for delete --timeout 400s
    change scale deployment backup --replicas 0
    k -n temperature wait pod -l app.kubernetes.io/component=backup --for delete --timeout 120s
}

# What Patroni wrote down about instances that are gone would keep it from starting with this data.
remove() {
    # A volume that is removed under an instance goes with the end of its pod.
    if [ "$(database_spec numberOfInstances)" != 0 ]; then
        echo "Nothing was removed: somebody started the database meanwhile, as make deploy does"
        return 1
    fi
    # A volume stays for as long as a pod names it, also one that has ended.
    change delete job restore --ignore-not-found
    change delete pvc -l cluster-name=temperature-db
    change delete endpoints -l cluster-name=temperature-db
    change delete endpoints temperature-db-config temperature-db-failover temperature-db-sync --ignore-not-found
}

restore() {
    local class
    class=$(database_spec volume.storageClass)
    # Before the volume: one that is there without a Job has the data of before, to make deploy.
    render ../knative/restore | sed "/name: UNTIL\$/{n;s|value: .*|value: \"$UNTIL\"|;}" | change apply -f -
    change apply -f - <<YAML
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: pgdata-temperature-db-0
  namespace: temperature
  labels: {application: spilo, cluster-name: temperature-db, team: temperature}
spec:
  accessModes: [ReadWriteOnce]
  ${class:+storageClassName: $class}
  resources: {requests: {storage: $(database_spec volume.size)}}
YAML
    await_job restore 3600
}

# Not whether it writes: with strict replication nobody does before there is a standby.
leads() {
    [ "$(k -n temperature exec temperature-db-0 -c postgres -- \
        psql -U postgres -d temperature -qXAtc 'SELECT pg_is_in_recovery()')" = f ]
}

start() {
    set_instances 1
    retry 300 k -n temperature wait pod temperature-db-0 --for condition=Ready --timeout 300s
    retry 300 leads
    agree_with_patroni
    [ "$instances" = 1 ] || set_instances "$instances"
    change scale deployment backup --replicas 1
}

# A copy begins with a checkpoint, which takes minutes unless somebody asks for one.
is_copied() {
    on_primary psql -U postgres -qXAt -c CHECKPOINT \
        -c "SELECT count(*) > 0 FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')" | grep -x t
}

step Look look
step Stop stop
step Remove remove
step Restore restore
step Start start
# Before that nothing can be written.
! is_strict || [ "$instances" = 1 ] || step Copy retry 3600 is_copied
k -n temperature logs job/restore --tail 1
# Its pod names the volume, which stays for as long, also where the database is removed.
change delete job restore >/dev/null
