"""The cluster that the current kubectl context names, and what changes about it for a test."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.cluster import cluster

# A room of a test would be silent for ever after it.
FORGET = """
DO $$
DECLARE relation regclass;
BEGIN
    FOR relation IN
        SELECT attrelid FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
        WHERE attname = 'building_id' AND relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace
    LOOP
        EXECUTE format('DELETE FROM %s WHERE building_id = %L', relation, 'e2e');
    END LOOP;
END $$"""
EXPENDABLE = cluster.CONTEXT.startswith("kind-") or "EXPENDABLE" in os.environ


@pytest.fixture(scope="session", autouse=True)
def reachable() -> Iterator[None]:
    if not shutil.which("kubectl"):
        pytest.exit("kubectl was not found: https://kubernetes.io/docs/tasks/tools/", returncode=1)
    found = subprocess.run([*cluster.KUBECTL, "get", "ksvc", "ingest"], capture_output=True, text=True)
    if found.returncode:
        pytest.exit(f"The cluster {cluster.CONTEXT} has no temperature monitor: {found.stderr}", returncode=1)
    yield
    if EXPENDABLE and (primary := cluster.primary()):
        cluster.in_database(primary, FORGET)


@pytest.fixture(scope="session")
def expendable() -> None:
    """Nobody depends on the database of this cluster."""
    if not EXPENDABLE:
        pytest.skip(f"ends the database's primary: set EXPENDABLE=true if {cluster.CONTEXT} can bear that")


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[object], None]:
    """Print a figure, also where the test passes."""

    def say(figure: object) -> None:
        with capsys.disabled():
            print(f"\n    {figure}", end=" ")

    return say


@pytest.fixture
def no_simulator() -> Iterator[None]:
    """Nobody sends anything while this lasts but the test."""
    kinds = ["cronjob", *(["pingsource"] if cluster.has_eventing() else [])]
    timers = [
        (kind, timer["metadata"]["name"], timer["spec"]) for kind in kinds for timer in cluster.get(kind)["items"]
    ]
    try:
        for kind, name, _ in timers:
            cluster.patch(kind, name, {"spec": {"schedule": "0 0 1 1 *"}})
        yield
    finally:
        for kind, name, spec in timers:
            cluster.patch(kind, name, {"spec": {"schedule": spec["schedule"]}})


@pytest.fixture(scope="module")
def two_instances(expendable: None) -> Iterator[None]:
    """Standbys that have all that the primary has acknowledged; in the end as many instances as there were."""
    before = cluster.get("postgresql", cluster.DATABASE)["spec"]["numberOfInstances"]
    try:
        cluster.set_instances(max(2, before))
        yield
    finally:
        cluster.set_instances(before)
