#!/usr/bin/env bash
# Adds Knative Eventing to the cluster.
set -euo pipefail
cd "$(dirname "$0")/.."
. kind/settings.sh
. kind/steps.sh

need_cluster

install_eventing() {
    k apply --server-side --force-conflicts -f "$EVENTING/eventing-crds.yaml"
    k wait --for condition=Established --timeout 60s -f "$EVENTING/eventing-crds.yaml"
    retry k apply --server-side --force-conflicts -f "$EVENTING/eventing-core.yaml" -f "$EVENTING/in-memory-channel.yaml" \
        -f "$EVENTING/mt-channel-broker.yaml"
    k -n knative-eventing rollout status deployment --timeout 600s
}

step Eventing install_eventing
