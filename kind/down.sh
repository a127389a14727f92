#!/usr/bin/env bash
# Removes the cluster, its registry and the images that were built for it.
set -euo pipefail
CDPATH='' cd "$(dirname "$0")/.."
. kind/settings.sh
. kind/steps.sh

need_docker
need_kind

remove_cluster() {
    local before
    kind delete cluster --name "$CLUSTER"
    before=$(cat build/context 2>/dev/null) || return 0
    # That which was the current one before there was a cluster, unless somebody has chosen another since.
    kubectl config current-context 2>/dev/null || kubectl config use-context "$before" || true
    rm build/context
}

remove_registry() {
    ! docker inspect "$CLUSTER-registry" >/dev/null 2>&1 || docker rm --force --volumes "$CLUSTER-registry"
}

remove_images() {
    local images
    # By their names: what has another name too, or others are built from, stays.
    images=$(docker images --format '{{.Repository}}:{{.Tag}}' --filter "reference=$REGISTRY/*" | grep -v '<none>' || true)
    [ -z "$images" ] || docker rmi $images
    # What else is in that folder was measured or drawn.
    rm -f build/images.yaml build/kustomization.yaml build/objects.yaml build/overlay
}

step Cluster remove_cluster
step Registry remove_registry
step Images remove_images
