"""A Prometheus on the cluster finds the functions, and gets in."""

import re
import subprocess

import pytest
import yaml

from tests.manifests.support import OVERLAYS, Object, containers, functions, knative, overlay
from tests.manifests.test_schema import faults
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
    (monitor, _) = _monitors()
    monitor["spec"]["podMetricsEndpoints"][0]["ports"] = "user-port"
    assert len(faults(monitor)) == 1


def test_each_function_is_monitored_with_the_token_that_it_takes_in_production() -> None:
    sent = {
        function: monitor["spec"]["podMetricsEndpoints"][0]["authorization"]["credentials"]
        for monitor in _monitors()
        for expression in monitor["spec"]["selector"]["matchExpressions"]
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
    ports = {endpoint["port"] for monitor in _monitors() for endpoint in monitor["spec"]["podMetricsEndpoints"]}
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
