"""Who reaches whom, by what the NetworkPolicies mean."""

from dataclasses import dataclass
from ipaddress import ip_address, ip_network

import pytest
import yaml

from tests.manifests.support import (
    KNATIVE,
    NAMESPACE,
    OVERLAYS,
    Object,
    build,
    functions,
    of_kind,
    overlay,
    postgres_operator,
    templates,
)

IN_FRONT = {"activator", "gateway"}
# What it asks, it asks of the functions themselves.
OBSERVERS = {"prometheus"}
CLIENTS = {"average", "backup", "health", "ingest", "migrations", "summaries", "watch"}
MANAGERS = {"database", "operator", "pooler"}


@dataclass(frozen=True)
class Peer:
    labels: dict[str, str]
    namespace: str | None = NAMESPACE
    # What kind gives to pods.
    address: str = "10.244.0.9"


def _peers(objects: list[Object]) -> dict[str, Peer]:
    (cluster,) = of_kind(objects, "postgresql")
    release = yaml.safe_load((postgres_operator() / "manifests/postgres-operator.yaml").read_text())
    pods = templates([*objects, *build(KNATIVE / "backup")])
    ours = {name: dict(pod.get("metadata", {}).get("labels", {})) for name, pod in pods.items()}
    for name in functions(objects):
        ours[name]["serving.knative.dev/service"] = name
    return {name: Peer(labels) for name, labels in ours.items()} | {
        "database": Peer({"application": "spilo", "cluster-name": cluster, "spilo-role": "master"}),
        "pooler": Peer({"application": "db-connection-pooler", "cluster-name": cluster}),
        "operator": Peer(release["spec"]["template"]["metadata"]["labels"], "default"),
        "activator": Peer({"app": "activator"}, "knative-serving"),
        "gateway": Peer({"app": "3scale-kourier-gateway"}, "kourier-system"),
        "broker": Peer({"app": "imc-dispatcher"}, "knative-eventing"),
        "host": Peer({}, None, "172.18.0.1"),
        "prometheus": Peer({"app.kubernetes.io/name": "prometheus"}, "monitoring"),
        "stranger": Peer({}),
        "pretended prometheus": Peer({"app.kubernetes.io/name": "prometheus"}),
        "stranger from elsewhere": Peer({}, "default"),
        "pretender from elsewhere": Peer(
            {
                "app.kubernetes.io/component": "migrations",
                "cluster-name": cluster,
                "name": "postgres-operator",
                "serving.knative.dev/service": "ingest",
            },
            "elsewhere",
        ),
    }


def _selects(selector: Object, labels: dict[str, str]) -> bool:
    for rule in selector.get("matchExpressions", []):
        has, is_in = rule["key"] in labels, labels.get(rule["key"]) in rule.get("values", [])
        if not {"In": is_in, "NotIn": not is_in, "Exists": has, "DoesNotExist": not has}[rule["operator"]]:
            return False
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def _admits(source: Object, peer: Peer) -> bool:
    if block := source.get("ipBlock"):
        address = ip_address(peer.address)
        return address in ip_network(block["cidr"]) and not any(
            address in ip_network(part) for part in block.get("except", [])
        )
    if peer.namespace is None:
        return False
    if (namespaces := source.get("namespaceSelector")) is None:
        here = peer.namespace == NAMESPACE
    else:
        here = _selects(namespaces, {"kubernetes.io/metadata.name": peer.namespace})
    return here and _selects(source.get("podSelector", {}), peer.labels)


def _reaches(peer: Peer, target: Peer, port: int, policies: list[Object]) -> bool:
    chosen = [policy["spec"] for policy in policies if _selects(policy["spec"]["podSelector"], target.labels)]
    wanted = {"port": port, "protocol": "TCP"}
    return not chosen or any(
        (not rule.get("ports") or any({"protocol": "TCP", **allowed} == wanted for allowed in rule["ports"]))
        and (not rule.get("from") or any(_admits(source, peer) for source in rule["from"]))
        for spec in chosen
        for rule in spec.get("ingress", [])
    )


@pytest.mark.parametrize("name", OVERLAYS)
def test_only_those_who_must_reach_the_database_and_the_functions_do(name: str) -> None:
    objects = overlay(name)
    peers = _peers(objects)
    policies = list(of_kind(objects, "NetworkPolicy").values())
    assert all(policy["spec"]["policyTypes"] == ["Ingress"] for policy in policies)
    # On one's own machine the database is within reach of it.
    outside = set() if name == "production" else {"host"}
    expected = {("database", 5432): CLIENTS | MANAGERS | outside, ("database", 8008): MANAGERS}
    expected["pooler", 5432] = expected["database", 5432]
    # Knative's proxy, the function behind it, and what the autoscaler asks.
    expected |= {(function, port): IN_FRONT for function in functions(objects) for port in (8012, 9090)}
    expected |= {(function, 8080): IN_FRONT | OBSERVERS for function in functions(objects)}
    # It has no token, and no path that leads there from outside.
    expected["health", 9187] = OBSERVERS
    if "dead-letter-box" in peers:
        expected["dead-letter-box", 8080] = {"broker"}
    assert expected == {
        (target, port): {peer for peer in peers if _reaches(peers[peer], peers[target], port, policies)}
        for target, port in expected
    }
