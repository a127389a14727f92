"""The schemas of all kinds of objects: the API server's own, and those of their custom resource definitions."""

from functools import cache
from pathlib import Path

import kubernetes_validate  # type: ignore[import-untyped]
import yaml
from jsonschema import Draft4Validator

from tests.manifests.support import Object, knative, postgres_operator, prometheus_operator

PRESERVE = "x-kubernetes-preserve-unknown-fields"
EXPERIMENTS = {"retryAfterMax": "delivery-retryafter"}
"""Fields of a delivery that Knative Eventing takes where a feature is switched on, and that feature."""
OPERATED = "example/prometheus-operator-crd/monitoring.coreos.com"


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
