#!/usr/bin/env bash
# Has backups of the cluster's database kept, on a volume of their own, from now on.
set -euo pipefail
cd "$(dirname "$0")/.."
. kind/settings.sh
. kind/steps.sh

need_cluster
need_images

keep_backups() {
    render ../knative/backup | k apply -f -
    k -n temperature rollout status deployment/backup --timeout 900s
    k -n temperature logs deployment/backup --tail 1
}

step Backup keep_backups
