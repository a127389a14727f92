"""A Prometheus that scrapes the functions can answer all that the dashboard and the alarms ask."""

import math
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests
import yaml

from bench import stack
from local.postgres import MONITOR, OWNER, READER, WRITER
from tests.local.machine import place
from tests.monitoring.files import ALERTS, dashboard, panels, rules
from tests.stack import Stack
from tests.support import NOWHERE, ROOT, Urls, free_port, program, wait_until

TOKEN = "0123456789abcdef"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
TOKENS = {"WRITE_TOKENS": TOKEN, "READ_TOKENS": TOKEN, "SINK_TOKEN": TOKEN}
READING = {"building_id": "B1", "room_id": "101", "temperature": 22.5, "timestamp": "2024-12-01T12:34:56Z"}
NAMESPACE = "temperature"
# Plain PostgreSQL has no jobs, and one server no standby, no slot and no archive.
ELSEWHERE = {
    "Since it happened last: {{of}}",
    "Jobs that fail: {{of}} failed",
    "Jobs that fail: {{of}} is off",
    "Standbys behind: {{of}}",
    "Size: log for {{of}}",
    "Size: log for the archive",
}
# Memory and processor are counted on Linux only.
PROCESS = Path("/proc/self").exists()


def _instance(address: str) -> str:
    return address.removeprefix("http://")


class Prometheus:
    """A running Prometheus that scrapes functions twice a second, with our rules."""

    def __init__(self, folder: Path, functions: Mapping[str, str]) -> None:
        loaded = yaml.safe_load(ALERTS.read_text())
        for group in loaded["groups"]:
            group["interval"] = "1s"
        (folder / "alerts.yaml").write_text(yaml.safe_dump(loaded))
        targets = [
            {"targets": [_instance(address)], "labels": {} if name == "make run" else {"namespace": NAMESPACE}}
            for name, address in functions.items()
        ]
        settings = {
            "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms"},
            "rule_files": ["alerts.yaml"],
            "scrape_configs": [
                {
                    "job_name": "functions",
                    "authorization": {"credentials": TOKEN},
                    "static_configs": targets,
                }
            ],
        }
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(settings))
        self.address = f"http://127.0.0.1:{free_port()}"
        self.process = subprocess.Popen(
            [
                program("prometheus"),
                f"--config.file={folder / 'prometheus.yaml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={_instance(self.address)}",
            ],
            stdout=(log := (folder / "prometheus.log").open("wb")),
            stderr=log,
        )
        log.close()

    def ask(self, path: str, **parameters: str) -> Any:
        answer = requests.get(f"{self.address}/api/v1/{path}", params=parameters, timeout=10).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def values(self, expression: str) -> list[float]:
        """The values that are numbers; a quantile of nothing is none."""
        found = [float(series["value"][1]) for series in self.ask("query", query=expression)["result"]]
        return [value for value in found if not math.isnan(value)]

    def wait_until_all_are_scraped(self) -> None:
        """Wait until each target has been scraped, and say why one cannot be."""
        end = time.monotonic() + 20
        while time.monotonic() < end:
            try:
                targets = self.ask("targets")["activeTargets"]
                if targets and all(target["health"] == "up" for target in targets):
                    return
            except requests.RequestException:
                # It does not listen yet, or has not read its data yet.
                targets = []
            time.sleep(0.1)
        raise AssertionError([target["lastError"] for target in targets] or "Prometheus did not start")

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


@pytest.fixture
def functions(plain: Urls) -> Iterator[Mapping[str, str]]:
    """The addresses of each function as its image serves it, of an `ingest` without a database, and of `make run`."""
    program("prometheus")
    with ExitStack() as running:

        def serve(function: str, url: str = "", **variables: str) -> str:
            settings = {**stack.target(function, url), **TOKENS, **variables}
            return f"http://127.0.0.1:{running.enter_context(stack.serve(stack.command(), settings)).port}"

        run = Stack(running.enter_context(place()) / "run", None, **TOKENS)
        running.callback(run.stop)
        ingest = serve("ingest", plain(WRITER))
        addresses = {
            "ingest": ingest,
            "average": serve("average", plain(READER)),
            "simulate": serve("simulate", SINK_URL=ingest),
            "stuck": serve("ingest", NOWHERE, QUEUE_LIMIT="10000", DEADLINE_SECONDS="1"),
            "make run": run.address,
        }
        run.wait_for("Simulator")
        port = free_port()
        with subprocess.Popen(
            [sys.executable, "-m", "migrations.health"],
            env={"PYTHONPATH": f"{ROOT}/functions:{ROOT}", "PORT": str(port), "DATABASE_URL": plain(MONITOR)},
        ) as process:
            running.callback(process.terminate)
            yield {**addresses, "health": f"http://127.0.0.1:{port}"}
            process.terminate()


@pytest.fixture
def start_prometheus(tmp_path: Path) -> Iterator[Callable[[Mapping[str, str]], Prometheus]]:
    started: list[Prometheus] = []

    def start(functions: Mapping[str, str]) -> Prometheus:
        started.append(Prometheus(tmp_path, functions))
        return started[-1]

    yield start
    for prometheus in started:
        prometheus.stop()


def _use(functions: Mapping[str, str], second: int) -> None:
    """Send what is stored, what came before, and what is refused for each reason; ask; simulate."""

    def post(function: str, expected: int, headers: Mapping[str, str] = HEADERS, **body: Any) -> None:
        answer = requests.post(f"{functions[function]}/", headers=headers, timeout=10, **body)
        assert answer.status_code == expected, answer.text

    for function in ("ingest", "make run"):
        post(function, 201, json={**READING, "timestamp": f"2024-12-01T12:34:{second:02}Z"})
        post(function, 201, json=READING)
        asked = f"{functions['average' if function == 'ingest' else function]}/v1/temperature/average"
        assert requests.get(asked, {"building_id": "B1"}, headers=HEADERS, timeout=10).status_code == 200
    post("ingest", 422, json={**READING, "temperature": 51})
    post("ingest", 400, data="{")
    post("ingest", 413, json=[READING] * 10_001)
    post("ingest", 415, data="{}", headers={**HEADERS, "Content-Type": "text/plain"})
    post("ingest", 401, json=READING, headers={})
    post("simulate", 200)
    with ThreadPoolExecutor(1) as pool:
        too_late = pool.submit(post, "stuck", 503, json=[READING] * 10_000)
        full = "\ntemperature_waiting_readings 10000.0\n"
        wait_until(lambda: full in requests.get(f"{functions['stuck']}/metrics", headers=HEADERS, timeout=10).text)
        post("stuck", 503, json=READING)
        too_late.result()


def _asked(prometheus: Prometheus, expression: str, instance: str) -> list[float]:
    """What a panel shows of the instance."""
    for name, value in {"$__rate_interval": "20s", "$namespace": ".*", "$instance": instance}.items():
        expression = expression.replace(name, value)
    assert "$" not in expression
    return prometheus.values(expression)


def _offered(prometheus: Prometheus) -> dict[str, list[str]]:
    """What the dashboard offers for each of its variables."""
    offered: dict[str, list[str]] = {}
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            (found,) = re.findall(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
            series = found[0].replace("$namespace", ".*")
            offered[variable["name"]] = prometheus.ask(f"label/{found[1]}/values", **{"match[]": series})
    return offered


def _noticed(prometheus: Prometheus) -> set[str]:
    """Which alarms went off, or are about to."""
    series = prometheus.ask("query", query="group by (alertname) (last_over_time(ALERTS[1m]))")["result"]
    return {each["metric"]["alertname"] for each in series}


def test_it_has_an_answer_to_every_question_of_the_dashboard_and_the_alarms(
    plain: Urls, functions: Mapping[str, str], start_prometheus: Callable[[Mapping[str, str]], Prometheus]
) -> None:
    with psycopg.connect(plain(OWNER)) as owner:
        # As if nothing had summed up readings for an hour; all else is well.
        owner.execute("SELECT setval('summarized', extract(epoch FROM now() - interval '1 hour')::bigint)")
        owner.execute("UPDATE watching SET checked = now()")
    prometheus = start_prometheus(functions)
    prometheus.wait_until_all_are_scraped()
    for second in range(4):
        _use(functions, second)
    time.sleep(1)

    shown = {
        title: {line: expression for line, expression in lines.items() if PROCESS or "process_" not in expression}
        for title, lines in panels().items()
    }
    without_data = [
        f"{title}: {line}"
        for title, lines in shown.items()
        for line, expression in lines.items()
        if not _asked(prometheus, expression, ".*")
    ]
    assert set(without_data) == ELSEWHERE

    run = _instance(functions["make run"])
    empty_for_make_run = [
        title
        for title, lines in shown.items()
        if lines and not any(_asked(prometheus, each, run) for each in lines.values())
    ]
    # Nothing was refused there.
    assert empty_for_make_run == ["Refused by ingest", "Jobs that fail", "Standbys behind"]

    instances = sorted(_instance(address) for name, address in functions.items() if name != "health")
    assert _offered(prometheus) == {"namespace": [NAMESPACE], "instance": instances}

    taken = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
    assert [rule.get("lastError", "") for rule in taken] == [""] * len(rules())
    assert {rule["health"] for rule in taken} == {"ok"}
    assert _noticed(prometheus) == {
        "TemperatureCommitsFail",
        # The server of the tests waits for no disk.
        "TemperatureCopiesMissing",
        "TemperatureQueueFills",
        "TemperatureReadingsRefused",
        "TemperatureRequestsFail",
        "TemperatureSummariesStop",
    }
