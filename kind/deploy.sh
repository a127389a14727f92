#!/usr/bin/env bash
# Brings the product on the cluster to the images of build/ and the manifests of an overlay: database, schema, functions.
set -euo pipefail
cd "$(dirname "$0")/.."
. kind/settings.sh
. kind/steps.sh

need_cluster
[ -d "knative/overlays/$OVERLAY" ] || fail "There is no overlay $OVERLAY in knative/overlays"
need_images
render "../knative/overlays/$OVERLAY" >build/objects.yaml

prepare_database() {
    local applied
    applied=$(k apply -f build/objects.yaml -l 'app.kubernetes.io/component notin (function, simulator, migrations, eventing)')
    # Until the operator has noticed, the status is that of before.
    case $applied in *temperature-db\ configured*)
        k -n temperature wait postgresql/temperature-db --for jsonpath='{.status.PostgresClusterStatus}'=Updating \
            --timeout 30s || true ;;
    esac
    k -n temperature wait postgresql/temperature-db --for jsonpath='{.status.PostgresClusterStatus}'=Running --timeout 900s
    k -n temperature wait pod -l cluster-name=temperature-db,application=spilo --for condition=Ready --timeout 600s
    k -n temperature rollout status deployment -l cluster-name=temperature-db --timeout 600s
    agree_with_patroni
}

# A Job cannot be changed, only replaced; its work is done once, however often it runs.
migrate() {
    k -n temperature delete job/migrations --ignore-not-found
    k apply -f build/objects.yaml -l app.kubernetes.io/component=migrations
    await_job migrations 130
}

# What the overlay does not have any more is removed.
start_functions() {
    local kind kinds=() tokens
    # Those to remove readings may be missing: then nobody does.
    tokens=$(k -n temperature get secret tokens --ignore-not-found -o jsonpath='{.data.write} {.data.read}')
    if grep -qE 'key: (write|read)$' build/objects.yaml && [[ $tokens != ?*' '?* ]]; then
        echo "The functions need tokens, which clients send as Authorization: Bearer TOKEN. Make them, then try again:"
        echo "  kubectl -n temperature create secret generic tokens --dry-run=client -o yaml \\"
        echo '    --from-literal=write="$(openssl rand -hex 32)" --from-literal=read="$(openssl rand -hex 32)" |'
        echo "    kubectl --context $CONTEXT apply --server-side -f -"
        return 1
    fi
    # It is the operator's from then on. What was made this way is never pruned, and nothing here applies it.
    k -n temperature get configmap alarms >/dev/null 2>&1 ||
        k -n temperature create configmap alarms --from-literal=rules.json='[]'
    for kind in core/v1/ConfigMap batch/v1/CronJob serving.knative.dev/v1/Service; do
        kinds+=(--prune-allowlist "$kind")
    done
    if k get crd brokers.eventing.knative.dev >/dev/null 2>&1; then
        for kind in eventing.knative.dev/v1/{Broker,Trigger} sources.knative.dev/v1/{PingSource,SinkBinding}; do
            kinds+=(--prune-allowlist "$kind")
        done
    fi
    k apply -f build/objects.yaml --prune -l app.kubernetes.io/part-of=temperature "${kinds[@]}"
    k -n temperature wait ksvc --all --for condition=Ready --timeout 600s
    k -n temperature rollout status deployment -l app.kubernetes.io/component=eventing --timeout 300s
}

step Database prepare_database
step Migrations migrate
step Functions start_functions
