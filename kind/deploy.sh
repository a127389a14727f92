#!/usr/bin/env bash
# Brings the product on the cluster to the images of build/ and the manifests of an overlay: database, schema, functions.
set -euo pipefail
cd "$(dirname "$0")/.."
. kind/settings.sh
. kind/steps.sh

need_cluster
[ -d "knative/overlays/$OVERLAY" ] || fail "There is no overlay $OVERLAY in knative/overlays"
[ -f build/images.yaml ] || fail "No images were built yet. Build them: make images"

cat >build/kustomization.yaml - build/images.yaml <<END
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [../knative/overlays/$OVERLAY]
configurations: [../knative/database/images.yaml]
END
kubectl kustomize --load-restrictor LoadRestrictionsNone build >build/objects.yaml

prepare_database() {
    local objects='app.kubernetes.io/component notin (function, simulator, migrations)'
    k apply -f build/objects.yaml -l "$objects"
    k -n temperature wait postgresql/temperature-db --for jsonpath='{.status.PostgresClusterStatus}'=Running --timeout 600s
    k -n temperature wait pod -l cluster-name=temperature-db --for condition=Ready --timeout 300s
}

# A Job cannot be changed, only replaced; its work is done once, however often it runs.
migrate() {
    local objects='app.kubernetes.io/component=migrations'
    k apply -f build/objects.yaml -l "$objects" || {
        k -n temperature delete job/migrations
        k apply -f build/objects.yaml -l "$objects"
    }
    k -n temperature wait job/migrations --for condition=Complete --timeout 300s ||
        { k -n temperature logs job/migrations --tail 20; return 1; }
}

start_functions() {
    k apply -f build/objects.yaml
    k -n temperature wait ksvc --all --for condition=Ready --timeout 300s
}

step Database prepare_database
step Migrations migrate
step Functions start_functions
