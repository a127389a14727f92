"""The manifests as the deployment builds them, and the releases that they are written for."""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.support import ROOT

Object = dict[str, Any]
KNATIVE = ROOT / "knative"
OVERLAYS = ["eventing", "kind", "production"]
NAMESPACE = "temperature"
BUILT = ("ingest", "average", "simulate", "watch", "migrations", "database")
IMAGES = {name: f"registry/{name}:0123456789ab" for name in BUILT}


def _go(*arguments: str, folder: Path = ROOT) -> str:
    go = Path(sys.executable).with_name("go")
    run = subprocess.run([go, *arguments], capture_output=True, check=False, cwd=folder, text=True)
    assert run.returncode == 0, run.stderr + run.stdout
    return run.stdout


@cache
def build(*folders: Path) -> list[Object]:
    """What is applied to a cluster: the folders' objects with the images that were built, as kind/deploy.sh does it."""
    with tempfile.TemporaryDirectory() as name:
        # Kustomize wants relative paths, and macOS has its temporary folders behind a link.
        place = Path(name).resolve()
        kustomization = {
            "resources": [os.path.relpath(folder, place) for folder in folders],
            "configurations": [os.path.relpath(KNATIVE / "database" / "images.yaml", place)],
            "images": [
                {"name": name, "newName": image.partition(":")[0], "newTag": image.partition(":")[2]}
                for name, image in IMAGES.items()
            ],
        }
        (place / "kustomization.yaml").write_text(json.dumps(kustomization))
        command = ("tool", "kustomize", "build", "--load-restrictor", "LoadRestrictionsNone", str(place))
        return list(yaml.safe_load_all(_go(*command, folder=Path(__file__).parent)))


def overlay(name: str) -> list[Object]:
    """The objects of an overlay."""
    return build(KNATIVE / "overlays" / name)


def of_kind(objects: list[Object], kind: str, group: str = "") -> dict[str, Object]:
    """The objects of a kind, by their names."""
    return {
        value["metadata"]["name"]: value
        for value in objects
        if value["kind"] == kind and value["apiVersion"].startswith(group)
    }


def functions(objects: list[Object]) -> dict[str, Object]:
    """The Knative Services, by their names."""
    return of_kind(objects, "Service", "serving.knative.dev/")


def templates(objects: list[Object]) -> dict[str, Object]:
    """The templates of pods, by the names of the objects that hold them."""
    found = [(value["metadata"]["name"], template) for value in objects for template in _templates(value)]
    assert len(found) == len(dict(found))
    return dict(found)


def _templates(value: Any) -> Iterator[Object]:
    if isinstance(value, dict):
        if "containers" in (value.get("spec") or {}):
            yield value
        else:
            for part in value.values():
                yield from _templates(part)


def containers(template: Object) -> list[Object]:
    """All containers of a pod."""
    spec = template["spec"]
    return [*spec.get("initContainers", []), *spec["containers"]]


def environment(template: Object) -> dict[str, Any]:
    """The variables of a pod's only container that have a value."""
    (container,) = containers(template)
    return {variable["name"]: variable.get("value") for variable in container.get("env", [])}


@cache
def module(path: str, version: str) -> Path:
    """The folder of a Go module, whose content Go has compared with what everybody gets."""
    return Path(json.loads(_go("mod", "download", "-json", f"{path}@{version}"))["Dir"])


def _pinned(variable: str) -> str:
    settings = (ROOT / "kind" / "settings.sh").read_text()
    (version,) = re.findall(rf'^: "\$\{{{variable}:=(.+)\}}"$', settings, re.MULTILINE)
    return str(version)


def knative(name: str) -> Path:
    """The source of the pinned release of a part of Knative."""
    if name == "networking":
        requirements = (knative("serving") / "go.mod").read_text()
        (version,) = re.findall(r"^\s+knative\.dev/networking (\S+)", requirements, re.MULTILINE)
    else:
        # Knative 1.0 was version 0.27 of its Go modules.
        major, minor, patch = _pinned("KNATIVE_VERSION").split(".")
        assert major == "v1"
        version = f"v0.{int(minor) + 27}.{patch}"
    return module(f"knative.dev/{name}", version)


def postgres_operator() -> Path:
    """The source of the last release of the Postgres operator that is a Go module, as no version 2 is.

    Its path would have to end with /v2.
    """
    assert _pinned("POSTGRES_OPERATOR_VERSION").startswith("v2.")
    return module("github.com/zalando/postgres-operator", "v1.15.1")


def prometheus_operator() -> Path:
    """The source of the release of the Prometheus Operator that the objects for it are held against."""
    return module("github.com/prometheus-operator/prometheus-operator", "v0.85.0")
