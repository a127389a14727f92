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
    # `kubectl wait` takes Ctrl-C for a failure of its own, and what waits for something would only wait again.
    output=$(set -e; trap 'exit 130' INT; "$@" 2>&1)
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

# The pods of the instances of the database, its poolers not among them.
instance_pods=cluster-name=temperature-db,application=spilo

# start_faults SELECTOR: why pods do not start, a line for each; nothing where all of them did, or may yet.
start_faults() {
    k -n temperature get pods -l "$1" -o jsonpath='{range .items[*]}{.metadata.name}{"\t\t"}{.status.conditions[?(@.type=="PodScheduled")].reason}{"\t"}{.status.conditions[?(@.type=="PodScheduled")].message}{range .status.containerStatuses[*]}{"\t"}{.name}{"\t"}{.state.waiting.reason}{"\t"}{.state.waiting.message}{end}{"\n"}{end}' |
        awk -F '\t' '{ for (i = 2; i + 2 <= NF; i += 3) if ($(i + 1) ~ /BackOff|Err|Invalid|Unschedulable/) {
            more = "describe pod " $1
            # The message only says that it is started again.
            if ($(i + 1) ~ /Crash/) { more = "logs " $1 " -c " $i " --previous"; $(i + 2) = "" }
            sub(/\.*$/, "", $(i + 2))
            print $1 " does not start (" $(i + 1) "): " ($(i + 2) ? $(i + 2) ". More: " : "") "kubectl -n temperature " more
        } }'
}

instance_faults() {
    start_faults "$instance_pods"
}

# ready_faults STATUS: functions that are not ready, of those whose readiness has such a status.
ready_faults() {
    k -n temperature get ksvc -o jsonpath='{range .items[*]}{.metadata.name}{"\t"}{.status.conditions[?(@.type=="Ready")].status}{"\t"}{.status.conditions[?(@.type=="Ready")].message}{"\n"}{end}' |
        # A message may go on in lines of its own.
        awk -F '\t' -v status="$1" 'NF > 1 && $2 != "True" && $2 ~ status { print "The function " $1 " is not ready: " ($3 ? $3 : "kubectl -n temperature describe ksvc " $1) }'
}

# in_context WORDS: with the cluster in each kubectl that they name. Somebody else's may be the current one.
in_context() {
    printf '%s\n' "${1//kubectl -n /kubectl --context $CONTEXT -n }"
}

# How long what does not start is waited for: a registry may be away for a moment, and a cluster may add a node.
START_SECONDS=120
NODE_SECONDS=300
# What failed the Postgres operator tries again after five minutes.
OPERATOR_SECONDS=400
WEBHOOK_SECONDS=60

# await SECONDS FAULTS COMMAND...: until it succeeds; less where FAULTS prints something for minutes, which is said then.
await() {
    local begun=$SECONDS looked=$SECONDS hopeless=0 limit=$1 look=$2 faults patience
    shift 2
    until "$@" >/dev/null 2>&1; do
        faults=$($look) || faults=
        # What comes to an end over and over is started in between.
        [ -z "$faults" ] || hopeless=$((hopeless + SECONDS - looked))
        looked=$SECONDS
        patience=$START_SECONDS
        [[ $faults != *Unschedulable* ]] || patience=$NODE_SECONDS
        [[ $faults != "The Postgres operator"* ]] || patience=$OPERATOR_SECONDS
        if [ $((SECONDS - begun)) -ge "$limit" ] || [ "$hopeless" -ge "$patience" ]; then
            in_context "${faults:-It is not ready after $limit s: make status CONTEXT=$CONTEXT}"
            return 1
        fi
        sleep 2
    done
}

# await_job NAME SECONDS: until it is complete; what its last try said where it is not.
await_job() {
    ! await "$2" "start_faults job-name=$1" job_is_over "$1" ||
        ! k -n temperature wait "job/$1" --for condition=Complete --timeout 0s >/dev/null 2>&1 || return 0
    # Of the Job itself kubectl shows the oldest one. One that has not started has none.
    k -n temperature logs --tail 20 \
        "$(k -n temperature get pods -l "job-name=$1" --sort-by .metadata.creationTimestamp -o name | tail -n 1)" 2>/dev/null || true
    return 1
}

job_is_over() {
    k -n temperature wait "job/$1" --for condition=Complete --timeout 5s ||
        k -n temperature wait "job/$1" --for condition=Failed --timeout 0s
}

# apply OPTION...: the files of a release, as they are.
apply() {
    k apply --server-side --force-conflicts "$@"
}

# apply_functions OPTION...: again while a webhook does not answer, as Knative's while it is moved to another node.
apply_functions() {
    local said end=$((SECONDS + WEBHOOK_SECONDS))
    until said=$(k apply "$@" 2>&1); do
        if [[ $said != *"failed calling webhook"* ]]; then
            echo "$said"
            return 1
        elif [ "$SECONDS" -ge "$end" ]; then
            # The rest are the objects, as they would have been.
            grep -o 'failed calling webhook.*' <<<"$said" | sort -u
            in_context "Who has to look at the objects first does not answer: kubectl -n knative-serving get pods, then make deploy again"
            return 1
        fi
        sleep 1
    done
    printf '%s\n' "$said"
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

# database_spec PATH: what the manifest on the cluster says of the database; nothing where there is none.
database_spec() {
    k -n temperature get postgresql temperature-db --ignore-not-found -o jsonpath="{.spec.$1}"
}

# Whether the manifest has commits fail rather than go on with one copy.
is_strict() {
    [ "$(database_spec patroni.synchronous_mode_strict)" = true ]
}

# Volumes of the database that are not as the manifest says. What cannot be changed the operator leaves, without a word.
volume_faults() {
    local wanted
    wanted=$(k -n temperature get statefulset temperature-db --ignore-not-found \
        -o jsonpath='{.spec.volumeClaimTemplates[0].spec.resources.requests.storage}{"\t"}{.spec.volumeClaimTemplates[0].spec.storageClassName}')
    [ -z "${wanted//$'\t'/}" ] || k -n temperature get pvc -l cluster-name=temperature-db \
        -o jsonpath='{range .items[*]}{.metadata.name}{"\t"}{.spec.resources.requests.storage}{"\t"}{.spec.storageClassName}{"\n"}{end}' |
        awk -F '\t' -v wanted="$wanted" 'BEGIN { split(wanted, want, "\t") }
            NF > 1 && ($2 != want[1] || (want[2] && $3 != want[2])) { print "The volume " $1 " has " $2 " of the class " $3 ", and the manifest says " want[1] (want[2] ? " of the class " want[2] : "") ": docs/kubernetes.md#another-volume" }'
}

# operator_status: Running, Updating and the like, or that it failed.
operator_status() {
    k -n temperature get postgresql temperature-db --ignore-not-found -o jsonpath='{.status.PostgresClusterStatus}'
}

# A volume that it cannot change is a failure to the operator when it looks again, but not when the manifest changes.
only_lacks_a_volume() {
    [[ $(operator_status) = SyncFailed && -n $(volume_faults) ]]
}

operator_faults() {
    local status
    status=$(operator_status)
    [[ $status != *Failed && $status != Invalid ]] || only_lacks_a_volume ||
        echo "The Postgres operator could not do what the manifest says ($status): kubectl -n default logs deployment/postgres-operator --tail 20"
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
