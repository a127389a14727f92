"""Parts of the cluster are replaced while devices send: no acknowledged reading is lost, and none is stored twice."""

import time
from collections.abc import Callable
from uuid import uuid4

import pytest

from tests.cluster import cluster
from tests.cluster.cluster import Devices

Loss = Callable[[str], object]


def deleted(pod: str) -> None:
    cluster.kubectl("delete", "pod", pod, "--wait=false")


def killed(pod: str) -> None:
    cluster.kubectl(
        "exec", pod, "--", "sh", "-c", "kill -9 $(head -n 1 /home/postgres/pgdata/pgroot/data/postmaster.pid)"
    )


LOSSES = [deleted, killed]


def kept(devices: Devices) -> bool:
    found = cluster.average(devices.room_id)
    number = len(devices.acknowledged)
    exact = sum(devices.acknowledged) / number
    return (found["count"], round(found["average_temperature"], 9)) == (number, round(exact, 9))


def test_a_new_revision_takes_over_without_a_failed_request(say: Callable[[object], None]) -> None:
    def annotate(value: str | None) -> None:
        cluster.patch("ksvc", "ingest", {"spec": {"template": {"metadata": {"annotations": {"e2e": value}}}}})

    def taken_over() -> bool:
        status = cluster.get("ksvc", "ingest")["status"]
        ready = status["latestReadyRevisionName"]
        traffic = {split["revisionName"]: split["percent"] for split in status["traffic"]}
        return ready == status["latestCreatedRevisionName"] != before and traffic == {ready: 100}

    before = cluster.get("ksvc", "ingest")["status"]["latestReadyRevisionName"]
    with Devices() as devices:
        time.sleep(2)
        annotate(uuid4().hex)
        cluster.until(taken_over, 120)
        # It takes over by and by, and then the instances of the revision before are asked to end.
        time.sleep(20)
    say(devices)
    annotate(None)
    assert set(devices.answers) == {201}
    assert kept(devices)


def test_the_end_of_an_instance_costs_no_reading(say: Callable[[object], None]) -> None:
    with Devices() as devices:
        time.sleep(2)
        for pod in cluster.pods_of("ingest"):
            cluster.kubectl("delete", "pod", pod, "--wait=false")
        time.sleep(8)
    say(devices)
    assert kept(devices)


@pytest.mark.usefixtures("expendable")
@pytest.mark.parametrize("lose", LOSSES)
def test_the_loss_of_the_primary_costs_no_acknowledged_reading(lose: Loss, say: Callable[[object], None]) -> None:
    lose_primary(lose, say)


@pytest.mark.usefixtures("two_instances")
@pytest.mark.parametrize("lose", LOSSES)
def test_a_failover_costs_no_acknowledged_reading(lose: Loss, say: Callable[[object], None]) -> None:
    lose_primary(lose, say)


def lose_primary(lose: Loss, say: Callable[[object], None]) -> None:
    with Devices() as devices:
        time.sleep(2)
        assert devices.acknowledged
        before = cluster.primary()
        lose(before)
        time.sleep(5)

        def taken_again() -> bool:
            begun = len(devices.acknowledged)
            time.sleep(2)
            return len(devices.acknowledged) - begun > 20

        cluster.until(taken_again, 180)
        time.sleep(5)
    say(f"{before}, then {cluster.primary()}: {devices}")
    assert {str(answer)[:3] for answer in devices.answers} <= {"201", "503"}
    assert kept(devices)
