"""The cluster as those see it who send readings, and those who operate it."""

import base64
import json
import os
import re
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import requests
from cloudevents.http import CloudEvent

from simulate.events import EVENT_TYPE
from tests.support import ROOT

NAMESPACE = "temperature"
GATEWAY = os.environ.get("GATEWAY", "http://127.0.0.1:30080")
"""Where Kourier listens; the function is named by the Host header, so that no name has to resolve."""
DATABASE = "temperature-db"
CONTEXT = os.environ.get("CONTEXT") or subprocess.getoutput("kubectl config current-context")
KUBECTL = ["kubectl", "--context", CONTEXT, "--namespace", NAMESPACE]


def kubectl(*arguments: str, told: str = "") -> str:
    """What kubectl says."""
    done = subprocess.run([*KUBECTL, *arguments], input=told, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def documented(title: str) -> list[str]:
    """The blocks of commands below a title of docs/kubernetes.md, for this cluster."""
    text = (ROOT / "docs" / "kubernetes.md").read_text()
    (section,) = re.findall(rf"^## {title}\n(.+?)^## ", text, re.MULTILINE | re.DOTALL)
    blocks = re.findall("```sh\n(.+?)```", section, re.DOTALL)
    return [commands.replace("kubectl ", f"kubectl --context {CONTEXT} ") for commands in blocks]


def run_commands(commands: str) -> str:
    """What a shell says that runs the commands, which must not fail."""
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", commands], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def get(*arguments: str) -> Any:
    return json.loads(kubectl("get", *arguments, "--output", "json"))


def patch(kind: str, name: str, change: Any) -> None:
    kubectl("patch", kind, name, "--type", "merge", "--patch", json.dumps(change))


def pods(selector: str) -> list[str]:
    """Names of the pods that run."""
    return [
        pod["metadata"]["name"]
        for pod in get("pods", "--selector", selector)["items"]
        if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]
    ]


def pods_of(function: str) -> list[str]:
    return pods(f"serving.knative.dev/service={function}")


def until(condition: Any, seconds: float) -> Any:
    """What the condition says as soon as it says something."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        name = getattr(condition, "__name__", condition)
        assert time.monotonic() < end, f"{name} did not come true in {seconds} s"
        time.sleep(0.5)
    return found


def host(function: str) -> str:
    """The name by which Kourier knows the function."""
    return str(urlsplit(get("ksvc", function)["status"]["url"]).hostname)


def headers_for(function: str) -> dict[str, str]:
    """What brings a request to the function and past its tokens, where the overlay needs them."""
    secret = kubectl("get", "secret", "tokens", "--ignore-not-found", "--output", "json")
    encoded = json.loads(secret or "{}").get("data", {}).get("read" if function == "average" else "write")
    token = ""
    if encoded:
        token = base64.b64decode(encoded).decode().replace(",", " ").split()[0]
    return {"Host": host(function), "Authorization": f"Bearer {token}"}


SETTLED_SECONDS = 90
"""After a link was cut for a test, a pooler may have logins wait for a minute, until it gives a connection up."""


def call(function: str, method: str, path: str, **options: Any) -> requests.Response:
    """A request to a function through Kourier, sent again while it is refused for now (503), as clients are told."""
    headers = {**options.pop("headers", {}), **headers_for(function)}
    end = time.monotonic() + SETTLED_SECONDS
    while True:
        answer = requests.request(method, GATEWAY + path, headers=headers, timeout=60, **options)
        if answer.status_code != 503 or time.monotonic() > end:
            return answer
        time.sleep(1)


def inside(function: str, *command: str) -> str:
    """What a command says in an instance of the function. Those that are idle may end at any moment."""

    def said() -> str:
        call(function, "GET", "/health")
        for pod in pods_of(function):
            run = [*KUBECTL, "exec", pod, "--container", "user-container", "--", *command]
            done = subprocess.run(run, capture_output=True, text=True)
            if done.returncode == 0:
                return done.stdout
        return ""

    return str(until(said, 60))


def reading(room_id: str, temperature: float = 21.5, **offset: float) -> dict[str, Any]:
    instant = datetime(2024, 12, 1, tzinfo=UTC) + timedelta(**offset)
    return {
        "building_id": "e2e",
        "room_id": room_id,
        "temperature": temperature,
        "timestamp": instant.isoformat(),
    }


def event(body: dict[str, Any]) -> CloudEvent:
    """The reading as a CloudEvent."""
    attributes = {"type": EVENT_TYPE, "source": "/e2e", "datacontenttype": "application/json"}
    return CloudEvent(attributes, body)


def new_room() -> str:
    """A room that no test has used: the database is not emptied between them."""
    return uuid4().hex


def asked(room_id: str) -> dict[str, str]:
    """The question for all readings of the room."""
    return {"building_id": "e2e", "room_id": room_id, "start": "2024-01-01T00:00:00Z", "end": "2025-01-01T00:00:00Z"}


def average(room_id: str) -> Any:
    """The answer for all readings of the room."""
    answer = call("average", "GET", "/v1/temperature/average", params=asked(room_id))
    assert answer.status_code == 200, answer.text
    return answer.json()


SIMULATED = frozenset({("B1", "101"), ("B1", "102"), ("B2", "201")})


def until_simulated(seconds: float, rooms: Set[tuple[str, str]] = SIMULATED) -> None:
    """Wait until each of the rooms has a reading of an instant after this call."""
    since = datetime.now(UTC)

    def fresh() -> bool:
        answer = call("average", "GET", "/v1/temperature/rooms").json()
        recent = {
            (room["building_id"], room["room_id"])
            for room in answer.get("rooms", [])
            if datetime.fromisoformat(room["latest"]["timestamp"]) > since
        }
        return rooms <= recent

    until(fresh, seconds)


@contextmanager
def forwarded(target: str, port: int, namespace: str = NAMESPACE) -> Iterator[int]:
    """A port of this machine that leads to a port of a service or pod."""
    command = [*KUBECTL, "--namespace", namespace, "port-forward", target, f":{port}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            found = re.search(r"127\.0\.0\.1:(\d+)", process.stdout.readline())
            assert found
            yield int(found[1])
        finally:
            process.terminate()


@contextmanager
def connected(role: str) -> Iterator[psycopg.Connection]:
    """A session of a role, with the secret that the operator made for it."""
    secret = get("secret", f"temperature-{role}-user.{DATABASE}.credentials.postgresql.acid.zalan.do")["data"]
    user, password = (base64.b64decode(secret[key]).decode() for key in ("username", "password"))
    with (
        forwarded(f"pod/{primary()}", 5432) as port,
        psycopg.connect(
            host="127.0.0.1", port=port, dbname="temperature", user=user, password=password, sslmode="require"
        ) as connection,
    ):
        connection.autocommit = True
        yield connection


class Devices:
    """Devices that send reading after reading, each again and again until it is acknowledged.

    Somebody asks for the average of their room all the time.
    """

    def __init__(self, devices: int = 4) -> None:
        self.room_id = new_room()
        self.headers = headers_for("ingest")
        self.acknowledged: list[float] = []
        self.answers: Counter[int | str] = Counter()
        """Statuses, those of refusals with their text."""
        self.longest = 0.0
        """Seconds from the first attempt to the acknowledgement of the reading that waited longest."""
        self.forgotten: list[tuple[int, int]] = []
        """Averages that counted fewer readings than were acknowledged when they were asked for: both numbers."""
        self.asked = 0
        """Averages that were answered."""
        self._asking = headers_for("average")
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(device,)) for device in range(devices)]
        self._threads.append(threading.Thread(target=self._ask))

    def __enter__(self) -> "Devices":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _send(self, device: int) -> None:
        number = 0
        while not self._stop.is_set():
            temperature = float(number % 40)
            body = reading(self.room_id, temperature, hours=device, milliseconds=number)
            begun = time.monotonic()
            while self._post(body) != 201:
                if time.monotonic() - begun > 180:
                    return
                time.sleep(0.2)
            self.longest = max(self.longest, time.monotonic() - begun)
            self.acknowledged.append(temperature)
            number += 1
            time.sleep(0.01)

    def _ask(self) -> None:
        while not self._stop.wait(0.2):
            known = len(self.acknowledged)
            try:
                answer = requests.get(
                    f"{GATEWAY}/v1/temperature/average", params=asked(self.room_id), headers=self._asking, timeout=30
                )
            except requests.RequestException:
                continue
            if answer.ok:
                self.asked += 1
                if (count := answer.json()["count"]) < known:
                    self.forgotten.append((known, count))

    def go_on(self, seconds: float) -> float:
        """Wait until readings are acknowledged, and say after how many seconds they were."""
        begun, before = time.monotonic(), len(self.acknowledged)
        until(lambda: len(self.acknowledged) > before + 20, seconds)
        return time.monotonic() - begun

    def assert_kept(self, *, broken: bool = False) -> None:
        """Every acknowledged reading is there once, no other is, and no average was without one.

        Where connections may be broken, as when a gateway ends, a device hears nothing and sends again.
        """
        heard = {answer for answer in self.answers if not broken or str(answer)[:3].isdigit()}
        assert {str(answer)[:3] for answer in heard} <= {"201", "503"}
        found, number = average(self.room_id), len(self.acknowledged)
        exact = sum(self.acknowledged) / number
        assert (found["count"], round(found["average_temperature"], 9)) == (number, round(exact, 9))
        assert self.asked
        assert not self.forgotten, f"{len(self.forgotten)}, such as {self.forgotten[:5]}"

    def _post(self, body: dict[str, Any]) -> int | str:
        status: int | str
        try:
            answer = requests.post(f"{GATEWAY}/v1/temperature", json=body, headers=self.headers, timeout=30)
            status = answer.status_code if answer.ok else f"{answer.status_code} {answer.text}"
        except requests.RequestException as error:
            status = type(error).__name__
        self.answers[status] += 1
        return status

    def __str__(self) -> str:
        answers: Counter[str] = Counter()
        for answer, number in self.answers.items():
            answers[str(answer)[:3]] += number
        return (
            f"{len(self.acknowledged)} readings, answers {dict(answers)}, slowest after {self.longest:.1f} s, "
            f"{self.asked} averages"
        )


def make(target: str, *settings: str) -> str:
    """What make says, on the cluster of the tests."""
    command = ["make", "--no-print-directory", target, f"CONTEXT={CONTEXT}", *settings]
    environment = {**os.environ, "CONTEXT": CONTEXT}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def revise(function: str, change: Callable[[], None]) -> None:
    """Change a function, and wait until the new revision has all requests."""
    before = get("ksvc", function)["status"]["latestReadyRevisionName"]
    change()

    def taken_over() -> bool:
        status = get("ksvc", function)["status"]
        ready = status["latestReadyRevisionName"]
        traffic = {split["revisionName"]: split["percent"] for split in status["traffic"]}
        return ready == status["latestCreatedRevisionName"] != before and traffic == {ready: 100}

    until(taken_over, 120)


@contextmanager
def setting(function: str, name: str, value: str) -> Iterator[None]:
    """Give a function a setting that it does not have."""
    path = "/spec/template/spec/containers/0/env"
    there = get("ksvc", function)["spec"]["template"]["spec"]["containers"][0]["env"]

    def set_to(settings: list[dict[str, Any]]) -> None:
        change = json.dumps([{"op": "replace", "path": path, "value": settings}])
        kubectl("patch", "ksvc", function, "--type", "json", "--patch", change)

    try:
        revise(function, lambda: set_to([*there, {"name": name, "value": value}]))
        yield
    finally:
        revise(function, lambda: set_to(there))


def has_eventing() -> bool:
    return "brokers.eventing.knative.dev" in kubectl("api-resources", "--output", "name")


def primary() -> str:
    """The pod of the database that takes writes; empty if there is none.

    A primary that was cut off keeps its label, so Patroni's own record says it.
    """
    leader = kubectl(
        "get", "endpoints", DATABASE, "--ignore-not-found", "--output", "jsonpath={.metadata.annotations.leader}"
    )
    return leader if leader in instances() else ""


def instances() -> list[str]:
    """The pods of the database that run."""
    return sorted(pods(f"cluster-name={DATABASE},application=spilo"))


def members() -> dict[str, dict[str, Any]]:
    """What Patroni says of each instance; nothing while there is no primary to ask."""
    if not (pod := primary()):
        return {}
    done = subprocess.run(
        [*KUBECTL, "exec", pod, "--", "patronictl", "list", "--format", "json"], capture_output=True, text=True
    )
    return {member["Member"]: member for member in json.loads(done.stdout)} if done.returncode == 0 else {}


def healthy() -> bool:
    """All instances are there, all but one follow that one, and a commit waits for one of them at least."""
    found = members()
    roles = [member["Role"] for member in found.values()]
    return (
        len(found) == len(instances()) == get("postgresql", DATABASE)["spec"]["numberOfInstances"]
        and [member.get("State") for member in found.values() if member["Role"] == "Leader"] == ["running"]
        and all(member.get("State") == "streaming" for member in found.values() if member["Role"] != "Leader")
        and len({member.get("TL") for member in found.values()}) == 1
        and (len(roles) == 1 or "Sync Standby" in roles)
    )


def healthy_soon() -> bool:
    """The same, without a wait of minutes for the checkpoint that a copy begins with."""
    if pod := primary():
        with suppress(AssertionError):
            in_database(pod, "CHECKPOINT")
    return healthy()


def in_database(pod: str, statement: str) -> str:
    """What an instance answers its superuser."""
    command = ("psql", "-U", "postgres", "-d", "temperature", "-qXAt", "-v", "ON_ERROR_STOP=1", "-c", statement)
    return kubectl("exec", pod, "--", *command).strip()


def set_instances(number: int) -> None:
    """Give the database so many instances that all follow, and no volume that is none's.

    An instance that starts on the volume of one that went may need a part of the log that is gone, and then never
    follows.
    """
    volume = f"pgdata-{DATABASE}-"

    def fits() -> bool:
        return len(instances()) == number and healthy_soon()

    def remove_volumes() -> None:
        used = get("statefulset", DATABASE)["spec"]["replicas"]
        for claim in get("pvc")["items"]:
            name = claim["metadata"]["name"]
            if name.startswith(volume) and int(name.removeprefix(volume)) >= used:
                kubectl("delete", "pvc", name)

    remove_volumes()
    if len(instances()) > number:
        # The operator hands over before it takes a primary away, if Patroni knows that it may.
        until(healthy, 300)
    patch("postgresql", DATABASE, {"spec": {"numberOfInstances": number}})
    until(fits, 300)
    remove_volumes()


@contextmanager
def cut(pod: str, *others: str) -> Iterator[None]:
    """Let no packet pass between a pod and others, or anybody where none is named.

    Done by the program of kube-proxy's pod on the node: iptables is in the image of every kube-proxy.
    """
    found = get("pod", pod)
    node, address = found["spec"]["nodeName"], found["status"]["podIP"]
    proxy = ("pods", "--namespace", "kube-system", "--selector", "k8s-app=kube-proxy")
    (tool, *_) = get(*proxy, "--field-selector", f"spec.nodeName={node}")["items"]

    def iptables(action: str, *rule: str) -> None:
        command = ("iptables", "--wait", "--table", "mangle", action, *rule, "--jump", "DROP")
        kubectl("--namespace", "kube-system", "exec", tool["metadata"]["name"], "--", *command)

    # Behind the translation of addresses: services are not seen any more.
    rules: list[tuple[str, ...]] = [("POSTROUTING", "--destination", address), ("PREROUTING", "--source", address)]
    if others:
        far = ",".join(get("pod", other)["status"]["podIP"] for other in others)
        rules = [
            ("POSTROUTING", "--source", address, "--destination", far),
            ("POSTROUTING", "--source", far, "--destination", address),
        ]
    done = []
    try:
        for rule in rules:
            iptables("--insert", *rule)
            done.append(rule)
        yield
    finally:
        for rule in done:
            iptables("--delete", *rule)
