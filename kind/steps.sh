# One line on the screen for one step, and what is missing said before anything is begun; sourced by the other scripts.

fail() {
    printf '%s\n' "$@" >&2
    exit 1
}

# step NAME COMMAND...: run it and say how long it took; if it fails, also what it said.
step() {
    local name=$1 started=$SECONDS output status
    shift
    printf '%-14s' "$name"
    # Within a condition, set -e would be of no effect: the command would go on after a failure.
    set +e
    output=$(set -e; "$@" 2>&1)
    status=$?
    set -e
    if [ "$status" -eq 0 ]; then
        printf 'done in %d s\n' $((SECONDS - started))
    else
        printf 'failed after %d s\n' $((SECONDS - started))
        fail "$output"
    fi
}

# retry SECONDS COMMAND...: again until it succeeds.
retry() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 1
    done
}

k() {
    kubectl --context "$CONTEXT" "$@"
}

# await_job NAME LOOKS: of five seconds each, until it is complete; what its last try said where it is not.
await_job() {
    for _ in $(seq "$2"); do
        k -n temperature wait "job/$1" --for condition=Complete --timeout 5s >/dev/null 2>&1 && return
        k -n temperature wait "job/$1" --for condition=Failed --timeout 0s >/dev/null 2>&1 && break
    done
    # Of the Job itself kubectl shows the oldest one.
    k -n temperature logs --tail 20 \
        "$(k -n temperature get pods -l "job-name=$1" --sort-by .metadata.creationTimestamp -o name | tail -n 1)"
    return 1
}

# apply OPTION...: the files of a release, as they are.
apply() {
    k apply --server-side --force-conflicts "$@"
}

# apply_definitions FILE: and wait until objects of these kinds can be made.
apply_definitions() {
    apply -f "$1"
    k wait --for condition=Established --timeout 60s -f "$1"
}

need() {
    command -v "$1" >/dev/null || fail "$1 was not found. On macOS: brew install $1. Elsewhere: $2"
}

# need_port PORT WHAT: nobody else listens there.
need_port() {
    ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null || fail "Port $1 of this machine is taken, which $2 needs."
}

need_docker() {
    command -v docker >/dev/null || fail "docker was not found. Install it: https://docs.docker.com/get-docker/"
    docker info >/dev/null 2>&1 || fail "Docker does not answer. Start it (on macOS: Docker Desktop), then try again."
}

need_kind() {
    need kind https://kind.sigs.k8s.io/docs/user/quick-start/#installation
}

need_kubectl() {
    need kubectl https://kubernetes.io/docs/tasks/tools/
}

need_cluster() {
    need_kubectl
    k get --raw /readyz >/dev/null 2>&1 ||
        fail "The cluster of the kubectl context $CONTEXT does not answer. For a new one: make up. For another: CONTEXT=..."
}

need_images() {
    [ -f build/images.yaml ] || fail "No images were built yet. Build them: make images"
}

# render FOLDER: its objects with the images that were built; the folder as seen from build/.
render() {
    cat >build/kustomization.yaml - build/images.yaml <<END
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [$1]
configurations: [../knative/database/images.yaml]
END
    kubectl kustomize --load-restrictor LoadRestrictionsNone build
}

# The instance that takes writes. A primary that was cut off keeps its label, so Patroni's own record says it.
primary() {
    k -n temperature get endpoints temperature-db -o jsonpath='{.metadata.annotations.leader}' 2>/dev/null
}

# Whether the manifest has commits fail rather than go on with one copy.
is_strict() {
    [ "$(k -n temperature get postgresql temperature-db -o jsonpath='{.spec.patroni.synchronous_mode_strict}')" = true ]
}

on_primary() {
    k -n temperature exec "$(primary)" -c postgres -- "$@"
}

# The operator tells Patroni what the manifest says, but not again for half an hour where an instance did not answer.
agree_with_patroni() {
    ! is_strict || retry 120 make_strict
}

# Patroni writes its configuration down up to ten seconds after it leads a database that was restored. What is set before
# would be all there is: no synchronous_mode, and nothing that the operator changes any more.
make_strict() {
    on_primary patronictl show-config | grep '^postgresql:' >/dev/null &&
        on_primary patronictl edit-config temperature-db --force --quiet --set synchronous_mode_strict=true
}
