#!/usr/bin/env bash
# Adds Knative Eventing to the cluster.
set -euo pipefail
CDPATH='' cd "$(dirname "$0")/.."
. kind/settings.sh
. kind/steps.sh

need_cluster

install_eventing() {
    apply_definitions "$EVENTING/eventing-crds.yaml"
    # Knative's webhooks refuse objects while they start.
    retry 120 apply -f "$EVENTING/eventing-core.yaml" -f "$EVENTING/in-memory-channel.yaml" \
        -f "$EVENTING/mt-channel-broker.yaml"
    retry 120 apply --field-manager temperature -f kind/eventing-features.yaml
    k -n knative-eventing rollout status deployment --timeout 600s
}

step Eventing install_eventing
