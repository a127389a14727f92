"""A `kubectl` that answers as one of a cluster that is well, and what `make status` says of that."""

import os
import subprocess
from pathlib import Path

from tests.support import ROOT

# What a kubectl answers, by what its arguments hold.
KUBECTL = """#!/bin/sh
case "$*" in
    *deployment/health*|*"get --raw /readyz"*) ;;
    *"get endpoints temperature-db"*) printf temperature-db-0 ;;
    *numberOfInstances*) printf "$INSTANCES" ;;
    *"get nodes"*) printf "$NODES" ;;
    *"-o jsonpath={.spec.nodeName}") printf n1 ;;
    *nodeName*) printf "$PLACES" ;;
    *"get pod -l cluster-name"*) printf temperature-db-0 ;;
    *"SHOW synchronous_standby_names"*) [ -z "$UNREACHABLE" ] ;;
    *"-c postgres -- true"*) [ -z "$UNREACHABLE" ] || { echo "$UNREACHABLE" >&2; exit 1; } ;;
    *show-config*) printf "$CONFIG" ;;
    *spec.patroni*) printf "$STRICT" ;;
    *database_health*) [ "$FAULTS" != refused ] && printf '%s' "$FAULTS" ;;
    *"df --output"*) printf 'Use%%  Avail\n %s   400M\n' "$FULL" ;;
    *suspend*) printf '%s' "$SUSPENDED" ;;
    *"get crd pingsources"*) [ -n "$SOURCES" ] ;;
    *"get pingsource"*) printf "$SOURCES" ;;
    *"get configmap alarms"*) [ -n "$RULES" ] ;;
    *"get deployment health"*) printf '%s' "$HEALTH" ;;
    *db-connection-pooler*) printf "$POOLERS" ;;
    *"get statefulset"*) printf "$VOLUME" ;;
    *"get pvc -l"*) printf "$VOLUMES" ;;
    *"get deployment -A"*) printf "$PLATFORM" ;;
    *"get pods -l serving.knative.dev/service "*metadata.name*) printf ingest-1-x ;;
    *"-c user-container -- python"*) printf "$REACHES" ;;
    *"get pods -l "*PodScheduled*) printf "$PODS" ;;
    *"get ksvc -o jsonpath"*) printf "$FUNCTIONS" ;;
esac
"""
WELL = {
    "INSTANCES": "1",
    "CONFIG": "",
    "STRICT": "",
    "FAULTS": "",
    "FULL": "41%",
    "SUSPENDED": "",
    "SOURCES": "",
    "HEALTH": "1",
    "RULES": "1",
    "POOLERS": "",
    "VOLUME": r"5Gi\t",
    "VOLUMES": r"pgdata-temperature-db-0\t5Gi\tstandard\n",
    "PODS": r"temperature-db-0\t\t\t\tpostgres\t\t\n",
    "FUNCTIONS": r"ingest\tTrue\t\n",
    "NODES": r"node/n1\nnode/n2\n",
    "UNREACHABLE": "",
    "REACHES": "200",
    "PLATFORM": r"knative-serving\tactivator\t2\t2\nknative-eventing\tpingsource-mt-adapter\t0\t\nx\tother\t1\t\n",
    "PLACES": r"n1\ttemperature-db-0\nn2\ttemperature-db-1\n",
}


def status(folder: Path, kubectl: str = KUBECTL, **answers: str) -> str:
    """What `make status` says is wrong on a cluster that answers so."""
    program = folder / "kubectl"
    program.write_text(kubectl)
    program.chmod(0o755)
    run = subprocess.run(
        ["bash", ROOT / "kind/look.sh", "status"],
        capture_output=True,
        check=True,
        env={**os.environ, **WELL, **answers, "PATH": f"{folder}:{os.environ['PATH']}"},
        text=True,
    )
    return run.stdout.strip()
