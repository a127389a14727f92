"""A Prometheus on the cluster finds the functions, and gets in."""

import re
import subprocess

import pytest
import yaml

from migrations import health
from tests.manifests.schema import faults
from tests.manifests.support import (
    OVERLAYS,
    Object,
    containers,
    functions,
    knative,
    of_kind,
    overlay,
    templates,
)
from tests.support import DOCUMENTS, ROOT

DOCUMENTATION = "".join(path.read_text() for path in DOCUMENTS)


def _monitors() -> list[Object]:
    return list(yaml.safe_load_all((ROOT / "monitoring" / "podmonitor.yaml").read_text()))


def test_the_operator_takes_the_monitors_and_the_rules_as_the_documentation_makes_an_object_of_them() -> None:
    (command,) = re.findall(r"^(\{ printf .+?) \| kubectl [^|]+?$", DOCUMENTATION, re.MULTILINE | re.DOTALL)
    run = subprocess.run(["bash", "-c", command], capture_output=True, check=True, cwd=ROOT)
    made = yaml.safe_load(run.stdout)
    assert made["spec"] == yaml.safe_load((ROOT / "monitoring" / "alerts.yaml").read_text())
    assert [fault for value in (*_monitors(), made) for fault in faults(value)] == []


def test_a_mistake_in_a_monitor_is_found() -> None:
    monitor = _monitors()[0]
    monitor["spec"]["podMetricsEndpoints"][0]["ports"] = "user-port"
    assert len(faults(monitor)) == 1


def test_each_function_is_monitored_with_the_token_that_it_takes_in_production() -> None:
    sent = {
        function: monitor["spec"]["podMetricsEndpoints"][0]["authorization"]["credentials"]
        for monitor in _monitors()
        for expression in monitor["spec"]["selector"].get("matchExpressions", [])
        for function in expression["values"]
    }
    assert sent.keys() == functions(overlay("kind")).keys()
    for name, function in functions(overlay("production")).items():
        (container,) = containers(function["spec"]["template"])
        (taken,) = [
            variable["valueFrom"]["secretKeyRef"]
            for variable in container["env"]
            if variable["name"] in {"READ_TOKENS", "WRITE_TOKENS"}
        ]
        assert sent[name] == taken


def test_a_monitor_names_the_port_as_knative_does() -> None:
    source = (knative("serving") / "pkg/apis/serving/v1/revision_helpers.go").read_text()
    ports = {endpoint["port"] for monitor in _monitors()[:2] for endpoint in monitor["spec"]["podMetricsEndpoints"]}
    assert ports == set(re.findall(r'^\tUserPortName = "(.+)"$', source, re.MULTILINE))


@pytest.mark.parametrize("name", OVERLAYS)
def test_each_function_says_where_its_metrics_are(name: str) -> None:
    for value in functions(overlay(name)).values():
        annotations = value["spec"]["template"]["metadata"]["annotations"]
        found = {key: text for key, text in annotations.items() if key.startswith("prometheus.io/")}
        assert found == {
            "prometheus.io/scrape": "true",
            "prometheus.io/port": "8080",
            "prometheus.io/path": "/metrics",
        }


@pytest.mark.parametrize("name", OVERLAYS)
def test_what_asks_the_database_how_it_is_is_found_where_it_answers(name: str) -> None:
    pod = templates(overlay(name))["health"]
    (container,) = containers(pod)
    (port,) = container["ports"]
    monitor = _monitors()[-1]["spec"]
    assert monitor["selector"]["matchLabels"] == pod["metadata"]["labels"] | monitor["selector"]["matchLabels"]
    assert [endpoint["port"] for endpoint in monitor["podMetricsEndpoints"]] == [port["name"]]
    assert port["containerPort"] == health.PORT
    assert pod["metadata"]["annotations"] == {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(health.PORT),
        "prometheus.io/path": "/metrics",
    }
    assert container["command"] == ["python", "-m", "migrations.health", "0.0.0.0"]
    # No Service, and so no name, leads there.
    assert "health" not in of_kind(overlay(name), "Service")
