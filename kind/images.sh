#!/usr/bin/env bash
# Builds the images, pushes them, and leaves in build/ which ones the cluster is to run.
set -euo pipefail
cd "$(dirname "$0")/.."
. kind/settings.sh
. kind/steps.sh

need_docker

# Attestations would give an image that did not change another content.
export BUILDX_NO_DEFAULT_ATTESTATIONS=1
chosen=()

# image NAME DOCKERFILE CONTEXT OPTION...: its tag is its content, so a deployment changes just when the image does.
image() {
    local name=$1 file=$2 context=$3 digest
    shift 3
    step "$name" docker build --quiet --tag "$REGISTRY/$name" --file "$file" "$@" "$context"
    digest=$(docker image inspect --format '{{.Id}}' "$REGISTRY/$name")
    digest=${digest#sha256:}
    docker tag "$REGISTRY/$name" "$REGISTRY/$name:${digest:0:12}"
    docker push --quiet "$REGISTRY/$name:${digest:0:12}" >/dev/null
    chosen+=("  - {name: $name, newName: $REGISTRY/$name, newTag: '${digest:0:12}'}")
}

for function in ingest average simulate; do
    image $function functions/Dockerfile . --build-arg FUNCTION=$function --build-arg PYTHON_IMAGE="$PYTHON_IMAGE"
done
image migrations migrations/Dockerfile . --build-arg PYTHON_IMAGE="$PYTHON_IMAGE"
image database knative/database/Dockerfile knative/database \
    --build-arg SPILO_IMAGE="$SPILO_IMAGE" --build-arg TIMESCALEDB_IMAGE="$TIMESCALEDB_IMAGE"

mkdir -p build
printf '%s\n' "images:" "${chosen[@]}" >build/images.yaml
