"""Every object is one that the API server takes as it is meant: it has no field that its kind does not have."""

import copy
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml
from jsonschema import Draft4Validator

from tests.manifests.support import (
    KNATIVE,
    OVERLAYS,
    Object,
    build,
    functions,
    knative,
    of_kind,
    overlay,
    postgres_operator,
    prometheus_operator,
)
from tests.support import ROOT

PRESERVE = "x-kubernetes-preserve-unknown-fields"
EXPERIMENTS = {"retryAfterMax": "delivery-retryafter"}
"""Fields of a delivery that Knative Eventing takes where a feature is switched on, and that feature."""
OPERATED = "example/prometheus-operator-crd/monitoring.coreos.com"
FOLDERS = [
    *(KNATIVE / "overlays" / name for name in (*OVERLAYS, "example")),
    *(KNATIVE / name for name in ("backup", "restore", "serving")),
]


def strict(schema: Object) -> Object:
    """A CRD's schema as a JSON schema that refuses what the API server would cut off, or refuse if asked to."""
    result = dict(schema)
    if "properties" in schema:
        result["properties"] = {name: strict(part) for name, part in schema["properties"].items()}
        if schema.get(PRESERVE) and "backoffDelay" in schema["properties"]:
            result["properties"] |= {field: {"type": "string"} for field in EXPERIMENTS}
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            result[key] = strict(schema[key])
    # Knative lets unknown fields pass where experiments may add some, beside those that it names.
    if schema.get("type") == "object" and ("properties" in schema or not schema.get(PRESERVE)):
        result.setdefault("additionalProperties", False)
    types = ["integer", "string"] if schema.get("x-kubernetes-int-or-string") else [schema.get("type")]
    if any(types):
        result["type"] = [*types, "null"] if schema.get("nullable") else types
    return result


@cache
def _custom() -> dict[tuple[str, str], Draft4Validator]:
    files: list[Path] = [
        *(knative("serving") / "config/core/300-resources").glob("*.yaml"),
        *(knative("eventing") / "config/core/resources").glob("*.yaml"),
        *(knative("networking") / "config").glob("*.yaml"),
        postgres_operator() / "manifests/postgresql.crd.yaml",
        *(prometheus_operator() / f"{OPERATED}_{kind}.yaml" for kind in ("podmonitors", "prometheusrules")),
    ]
    validators = {}
    for definition in (document for file in files for document in yaml.safe_load_all(file.read_text())):
        if definition["kind"] == "CustomResourceDefinition":
            spec = definition["spec"]
            for version in spec["versions"]:
                schema = strict(version["schema"]["openAPIV3Schema"])
                schema["properties"] |= {"apiVersion": {}, "kind": {}, "metadata": {}}
                validators[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = Draft4Validator(schema)
    return validators


def faults(value: Object) -> list[str]:
    """What the API server would not take, or would take for something else."""
    subject = f"{value['kind']} {value['metadata']['name']}"
    validator = _custom().get((value["apiVersion"], value["kind"]))
    found = list(validator.iter_errors(value)) if validator else []
    # The metadata of a custom object is that of any other.
    core = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": value["metadata"]} if validator else value
    try:
        kubernetes_validate.validate(core, kubernetes_validate.latest_version(), strict=True)
    except kubernetes_validate.ValidationError as error:
        found.append(error)
    return [f"{subject}{error.json_path[1:]}: {error.message}" for error in found]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_object_is_valid(folder: Path) -> None:
    assert [fault for value in build(folder) for fault in faults(value)] == []


def test_no_database_has_a_field_that_version_2_of_the_operator_does_not_know_any_more() -> None:
    # As its docs/migrate.md lists them; their names of today are in the definition of before too.
    removed = {"init_containers", "pod_priority_class_name", "replicaLoadBalancer", "useLoadBalancer"}
    for folder in FOLDERS:
        for database in of_kind(build(folder), "postgresql").values():
            assert not removed & database["spec"].keys()


@pytest.mark.parametrize(
    ("subject", "path", "value"),
    [
        ("Job migrations", ("spec", "template", "spec", "restartpolicy"), "Never"),
        ("NetworkPolicy database", ("spec", "ingress", 0, "ports"), [{"port": 5432.5}]),
        ("Service average", ("spec", "template", "spec", "containers", 0, "securityContext", "runAsNonroot"), True),
        ("Service average", ("metadata", "label"), {}),
        ("postgresql temperature-db", ("spec", "connectionPooler"), {"maxDbConnections": 60}),
        ("postgresql temperature-db", ("spec", "numberOfInstances"), "two"),
        ("Trigger ingest", ("spec", "subscriber", "reference"), {}),
        ("Ingress localhost", ("spec", "rules", 0, "http", "paths", 0, "splits", 0, "percentage"), 100),
    ],
)
def test_a_mistake_is_found(subject: str, path: tuple[str | int, ...], value: Any) -> None:
    kind, name = subject.split()
    mistaken = place = copy.deepcopy(of_kind(overlay("eventing"), kind)[name])
    *parents, last = path
    for step in parents:
        place = place[step]  # type: ignore[index]
    place[last] = value  # type: ignore[index]
    (fault,) = faults(mistaken)
    assert fault.startswith(subject)


def test_every_setting_of_knative_is_one_that_it_has() -> None:
    """Knative ignores others."""
    files = [knative("networking") / "config/config-network.yaml"]
    files += (knative("serving") / "config/core/configmaps").glob("*.yaml")
    releases = of_kind([yaml.safe_load(file.read_text()) for file in files], "ConfigMap")
    settings = of_kind(build(KNATIVE / "serving"), "ConfigMap")
    # Its keys are domains.
    del settings["config-domain"]
    for name, value in settings.items():
        assert value["data"].keys() <= yaml.safe_load(releases[name]["data"]["_example"]).keys()


def test_every_experiment_of_eventing_is_one_that_it_has_and_is_switched_on() -> None:
    source = (knative("eventing") / "pkg/apis/duck/v1/delivery_types.go").read_text()
    release = yaml.safe_load((knative("eventing") / "config/core/configmaps/features.yaml").read_text())
    ours = yaml.safe_load((ROOT / "kind/eventing-features.yaml").read_text())
    assert ours["metadata"] == {key: release["metadata"][key] for key in ("name", "namespace")}
    assert ours["data"] == dict.fromkeys(EXPERIMENTS.values(), "enabled")
    assert ours["data"].keys() <= release["data"].keys()
    for field in EXPERIMENTS:
        assert f'`json:"{field},omitempty"`' in source
    (trigger,) = of_kind(overlay("eventing"), "Trigger").values()
    assert trigger["spec"]["delivery"].keys() >= EXPERIMENTS.keys()


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_annotation_for_the_autoscaler_is_one_that_it_reads(name: str) -> None:
    source = (knative("serving") / "pkg/apis/autoscaling/register.go").read_text()
    for function in functions(overlay(name)).values():
        for annotation in function["spec"]["template"]["metadata"]["annotations"]:
            group, _, key = annotation.partition("/")
            if group != "prometheus.io":
                assert group == "autoscaling.knative.dev"
                assert f'= GroupName + "/{key}"\n' in source
