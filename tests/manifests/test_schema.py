"""Every object is one that the API server takes as it is meant: it has no field that its kind does not have."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.manifests.schema import EXPERIMENTS, faults
from tests.manifests.support import (
    KNATIVE,
    OVERLAYS,
    build,
    functions,
    knative,
    of_kind,
    overlay,
)
from tests.support import ROOT

FOLDERS = [
    *(KNATIVE / "overlays" / name for name in (*OVERLAYS, "example")),
    *(KNATIVE / name for name in ("backup", "restore", "serving")),
]


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
