# What the objects of an overlay need of the cluster, and what somebody changed there; sourced by kind/deploy.sh.

# ask COMMAND...: what kubectl says; `unknown` where this user may not ask, or nobody answered, which is taken for the best.
# Fails just where there is no such thing.
ask() {
    local said
    if said=$(k "$@" 2>/dev/null); then
        printf '%s' "$said"
    else
        case $(k "$@" 2>&1) in
        *NotFound* | *"have a resource type"*) return 1 ;;
        *) printf unknown ;;
        esac
    fi
}

# lacking OBJECTS: what somebody else has to make first, each with what makes it; nothing where all of it is there.
lacking() {
    local version
    while read -r version; do
        ask get --raw "/apis/$version" >/dev/null || case $version in
        serving.knative.dev/* | networking.internal.knative.dev/*)
            echo "Knative Serving ($version): make up has it in a cluster of its own, elsewhere https://knative.dev/docs/install/" ;;
        eventing.knative.dev/* | sources.knative.dev/*)
            echo "Knative Eventing ($version): make eventing" ;;
        acid.zalan.do/*)
            echo "The Postgres operator ($version), in the namespace default: https://github.com/zalando/postgres-operator/blob/$POSTGRES_OPERATOR_VERSION/docs/quickstart.md" ;;
        *)
            echo "Whatever defines $version" ;;
        esac
    done < <(sed -n '/\.k8s\.io/d; s|^apiVersion: \(.*\..*/.*\)|\1|p' "$1" | sort -u)
    lacking_operator "$1"
    lacking_ingress "$1"
    lacking_storage "$1"
    lacking_features "$1"
    lacking_secrets "$1"
}

lacking_operator() {
    # Where the policies let it in from.
    if grep -q '^kind: postgresql$' "$1" && grep -q ' name: postgres-operator$' "$1"; then
        [ -n "$(ask -n default get pods -l name=postgres-operator --field-selector status.phase=Running -o name)" ] ||
            echo "A Postgres operator that runs in the namespace default, with the label name=postgres-operator. If it runs elsewhere, change network-database.yaml in an overlay of your own"
        # The scripts find the primary there.
        [ "$(ask -n default get configmap postgres-operator -o jsonpath='{.data.kubernetes_use_configmaps}')" != true ] ||
            echo "That the Postgres operator keeps in Endpoints who leads (kubernetes_use_configmaps: \"false\"). How that is changed with databases that there are: https://github.com/zalando/postgres-operator/blob/$POSTGRES_OPERATOR_VERSION/docs/migrate.md"
    fi
}

lacking_ingress() {
    grep -q kourier-system "$1" || return 0
    ask get namespace kourier-system >/dev/null || {
        echo "Kourier, the ingress of Knative: https://knative.dev/docs/install/. For another one change network-functions.yaml in an overlay of your own"
        return
    }
    case $(ask -n knative-serving get configmap config-network -o jsonpath='{.data.ingress-class}{.data.ingress\.class}') in
    *kourier* | unknown) ;;
    *) echo "That Knative uses Kourier: kubectl --context $CONTEXT -n knative-serving patch configmap config-network --type merge -p '{\"data\": {\"ingress-class\": \"kourier.ingress.networking.knative.dev\"}}'" ;;
    esac
}

lacking_storage() {
    if grep -q '^kind: postgresql$' "$1" && ! grep -q ' storageClass: ' "$1"; then
        [[ $(ask get storageclass -o yaml) =~ storageclass\.kubernetes\.io/is-default-class:\ \"true\"|^unknown ]] ||
            echo "A default StorageClass for the volumes of the database; or name one (spec.volume.storageClass) in an overlay of your own"
    fi
}

lacking_features() {
    if grep -q ' retryAfterMax: ' "$1"; then
        case $(ask -n knative-eventing get configmap config-features --ignore-not-found -o jsonpath='{.data.delivery-retryafter}') in
        [Ee]nabled | unknown) ;;
        *) echo "That Knative Eventing honours Retry-After: make eventing, or kubectl --context $CONTEXT -n knative-eventing patch configmap config-features --type merge -p '{\"data\": {\"delivery-retryafter\": \"enabled\"}}'" ;;
        esac
    fi
}

lacking_secrets() {
    local name keys there key missing literals made=false
    while read -r name keys; do
        if [ "$made" = false ]; then
            made=true
            ask get namespace temperature >/dev/null ||
                echo "The namespace temperature, for what follows: kubectl --context $CONTEXT create namespace temperature"
        fi
        there=$(ask -n temperature get secret "$name" --ignore-not-found \
            -o go-template='{{.metadata.name}}{{range $key, $value := .data}}{{if $value}} {{$key}}{{end}}{{end}}')
        [ "$there" != unknown ] || continue
        missing='' literals=''
        for key in $keys; do
            if [[ " ${there#"$name"} " != *" $key "* ]]; then
                missing+=" $key"
                literals+=" --from-literal=$key=\"\$(openssl rand -hex 32)\""
            fi
        done
        if [ -z "$there" ] && [ -z "$keys" ]; then
            echo "The Secret $name: docs/kubernetes.md says what is in it"
        elif [ -z "$there" ]; then
            echo "The Secret $name, with tokens that clients send as Authorization: Bearer TOKEN: kubectl --context $CONTEXT -n temperature create secret generic $name$literals"
        else
            for key in $missing; do
                echo "The key $key of the Secret $name: kubectl --context $CONTEXT -n temperature patch secret $name -p '{\"stringData\": {\"$key\": \"'\"\$(openssl rand -hex 32)\"'\"}}'"
            done
        fi
    done < <(secrets "$1")
}

# secrets OBJECTS: each Secret that must be there, and its keys. The operator makes those of the database's users.
secrets() {
    awk '
        function place(line) { match(line, /[^ -]/); return RSTART }
        function done_with() {
            if (inside && !optional && name !~ /\.credentials\.postgresql\.acid\.zalan\.do$/ && !((name, key) in seen)) {
                seen[name, key] = 1
                keys[name] = keys[name] " " key
            }
            inside = 0
        }
        inside && place($0) <= indent { done_with() }
        inside && $1 == "name:" { name = $2 }
        inside && $1 == "key:" { key = $2 }
        inside && $1 == "optional:" { optional = $2 == "true" }
        /secretKeyRef:$/ { inside = 1; optional = 0; name = key = ""; indent = place($0) }
        $1 == "secretName:" { keys[$2] = keys[$2] "" }
        END { done_with(); for (name in keys) print name keys[name] }
    ' "$1" | sort
}

# changed: what somebody changed of the functions and the database, with kn or kubectl, since they were applied last.
changed() {
    local object lines
    for object in $(k -n temperature get ksvc,postgresql -l app.kubernetes.io/part-of=temperature -o name 2>/dev/null); do
        # That there are differences is an error to kubectl.
        lines=$(k -n temperature apply view-last-applied "$object" -o yaml 2>/dev/null | { k diff -f - 2>/dev/null || true; } |
            grep '^[-+][^-+]' | grep -vE '^.\s+(generation|serving.knative.dev/lastModifier): ') || continue
        printf '%s\n%s\n' "$object" "$lines"
    done
}

# Whether make recover removed the data, and did not bring back the backup. Instances that start then make an empty database,
# beside a Job that may still be at work on the volume of the first one.
is_half_recovered() {
    [ "$(database_spec numberOfInstances 2>/dev/null)" = 0 ] || return
    [ -n "$(k -n temperature get pvc pgdata-temperature-db-0 --ignore-not-found -o name)" ] || return 0
    k -n temperature get job restore >/dev/null 2>&1 &&
        ! k -n temperature wait job/restore --for condition=Complete --timeout 0s >/dev/null 2>&1
}
