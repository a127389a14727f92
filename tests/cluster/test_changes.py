"""Parts of the cluster are replaced while devices send: no acknowledged reading is lost, and none is stored twice."""

import time
from collections.abc import Callable
from uuid import uuid4

import pytest

from tests.cluster import cluster
from tests.cluster.cluster import Devices

End = Callable[[str], object]


def deleted(pod: str) -> None:
    """Its pod is made anew; with a standby that one takes over."""
    cluster.kubectl("delete", "pod", pod, "--wait=false")


def killed(pod: str) -> None:
    """PostgreSQL is, and Patroni starts it again in its place."""
    cluster.kubectl(
        "exec", pod, "--", "sh", "-c", "kill -9 $(head -n 1 /home/postgres/pgdata/pgroot/data/postmaster.pid)"
    )


def test_a_new_revision_takes_over_without_a_failed_request(say: Callable[[object], None]) -> None:
    def annotate(value: str | None) -> None:
        cluster.patch("ksvc", "ingest", {"spec": {"template": {"metadata": {"annotations": {"e2e": value}}}}})

    try:
        with Devices() as devices:
            time.sleep(2)
            cluster.revise("ingest", lambda: annotate(uuid4().hex))
            # It takes over by and by, and then the instances of the revision before are asked to end.
            time.sleep(20)
    finally:
        annotate(None)
    say(devices)
    assert set(devices.answers) == {201}
    devices.assert_kept()


def test_the_end_of_an_instance_costs_no_reading(say: Callable[[object], None]) -> None:
    with Devices() as devices:
        time.sleep(2)
        for pod in cluster.pods_of("ingest"):
            cluster.kubectl("delete", "pod", pod, "--wait=false")
        time.sleep(8)
    say(devices)
    devices.assert_kept()


@pytest.mark.usefixtures("expendable")
@pytest.mark.parametrize("end", [deleted, killed])
def test_the_end_of_the_primary_costs_no_acknowledged_reading(end: End, say: Callable[[object], None]) -> None:
    with Devices() as devices:
        devices.go_on(60)
        before = cluster.primary()
        end(before)
        time.sleep(5)
        took = devices.go_on(180)
        cluster.until(cluster.healthy, 300)
    say(f"{before}, then {cluster.primary()}, {5 + took:.0f} s: {devices}")
    devices.assert_kept()
