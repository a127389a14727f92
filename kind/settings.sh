# What can be set from outside, with the public defaults; sourced by the other scripts.

# What somebody has kubectl and cd do at the prompt would change what they do and say here.
export KUBERC=off KUBECTL_EXTERNAL_DIFF=
unset CDPATH

# The cluster, and the kubectl context of `make deploy` and what looks at it; for another cluster, set CONTEXT.
: "${CLUSTER:=temperature}"
: "${CONTEXT:=kind-$CLUSTER}"
: "${OVERLAY:=kind}"
# How many nodes a new kind cluster has.
: "${NODES:=1}"
# Where images are pushed to and pulled from. kind/up.sh runs that registry at localhost:5001.
: "${REGISTRY:=localhost:5001/temperature}"

: "${KNATIVE_VERSION:=v1.23.0}"
: "${POSTGRES_OPERATOR_VERSION:=v2.0.1}"

# Folders, or addresses, that have the releases' files.
: "${SERVING:=https://github.com/knative/serving/releases/download/knative-$KNATIVE_VERSION}"
: "${KOURIER:=https://github.com/knative-extensions/net-kourier/releases/download/knative-$KNATIVE_VERSION}"
: "${EVENTING:=https://github.com/knative/eventing/releases/download/knative-$KNATIVE_VERSION}"
: "${POSTGRES_OPERATOR:=https://raw.githubusercontent.com/zalando/postgres-operator/$POSTGRES_OPERATOR_VERSION/manifests}"
: "${POSTGRES_OPERATOR_FILES:=postgresql.crd.yaml configmap.yaml operator-service-account-rbac.yaml postgres-operator.yaml}"

# Images: of kind's nodes (empty: kind's own choice), the local registry, and what ours are built from.
: "${NODE_IMAGE:=}"
: "${REGISTRY_IMAGE:=registry:2}"
: "${PYTHON_IMAGE:=python:3.13-slim}"
: "${SPILO_IMAGE:=ghcr.io/zalando/spilo-17:4.0-p3}"
: "${TIMESCALEDB_IMAGE:=timescale/timescaledb-ha:pg17.11-ts2.29.2}"
