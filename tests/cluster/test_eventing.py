"""Events that go through a Broker. Skipped where Knative Eventing is not part of what was deployed."""

import subprocess
from collections.abc import Iterator

import pytest
import requests
from cloudevents.conversion import to_binary

from tests.cluster import cluster
from tests.cluster.cluster import asked, average, call, event, new_room, reading, until_simulated
from tests.support import ROOT


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    """The address at which the Broker takes events."""
    if not cluster.has_eventing() or not cluster.get("broker")["items"]:
        pytest.skip("the functions are deployed without a Broker: make eventing")
    with cluster.forwarded("svc/broker-ingress", 80, namespace="knative-eventing") as port:
        yield f"http://127.0.0.1:{port}/{cluster.NAMESPACE}/default"


def send(broker: str, room_id: str, temperature: float) -> str:
    sent = event(reading(room_id, temperature))
    headers, body = to_binary(sent)
    assert requests.post(broker, data=body, headers=headers, timeout=30).status_code == 202
    return str(sent["id"])


def test_an_event_sent_to_the_broker_is_in_the_average(broker: str) -> None:
    room_id = new_room()
    send(broker, room_id, 20.5)
    assert cluster.until(lambda: average(room_id)["count"], 60) == 1
    assert average(room_id)["average_temperature"] == 20.5


def dead_letters(*task: str) -> str:
    """What the box of dead letters says. Its status is another where some are left."""
    command = ("exec", "deployment/dead-letter-box", "--", "python", "/function/dead_letters.py", *task)
    done = subprocess.run([*cluster.KUBECTL, *command], capture_output=True, text=True)
    return done.stdout + done.stderr


def reason(identity: str) -> str:
    """Why the event is a dead letter, once it is one."""

    def dead() -> str:
        return next((line for line in dead_letters().splitlines() if identity in line), "")

    return str(cluster.until(dead, 60))


def test_an_event_that_is_refused_ends_as_a_dead_letter_with_the_reason(broker: str) -> None:
    identity = send(broker, new_room(), 99)
    said = reason(identity)
    assert "answered 422: Nothing was stored: some readings break a rule; temperature must be" in said
    assert "refused again: 422" in dead_letters("redeliver")
    assert identity in dead_letters()
    assert "1 discarded" in dead_letters("discard", identity)
    assert identity not in dead_letters()


def test_dead_letters_are_delivered_when_the_cause_is_mended(broker: str) -> None:
    room_id = new_room()
    with cluster.setting("ingest", "EARLIEST_TIMESTAMP", "2025-01-01T00:00:00Z"):
        identity = send(broker, room_id, 20.5)
        assert "timestamp" in reason(identity)
    assert average(room_id)["count"] == 0
    assert "1 delivered" in dead_letters("redeliver")
    assert identity not in dead_letters()
    assert average(room_id)["count"] == 1


@pytest.mark.usefixtures("expendable")
def test_a_database_that_is_away_for_a_while_costs_no_event(broker: str) -> None:
    room_id = new_room()
    cluster.kubectl("delete", "pod", cluster.primary(), "--wait=false")
    for temperature in range(10):
        send(broker, room_id, float(temperature))

    def delivered() -> bool:
        answer = call("average", "GET", "/v1/temperature/average", params=asked(room_id))
        return answer.ok and answer.json()["count"] == 10

    cluster.until(delivered, 180)


def test_the_ping_source_makes_the_simulator_send_to_the_broker(broker: str) -> None:
    assert broker
    revision = cluster.get("ksvc", "simulate")["spec"]["template"]["spec"]["containers"][0]["env"]
    assert any(variable["name"] == "K_SINK" and "broker-ingress" in variable["value"] for variable in revision)

    timers = {timer["metadata"]["name"] for timer in cluster.get("cronjob")["items"]}
    assert timers == {"summaries"}
    until_simulated(180)


def test_the_example_of_a_source_has_another_room_simulated(broker: str) -> None:
    assert broker
    example = str(ROOT / "examples" / "pingsource.yaml")
    cluster.kubectl("apply", "--filename", example)
    try:
        until_simulated(180, {("B4", "401")})
    finally:
        cluster.kubectl("delete", "--filename", example)
