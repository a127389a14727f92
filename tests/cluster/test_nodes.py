"""The node of the primary is emptied while devices send, as docs/kubernetes.md says it."""

import json
import time
from collections.abc import Callable, Iterator

import pytest

from tests.cluster import cluster
from tests.cluster.cluster import Devices

pytestmark = [pytest.mark.usefixtures("nodes", "two_instances", "knative_moves"), pytest.mark.timeout(1200)]

BUDGETS = {"knative-serving": ("activator", "webhook"), "kourier-system": ("3scale-kourier-gateway",)}
"""Those of Knative, with the autoscaler of the same name."""


def on(node: str, namespace: str = cluster.NAMESPACE) -> set[str]:
    """The pods on the node that somebody else would have to run."""
    found = cluster.get("pods", "--namespace", namespace, "--field-selector", f"spec.nodeName={node}")["items"]
    return {
        pod["metadata"]["name"]
        for pod in found
        if pod["status"]["phase"] == "Running"
        and pod["metadata"].get("ownerReferences", [{}])[0].get("kind") not in ("DaemonSet", "Node")
    }


def node_of(pod: str) -> str:
    return str(cluster.get("pod", pod)["spec"]["nodeName"])


@pytest.fixture(scope="module")
def nodes(expendable: None) -> list[str]:
    """Those that take pods."""
    found = [
        node["metadata"]["name"]
        for node in cluster.get("nodes")["items"]
        if not any(taint["effect"] == "NoSchedule" for taint in node["spec"].get("taints", []))
    ]
    if len(found) < 2:
        pytest.skip("needs more nodes than one: make up NODES=3")
    return found


@pytest.fixture(scope="module")
def knative_moves(nodes: list[str]) -> Iterator[None]:
    """Knative's own parts may be moved while this lasts."""
    prepare, _, _ = cluster.documented("Emptying a node")
    cluster.run_commands(prepare)
    try:
        cluster.until(may_be_moved, 180)
        yield
    finally:
        for namespace, names in BUDGETS.items():
            for name in names:
                change("hpa", name, namespace, {"minReplicas": 1})
                change("pdb", f"{name}-pdb", namespace, {"minAvailable": "80%"})


def change(kind: str, name: str, namespace: str, spec: dict[str, object]) -> None:
    told = json.dumps({"spec": spec})
    cluster.kubectl("patch", kind, name, "--namespace", namespace, "--type", "merge", "--patch", told)


def may_be_moved() -> bool:
    """Each of Knative's parts may lose an instance."""
    return all(
        cluster.get("pdb", f"{name}-pdb", "--namespace", namespace)["status"]["disruptionsAllowed"]
        for namespace, names in BUDGETS.items()
        for name in names
    )


def test_each_instance_of_the_database_is_on_a_node_of_its_own(nodes: list[str]) -> None:
    instances = cluster.instances()
    assert len({node_of(instance) for instance in instances}) == min(len(instances), len(nodes))


def test_the_node_of_the_primary_is_emptied_while_devices_send(say: Callable[[object], None]) -> None:
    _, empty, fill = cluster.documented("Emptying a node")
    with Devices() as devices:
        devices.go_on(60)
        before = cluster.primary()
        node, begun = node_of(before), time.monotonic()
        try:
            cluster.run_commands(f"NODE={node}\n{empty}")
            took = time.monotonic() - begun
            assert not on(node)
            after = cluster.primary()
            assert after not in ("", before)
            assert node_of(after) != node
            devices.go_on(60)
            time.sleep(10)
        finally:
            cluster.run_commands(f"NODE={node}\n{fill}")
        cluster.until(cluster.healthy, 300)
        devices.go_on(60)
    say(f"{before}, then {after}: {node} was empty after {took:.0f} s, {devices}")
    # The node may have had the gateway that they were connected to.
    devices.assert_kept(broken=True)
