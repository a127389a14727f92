#!/usr/bin/env bash
# Has backups of the cluster's database kept, on a volume of their own, from now on.
set -euo pipefail
CDPATH='' cd "$(dirname "$0")/.."
. kind/settings.sh
. kind/steps.sh

need_cluster
need_images

keep_backups() {
    render ../knative/backup | k apply -f -
    retry 900 decided
    k -n temperature logs deployment/backup --tail 2
    k -n temperature rollout status deployment/backup --timeout 1s
}

# There is one, or there never will be.
decided() {
    k -n temperature rollout status deployment/backup --timeout 5s ||
        k -n temperature logs deployment/backup --tail 2 | grep -q 'the backup of another database'
}

step Backup keep_backups
