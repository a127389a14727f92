#!/usr/bin/env bash
# Builds the images, pushes them, and leaves in build/ which ones the cluster is to run.
set -euo pipefail
CDPATH='' cd "$(dirname "$0")/.."
. kind/settings.sh
. kind/steps.sh

need_docker

# Attestations would give an image that did not change another content.
export BUILDX_NO_DEFAULT_ATTESTATIONS=1
chosen=()

# Its tag is its content, so a deployment changes just when the image does.
tag() {
    docker image inspect --format '{{.Id}}' "$REGISTRY/$1" | sed 's/^sha256://' | cut -c 1-12
}

build_and_push() {
    local name=$1 file=$2 context=$3 image
    shift 3
    docker build --quiet --tag "$REGISTRY/$name" --file "$file" "$@" "$context"
    image=$REGISTRY/$name:$(tag "$name")
    docker tag "$REGISTRY/$name" "$image"
    docker push --quiet "$image"
}

# image NAME DOCKERFILE CONTEXT OPTION...
image() {
    step "$1" build_and_push "$@"
    chosen+=("  - {name: $1, newName: $REGISTRY/$1, newTag: '$(tag "$1")'}")
}

for function in ingest average simulate watch; do
    image $function functions/Dockerfile . --build-arg FUNCTION=$function --build-arg PYTHON_IMAGE="$PYTHON_IMAGE"
done
image migrations migrations/Dockerfile . --build-arg PYTHON_IMAGE="$PYTHON_IMAGE"
image database knative/database/Dockerfile knative/database \
    --build-arg SPILO_IMAGE="$SPILO_IMAGE" --build-arg TIMESCALEDB_IMAGE="$TIMESCALEDB_IMAGE"

mkdir -p build
printf '%s\n' "images:" "${chosen[@]}" >build/images.yaml
