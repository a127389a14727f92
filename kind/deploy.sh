#!/usr/bin/env bash
# Brings the product on the cluster to the images of build/ and the manifests of an overlay: database, schema, functions.
set -euo pipefail
CDPATH='' cd "$(dirname "$0")/.."
. kind/settings.sh
. kind/steps.sh
. kind/needs.sh

# A name in knative/overlays, or any folder.
overlay=knative/overlays/$OVERLAY
[ -f "$overlay/kustomization.yaml" ] || overlay=$OVERLAY
[ -f "$overlay/kustomization.yaml" ] ||
    fail "There is no overlay $OVERLAY: neither knative/overlays/$OVERLAY nor $OVERLAY has a kustomization.yaml"
need_cluster
need_images
# Kustomize takes no absolute paths, but goes where a link leads to.
ln -sfn "$(cd "$overlay" && pwd)" build/overlay
render overlay >build/objects.yaml
needs=$(lacking build/objects.yaml)
[ -z "$needs" ] || fail "Nothing was changed. The cluster of $CONTEXT lacks:" "$needs"
! is_half_recovered ||
    fail "Nothing was changed. make recover removed the database and ended before its backup was back: make recover REPLACE=true CONTEXT=$CONTEXT"
changes=$(changed)
[ -z "$changes" ] || printf '%s\n' \
    "Changed on the cluster since the last make deploy, and set back by this one (- is, + will be). What is to stay belongs" \
    "into an overlay of your own: docs/kubernetes.md#an-overlay-of-your-own" "$changes"

image=$(sed -n 's/^  dockerImage: //p' build/objects.yaml)

# Whether an instance that runs gets another image.
replaces_image() {
    leader=$(primary) && [ -n "$image" ] && [ "$image" != "$(database_spec dockerImage)" ] &&
        [ "$(k -n temperature get pod "$leader" -o jsonpath='{.status.phase}' 2>/dev/null)" = Running ]
}

# The operator ends an instance before another one begins with the image. So this pulls it first, as that one will.
try_image() {
    local account node
    account=$(k -n temperature get pod "$leader" -o jsonpath='{.spec.serviceAccountName}')
    node=$(k -n temperature get pod "$leader" -o jsonpath='{.spec.nodeName}')
    k -n temperature delete pod database-image --ignore-not-found
    # Also where somebody ends this: nobody tries that image again who goes back to the one before.
    trap 'k -n temperature delete pod database-image --ignore-not-found --wait=false || true' EXIT
    # Where such a pod is not allowed, nobody can know.
    k apply -f - <<YAML || return 0
apiVersion: v1
kind: Pod
metadata: {name: database-image, namespace: temperature, labels: {app.kubernetes.io/name: database-image}}
spec:
  serviceAccountName: $account
  automountServiceAccountToken: false
  nodeName: $node
  restartPolicy: Never
  containers:
    - {name: image, image: "$image", command: ["true"]}
YAML
    await 900 'start_faults app.kubernetes.io/name=database-image' is_pulled ||
        fail "Nothing was changed, and the database goes on with the image that it has"
}

is_pulled() {
    [ -n "$(k -n temperature get pod database-image -o jsonpath='{.status.containerStatuses[0].imageID}')" ]
}

prepare_database() {
    local applied faults
    faults=$(database_faults)
    applied=$(k apply -f build/objects.yaml -l 'app.kubernetes.io/component notin (function, simulator, migrations, eventing, timer)')
    # For ten minutes it would wait for an instance that does not start, and notice nothing. After a user that it could not make
    # it does not get into the database any more.
    [ -z "$faults" ] || k -n default delete pod -l name=postgres-operator --grace-period 5 || true
    # Until the operator has noticed, the status is that of before.
    case $applied in *temperature-db\ configured*)
        k -n temperature wait postgresql/temperature-db --for jsonpath='{.status.PostgresClusterStatus}'=Updating \
            --timeout 30s || true ;;
    esac
    await 1500 database_faults database_runs
    # A pooler that the overlay does not have any more goes away meanwhile, which is an error.
    retry 60 k -n temperature rollout status deployment -l cluster-name=temperature-db --timeout 600s
    agree_with_patroni
}

database_faults() {
    instance_faults
    operator_faults
    secret_faults
}

# It makes one that somebody removed when it looks again, which is in half an hour.
secret_faults() {
    local name
    [ -n "$(operator_status)" ] || return 0
    for name in $(grep -o '[a-z.-]*\.credentials\.postgresql\.acid\.zalan\.do' build/objects.yaml | sort -u); do
        ask -n temperature get secret "$name" -o name >/dev/null ||
            echo "The Secret $name is missing: kubectl -n default logs deployment/postgres-operator --tail 20"
    done
}

database_runs() {
    local wanted
    # The operator makes no instance anew that does not answer, also where that is for what the manifest said before.
    wanted=$(k -n temperature get statefulset temperature-db -o jsonpath='{.status.updateRevision}')
    [ -z "$wanted" ] || k -n temperature delete pod -l "$instance_pods,controller-revision-hash!=$wanted" \
        --field-selector status.phase=Pending --wait=false
    {
        k -n temperature wait postgresql/temperature-db --for jsonpath='{.status.PostgresClusterStatus}'=Running --timeout 5s ||
            only_lacks_a_volume
    } && k -n temperature wait pod -l "$instance_pods" --for condition=Ready --timeout 5s
}

# A Job cannot be changed, only replaced; its work is done once, however often it runs.
migrate() {
    k -n temperature delete job/migrations --ignore-not-found
    k apply -f build/objects.yaml -l app.kubernetes.io/component=migrations
    await_job migrations 650
}

# It is the operator's from then on. What was made this way is never pruned, and nothing here applies it. Before there was one,
# watch itself had the rules: without them alarms would end.
make_alarms() {
    local rules sink
    rules=$(alarm_setting ALARM_RULES)
    sink=$(alarm_setting ALARM_SINK_URL)
    k -n temperature create configmap alarms --from-literal=rules.json="${rules:-[]}" ${sink:+--from-literal=sink="$sink"}
}

alarm_setting() {
    k -n temperature get ksvc watch --ignore-not-found \
        -o jsonpath="{.spec.template.spec.containers[0].env[?(@.name==\"$1\")].value}"
}

# What the overlay does not have any more is removed.
start_functions() {
    local kind kinds=()
    k -n temperature get configmap alarms >/dev/null 2>&1 || make_alarms
    for kind in apps/v1/Deployment core/v1/{ConfigMap,Service} networking.internal.knative.dev/v1alpha1/Ingress \
        networking.k8s.io/v1/NetworkPolicy policy/v1/PodDisruptionBudget serving.knative.dev/v1/Service; do
        kinds+=(--prune-allowlist "$kind")
    done
    if k get crd brokers.eventing.knative.dev >/dev/null 2>&1; then
        for kind in eventing.knative.dev/v1/{Broker,Trigger} sources.knative.dev/v1/{PingSource,SinkBinding}; do
            kinds+=(--prune-allowlist "$kind")
        done
    fi
    apply_functions -f build/objects.yaml --prune "${kinds[@]}" \
        -l 'app.kubernetes.io/part-of=temperature,app.kubernetes.io/component!=timer'
    await 600 revision_faults k -n temperature wait ksvc --all --for condition=Ready --timeout 5s
    # On a new cluster a timer that begins before what it calls leaves a pod that failed.
    k apply -f build/objects.yaml --prune --prune-allowlist batch/v1/CronJob -l app.kubernetes.io/part-of=temperature
    k -n temperature rollout status deployment -l app.kubernetes.io/component=eventing --timeout 300s
}

# Of the newest revisions: one that was never ready may be there for ten minutes more, and nobody waits for it.
revision_faults() {
    local newest
    newest=$(k -n temperature get ksvc -o jsonpath='{.items[*].status.latestCreatedRevisionName}')
    start_faults "serving.knative.dev/revision in (${newest// /,})"
    ready_faults False
}

! replaces_image || step Image try_image
step Database prepare_database
step Migrations migrate
step Functions start_functions
volume_faults
