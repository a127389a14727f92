#!/usr/bin/env bash
# A kind cluster with Knative Serving, Kourier and the Postgres operator, and a registry that it pulls from.
set -euo pipefail
CDPATH='' cd "$(dirname "$0")/.."
. kind/settings.sh
. kind/steps.sh

[ "$CONTEXT" = "kind-$CLUSTER" ] || fail "CONTEXT is $CONTEXT, and this makes a cluster of its own. Unset it."
need_docker
need_kind
need_kubectl
[[ $NODES =~ ^[1-9]$ ]] || fail "NODES is $NODES; it must be a number from 1 to 9"
memory=$(docker info --format '{{.MemTotal}}')
[ "$memory" -ge 5500000000 ] ||
    fail "Docker has $((memory / 1000000)) MB of memory, and the cluster needs 6 GB and 4 processors." \
        "On macOS: Docker Desktop, Settings, Resources."
processors=$(docker info --format '{{.NCPU}}')
[ "$processors" -ge 4 ] ||
    echo "Docker has $processors processors, and the cluster wants 4: some of it may not start." >&2
printf '%s\n' 0.30 "$(kind version --quiet)" | sort -VC ||
    fail "kind $(kind version --quiet) is too old: Knative $KNATIVE_VERSION needs the Kubernetes of kind 0.30 or newer."

cluster_exists() {
    kind get clusters 2>/dev/null | grep -x "$CLUSTER" >/dev/null
}

registry=$CLUSTER-registry
docker inspect "$registry" >/dev/null 2>&1 || need_port 5001 "the registry"
if ! cluster_exists; then
    need_port 30080 "the cluster"
    need_port 30432 "the cluster"
fi

run_registry() {
    [ "$(docker inspect --format '{{.State.Running}}' "$registry" 2>/dev/null)" = true ] ||
        docker start "$registry" 2>/dev/null ||
        docker run --detach --restart always --name "$registry" --publish 127.0.0.1:5001:5000 "$REGISTRY_IMAGE"
}

configuration() {
    local node
    cat kind/cluster.yaml
    for ((node = 2; node <= NODES; node++)); do echo '  - role: worker'; done
}

create_cluster() {
    if ! cluster_exists; then
        # kind makes its own the current one. make down brings this one back.
        mkdir -p build
        kubectl config current-context >build/context 2>/dev/null || true
        make_nodes
    fi
    # After a restart of Docker the node starts by itself, and the API server a little later.
    retry 60 k get --raw /readyz >/dev/null 2>&1 || say_why
}

# Where kind fails it removes what it has made, but not where it is ended: nobody could make the rest of that.
make_nodes() (
    trap 'kind delete cluster --name "$CLUSTER"; exit 130' INT TERM HUP
    configuration |
        kind create cluster --name "$CLUSTER" --config - --wait 180s ${NODE_IMAGE:+--image "$NODE_IMAGE"}
    # Where there are others, kind keeps the first one free of what is deployed.
    [ "$NODES" = 1 ] || k taint nodes -l node-role.kubernetes.io/control-plane node-role.kubernetes.io/control-plane:NoSchedule-
)

say_why() {
    k get --raw /readyz || true
    fail "The cluster $CLUSTER does not answer. If it was made with another kubeconfig: kind export kubeconfig --name $CLUSTER." \
        "If its making was cut short, so that it has nothing yet: make down, then make up"
}

# As in kind's own guide: the nodes reach by the registry's name in Docker's network what the host calls localhost.
connect_registry() {
    local node folder=/etc/containerd/certs.d/localhost:5001
    for node in $(kind get nodes --name "$CLUSTER"); do
        docker exec "$node" mkdir -p "$folder"
        printf '[host."http://%s:5000"]\n' "$registry" | docker exec -i "$node" cp /dev/stdin "$folder/hosts.toml"
    done
    docker network inspect kind --format '{{range .Containers}}{{.Name}} {{end}}' | grep -qw "$registry" ||
        docker network connect kind "$registry"
    k apply --server-side -f kind/registry.yaml
}

install_serving() {
    apply_definitions "$SERVING/serving-crds.yaml"
    # Knative's webhooks refuse objects while they start.
    retry 120 apply -f "$SERVING/serving-core.yaml" -f "$KOURIER/kourier.yaml"
    retry 120 apply --field-manager temperature -k knative/serving
    k -n knative-serving rollout status deployment --timeout 600s
    k -n kourier-system rollout status deployment --timeout 600s
}

install_operator() {
    local file
    for file in $POSTGRES_OPERATOR_FILES; do
        apply -n default -f "$POSTGRES_OPERATOR/$file"
    done
    k -n default rollout status deployment/postgres-operator --timeout 600s
    k wait --for condition=Established --timeout 60s crd/postgresqls.acid.zalan.do
}

step Registry run_registry
step Cluster create_cluster
step Connection connect_registry
step Knative install_serving
step Operator install_operator
