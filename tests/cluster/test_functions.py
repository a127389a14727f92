"""The functions on the cluster, as devices, people and event sources use them."""

import gzip
import json
from collections.abc import Callable

import pytest
import requests
from cloudevents.conversion import to_binary, to_structured

from tests.cluster import cluster
from tests.cluster.cluster import asked, average, call, event, new_room, reading, until_simulated


def test_all_functions_are_ready() -> None:
    ready = {
        function["metadata"]["name"]: condition["status"]
        for function in cluster.get("ksvc")["items"]
        for condition in function["status"]["conditions"]
        if condition["type"] == "Ready"
    }
    assert {"ingest", "average"} <= ready.keys()
    assert set(ready.values()) == {"True"}


def test_a_reading_that_is_posted_is_in_the_average() -> None:
    room_id = new_room()
    for temperature, minutes in ((20.0, 0), (21.0, 1), (25.0, 2)):
        answer = call("ingest", "POST", "/v1/temperature", json=reading(room_id, temperature, minutes=minutes))
        assert (answer.status_code, answer.json()["accepted"]) == (201, 1)
    found = average(room_id)
    assert (found["average_temperature"], found["count"], found["min"], found["max"]) == (22.0, 3, 20.0, 25.0)


def test_cloud_events_of_all_modes_are_in_the_average() -> None:
    room_id = new_room()
    headers, body = to_binary(event(reading(room_id, seconds=1)))
    assert call("ingest", "POST", "/", headers=headers, data=body).status_code == 201
    headers, body = to_structured(event(reading(room_id, seconds=2)))
    assert call("ingest", "POST", "/", headers=headers, data=body).status_code == 201
    batch = [json.loads(to_structured(event(reading(room_id, seconds=second)))[1]) for second in (3, 4)]
    headers = {"Content-Type": "application/cloudevents-batch+json"}
    assert call("ingest", "POST", "/", headers=headers, data=json.dumps(batch)).status_code == 201
    assert average(room_id)["count"] == 4


def test_a_reading_that_breaks_a_rule_is_refused_with_the_reason() -> None:
    answer = call("ingest", "POST", "/v1/temperature", json=reading(new_room(), 99))
    assert (answer.status_code, answer.headers["Content-Type"]) == (422, "application/problem+json")
    assert [fault["field"] for fault in answer.json()["errors"]] == ["temperature"]


@pytest.mark.parametrize("instant", ["1999-12-31T23:59:59Z", "9999-01-01T00:00:00Z"])
def test_a_reading_of_a_wrong_clock_is_refused(instant: str) -> None:
    answer = call("ingest", "POST", "/v1/temperature", json={**reading(new_room()), "timestamp": instant})
    assert (answer.status_code, answer.headers["Content-Type"]) == (422, "application/problem+json")
    assert [fault["field"] for fault in answer.json()["errors"]] == ["timestamp"]


def test_a_compressed_body_is_taken() -> None:
    room_id = new_room()
    body = gzip.compress(json.dumps([reading(room_id, seconds=second) for second in range(100)]).encode())
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    answer = call("ingest", "POST", "/v1/temperature", data=body, headers=headers)
    assert (answer.status_code, answer.json()["accepted"]) == (201, 100)
    assert average(room_id)["count"] == 100


@pytest.mark.parametrize(("function", "path"), [("ingest", "/v1/temperature"), ("watch", "/watch")])
def test_a_page_of_another_site_may_not_write(function: str, path: str) -> None:
    headers = {"Origin": "https://elsewhere.example", "Sec-Fetch-Site": "cross-site"}
    answer = call(function, "POST", path, json=reading(new_room()), headers=headers)
    assert (answer.status_code, answer.headers["Content-Type"]) == (403, "application/problem+json")


@pytest.mark.parametrize("function", ["ingest", "average", "watch"])
def test_a_function_is_ready_and_is_measured(function: str) -> None:
    assert call(function, "GET", "/ready").status_code == 200
    assert "# TYPE" in call(function, "GET", "/metrics").text


PRIVILEGES = """
import json, os
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines())
def writes(folder):
    try:
        open(os.path.join(folder, "x"), "w")
    except OSError:
        return False
    return True
print(json.dumps({
    "user": os.getuid(),
    "capabilities": int(status["CapEff"], 16),
    "may gain more": status["NoNewPrivs"] != "1",
    "writes": [folder for folder in ("/", "/app", "/etc", "/tmp", "/var/tmp", "/venv") if writes(folder)],
    "token of the cluster": os.path.exists("/var/run/secrets/kubernetes.io"),
}))
"""


@pytest.mark.parametrize("function", ["ingest", "average", "watch"])
def test_whoever_gets_into_a_function_finds_nothing_to_write_to_and_no_privilege(function: str) -> None:
    found = json.loads(cluster.inside(function, "python", "-c", PRIVILEGES))
    assert found.pop("user") == 65532
    assert not any(found.values()), found


def test_one_address_has_the_paths_of_all_functions() -> None:
    if not cluster.get("kingress", "--field-selector", "metadata.name=localhost")["items"]:
        pytest.skip("only the cluster on one's own machine has it")
    headers = {"Host": "localhost:30080"}
    room_id = new_room()
    for path in ("/v1/temperature", "/temperature/", "/"):
        answer = requests.post(cluster.GATEWAY + path, json=reading(room_id), headers=headers, timeout=60)
        assert answer.status_code == 201
    for path in ("/v1/temperature/average", "/temperature/average", "/v1/temperature/series"):
        answer = requests.get(cluster.GATEWAY + path, params=asked(room_id), headers=headers, timeout=60)
        assert (answer.status_code, "count" in answer.text) == (200, True)
    for path in ("/v1/temperature/rooms", "/settings", "/health", "/openapi.json"):
        assert requests.get(cluster.GATEWAY + path, headers=headers, timeout=60).status_code == 200
    for path in ("/", "/v1/temperature"):
        leave = {**headers, "WebHook-Request-Origin": "events.example.com"}
        answer = requests.options(cluster.GATEWAY + path, headers=leave, timeout=60)
        assert answer.headers["WebHook-Allowed-Origin"] == "events.example.com"
    answer = requests.post(f"{cluster.GATEWAY}/simulate", json={"count": 1}, headers=headers, timeout=60)
    assert (answer.status_code, answer.json()) == (200, {"emitted": 3, "retried": 0, "failed": 0})


def test_alarms_are_looked_for_and_shown() -> None:
    answer = call("watch", "POST", "/watch")
    assert answer.status_code == 200, answer.text
    assert answer.json().keys() == {"raised", "cleared", "sent", "unsent"}
    assert "alarms" in call("average", "GET", "/v1/temperature/alarms").json()


def test_the_rooms_of_the_simulator_have_readings_of_this_minute() -> None:
    if "simulate" not in {function["metadata"]["name"] for function in cluster.get("ksvc")["items"]}:
        pytest.skip("there is no simulator on this cluster")
    until_simulated(150)


@pytest.mark.usefixtures("no_simulator")
@pytest.mark.parametrize("function", ["average", "ingest"])
def test_a_function_goes_to_zero_and_comes_back_for_a_request(function: str, say: Callable[[object], None]) -> None:
    def gone() -> bool:
        return not cluster.get("pods", "--selector", f"serving.knative.dev/service={function}")["items"]

    cluster.until(gone, 240)
    if function == "ingest":
        answer = call("ingest", "POST", "/", json=reading(new_room()))
    else:
        answer = call("average", "GET", "/v1/temperature/rooms")
    say(f"from zero, {function} answered after {answer.elapsed.total_seconds():.2f} s")
    assert answer.ok
    # The pod has the request as soon as it answers. Kubernetes says a little later that it runs.
    cluster.until(lambda: cluster.pods_of(function), 30)


def test_a_pod_can_do_no_more_than_it_needs() -> None:
    look = """
        id -u
        touch /app/x 2>&1
        ls /var/run/secrets/kubernetes.io 2>&1
        grep -E 'CapEff|NoNewPrivs' /proc/self/status
    """
    said = cluster.inside("average", "sh", "-c", look)
    assert said.split("\n")[0] == "65532"
    assert "Read-only file system" in said
    assert "No such file or directory" in said
    assert said.split()[-4:] == ["CapEff:", "0000000000000000", "NoNewPrivs:", "1"]


def test_the_rules_of_alarms_are_the_operators() -> None:
    found = cluster.get("configmap", "alarms")
    assert "rules.json" in found["data"]
    # Neither applied, so that nothing is set back, nor of the product, so that it is not pruned.
    assert not found["metadata"].get("labels") and not found["metadata"].get("annotations")
