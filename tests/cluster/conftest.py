"""The cluster that the current kubectl context names, and what changes about it for a test."""

import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.cluster import cluster


@pytest.fixture(scope="session", autouse=True)
def reachable() -> None:
    found = subprocess.run(["kubectl", "get", "namespace", cluster.NAMESPACE], capture_output=True, text=True)
    if found.returncode:
        pytest.exit(f"The current kubectl context has no temperature monitor: {found.stderr}", returncode=1)


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
    timers = [timer["metadata"]["name"] for timer in cluster.get("cronjob")["items"]]
    for timer in timers:
        cluster.patch("cronjob", timer, {"spec": {"suspend": True}})
    yield
    for timer in timers:
        cluster.patch("cronjob", timer, {"spec": {"suspend": False}})


@pytest.fixture
def two_instances() -> Iterator[None]:
    """A standby that has all that the primary has acknowledged."""
    instances = cluster.get("postgresql", cluster.DATABASE)["spec"]["numberOfInstances"]

    def set_instances(number: int) -> None:
        cluster.patch("postgresql", cluster.DATABASE, {"spec": {"numberOfInstances": number}})

    def synchronous() -> bool:
        return "Sync Standby" in cluster.members()

    set_instances(max(2, instances))
    cluster.until(synchronous, 180)
    yield
    # When it takes an instance away, the operator hands over to the one that stays, if Patroni knows that it may.
    cluster.until(synchronous, 180)
    set_instances(instances)
    if instances == 1:
        cluster.until(lambda: len(cluster.pods(f"cluster-name={cluster.DATABASE}")) == 1, 180)
    cluster.until(cluster.primary, 180)
