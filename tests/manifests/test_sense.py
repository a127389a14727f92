"""The objects fit each other, and the programs that they run."""

import io
import json
import re
import urllib.request
from pathlib import Path

import pytest
import yaml

from migrations import failures, summaries
from simulate import simulation
from simulate.events import EVENT_TYPE
from tests.manifests.schema import faults
from tests.manifests.support import (
    KNATIVE,
    NAMESPACE,
    OVERLAYS,
    Object,
    build,
    containers,
    environment,
    functions,
    of_kind,
    overlay,
    templates,
)
from tests.support import ROOT
from watch import rules

# Beside the functions: what PostgreSQL keeps for superusers; the operator, Patroni, replication and the exporter;
# migrations. Background workers, such as TimescaleDB's, do not count.
RESERVED = 3 + 10 + 2

# What an overlay adds to knative/base and knative/database, takes away and changes.
HOST = {"Ingress localhost", "NetworkPolicy host", "Service temperature-db-host"}
EVENTS = {
    "Broker default",
    "ConfigMap dead-letters",
    "Deployment dead-letter-box",
    "NetworkPolicy dead-letter-box",
    "PersistentVolumeClaim dead-letters",
    "PingSource every-minute",
    "PingSource every-minute-watch",
    "Service dead-letter-box",
    "SinkBinding simulate",
    "SinkBinding watch",
    "Trigger ingest",
}
DIFFERENCES: dict[str, tuple[set[str], set[str], set[str]]] = {
    "kind": (HOST, set(), set()),
    "eventing": (HOST | EVENTS, {"CronJob every-minute", "CronJob every-minute-watch"}, set()),
    "production": (
        {f"PodDisruptionBudget {name}" for name in ("average", "ingest", "pooler", "standbys")},
        {"CronJob every-minute", "Service simulate"},
        {
            "CronJob every-minute-watch",
            "Job migrations",
            "Service average",
            "Service ingest",
            "Service watch",
            "postgresql temperature-db",
        },
    ),
}


def _without_hash(part: Object) -> str:
    """The name of the object; that of a ConfigMap ends with a hash of what it holds."""
    name: str = part["metadata"]["name"]
    return name.rpartition("-")[0] if part["kind"] == "ConfigMap" else name


def _address(objects: list[Object], function: str) -> str:
    metadata = functions(objects)[function]["metadata"]
    return f"http://{metadata['name']}.{metadata['namespace']}.svc.cluster.local"


@pytest.mark.parametrize("name", OVERLAYS)
def test_everything_is_in_one_namespace(name: str) -> None:
    objects = overlay(name)
    assert of_kind(objects, "Namespace").keys() == {NAMESPACE}
    assert {part["metadata"].get("namespace") for part in objects if part["kind"] != "Namespace"} == {NAMESPACE}


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_differs_from_the_base_in_what_it_is_for(name: str) -> None:
    before, after = (
        {f"{part['kind']} {_without_hash(part)}": part for part in objects}
        for objects in (build(KNATIVE / "base", KNATIVE / "database"), overlay(name))
    )
    changed = {part for part in before.keys() & after.keys() if before[part] != after[part]}
    assert (after.keys() - before.keys(), before.keys() - after.keys(), changed) == DIFFERENCES[name]


@pytest.mark.parametrize("name", OVERLAYS)
def test_no_more_connections_are_asked_of_postgresql_than_it_has(name: str) -> None:
    objects = overlay(name)
    (database,) = of_kind(objects, "postgresql").values()
    asked = {"temperature-db": 0}
    for function in functions(objects).values():
        template = function["spec"]["template"]
        settings = environment(template)
        if host := settings.get("PGHOST"):
            instances = int(template["metadata"]["annotations"]["autoscaling.knative.dev/max-scale"])
            # During a rollout there are those of two revisions. Checks of one `watch` take turns on a connection each.
            asked[host] = asked.get(host, 0) + 2 * instances * int(settings.get("POOL_SIZE", 1))
    if asked.pop("temperature-db-pooler", 0):
        assert database["spec"]["enableConnectionPooler"] is True
        pooler = database["spec"]["connectionPooler"]
        # The operator gives each of its pods an equal part, and while they are replaced there is one more.
        part = pooler["maxDBConnections"] // pooler["numberOfInstances"]
        asked["temperature-db"] += part * (pooler["numberOfInstances"] + 1)
    assert asked.keys() == {"temperature-db"}
    maximum = int(database["spec"]["postgresql"]["parameters"]["max_connections"])
    assert 0 < asked["temperature-db"] <= maximum - RESERVED


@pytest.mark.parametrize("name", OVERLAYS)
def test_a_function_knows_whether_it_is_behind_the_pooler(name: str) -> None:
    objects = overlay(name)
    (database,) = of_kind(objects, "postgresql").values()
    pooler = database["spec"].get("connectionPooler", {})
    expected = ("temperature-db-pooler", "true") if pooler.get("mode") == "transaction" else ("temperature-db", None)
    for function in ("ingest", "average", "watch"):
        settings = environment(functions(objects)[function]["spec"]["template"])
        assert (settings["PGHOST"], settings.get("DATABASE_POOLER")) == expected
    # A session's lock keeps migrations from each other, which a pooler for transactions does not carry.
    assert environment(templates(objects)["migrations"])["PGHOST"] == "temperature-db"


@pytest.mark.parametrize("name", OVERLAYS)
def test_a_timer_brings_the_summaries_up_to_date_as_the_owner_of_the_schema(name: str) -> None:
    pods = templates(overlay(name))
    settings = environment(pods["summaries"])
    assert settings.items() <= environment(pods["migrations"]).items()
    (container,) = containers(pods["summaries"])
    assert container["command"] == ["python", "-m", "migrations", "summarize"]
    # It stops before the next one begins.
    job = of_kind(overlay(name), "CronJob")["summaries"]["spec"]
    assert (job["schedule"], job["jobTemplate"]["spec"]["activeDeadlineSeconds"]) == ("*/5 * * * *", 290)
    assert summaries.MOST_SECONDS <= 280


def test_a_failure_that_no_other_try_mends_ends_the_migrations() -> None:
    job = of_kind(overlay("kind"), "Job")["migrations"]["spec"]
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule == {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [failures.EXIT_CODE]}}
    # Kubernetes takes such rules with this alone.
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    assert job["backoffLimit"] > 0


def test_production_may_lose_an_instance_of_the_database_and_still_has_two_copies() -> None:
    objects = overlay("production")
    (database,) = of_kind(objects, "postgresql").values()
    assert database["spec"]["numberOfInstances"] == 3
    assert database["spec"]["patroni"] == {"synchronous_mode": True, "synchronous_mode_strict": True}
    assert environment(templates(objects)["migrations"])["BUCKET_MINUTES"] == "15"
    # An alarm says when one of them has no copy.
    assert environment(templates(objects)["ingest"])["COPIES"] == "2"
    assert environment(templates(objects)["migrations"])["STANDBYS"] == "2"


def test_the_simulator_is_triggered_every_minute_and_sends_to_ingest(monkeypatch: pytest.MonkeyPatch) -> None:
    objects = overlay("kind")
    assert of_kind(objects, "CronJob")["every-minute"]["spec"]["schedule"] == "* * * * *"
    sent: list[tuple[str, bytes]] = []

    def urlopen(url: str, data: bytes, timeout: float) -> io.BytesIO:
        sent.append((url, data))
        return io.BytesIO(b"{}")

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    (container,) = containers(templates(objects)["every-minute"])
    *python, script = container["command"]
    assert python == ["python", "-c"]
    exec(script)
    ((url, data),) = sent
    assert url == _address(objects, "simulate") + "/"
    assert environment(templates(objects)["simulate"])["SINK_URL"] == _address(objects, "ingest")
    # The events' timer asks for the same.
    assert json.loads(data) == json.loads(of_kind(overlay("eventing"), "PingSource")["every-minute"]["spec"]["data"])


@pytest.mark.parametrize(
    ("name", "tokens", "sent"), [("kind", "", None), ("production", "one-token,another", "Bearer one-token")]
)
def test_alarms_are_looked_for_every_minute(
    monkeypatch: pytest.MonkeyPatch, name: str, tokens: str, sent: str | None
) -> None:
    objects = overlay(name)
    assert of_kind(objects, "CronJob")["every-minute-watch"]["spec"]["schedule"] == "* * * * *"
    requests: list[urllib.request.Request] = []

    def urlopen(request: urllib.request.Request, timeout: float) -> io.BytesIO:
        requests.append(request)
        return io.BytesIO(b"{}")

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    monkeypatch.setenv("WRITE_TOKENS", tokens)
    (container,) = containers(templates(objects)["every-minute-watch"])
    exec(container["command"][2])
    (request,) = requests
    assert request.full_url == _address(objects, "watch") + "/"
    assert (request.get_method(), request.get_header("Authorization")) == ("POST", sent)
    timer = of_kind(overlay("eventing"), "PingSource")["every-minute-watch"]["spec"]
    assert (timer["schedule"], timer["sink"]["ref"]["name"]) == ("* * * * *", "watch")


def test_the_users_who_watch_who_remove_and_who_monitor_are_made_and_get_what_they_need() -> None:
    objects = overlay("kind")
    (database,) = of_kind(objects, "postgresql").values()
    roles = environment(templates(objects)["migrations"])
    users = {roles["WATCHER_ROLE"]: "watch", roles["ADMIN_ROLE"]: "average", roles["MONITOR_ROLE"]: "health"}
    assert database["spec"]["users"].keys() == users.keys()
    for user, function in users.items():
        secrets = json.dumps(templates(objects)[function])
        assert f"{user.replace('_', '-')}.{database['metadata']['name']}.credentials" in secrets


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_rules_of_alarms_are_in_a_config_map_that_no_deployment_changes(name: str) -> None:
    objects = overlay(name)
    template = templates(objects)["watch"]
    (container,) = containers(template)
    (mount,) = container["volumeMounts"]
    (volume,) = template["spec"]["volumes"]
    variables = {variable["name"]: variable for variable in container["env"]}
    assert "ALARM_RULES" not in variables
    path, _, key = variables["ALARM_RULES_FILE"]["value"].rpartition("/")
    assert (mount["name"], mount["mountPath"], key) == (volume["name"], path, "rules.json")
    sink = variables["ALARM_SINK_URL"]["valueFrom"]["configMapKeyRef"]
    assert (sink["name"], sink["optional"]) == (volume["configMap"]["name"], True) == ("alarms", True)
    # What is not among the objects is neither applied nor pruned.
    assert not {value for value in of_kind(objects, "ConfigMap") if value.startswith("alarms")}
    script = (ROOT / "kind" / "deploy.sh").read_text()
    assert f"k -n {NAMESPACE} get configmap alarms >/dev/null 2>&1 || make_alarms" in script
    assert f'k -n {NAMESPACE} create configmap alarms --from-literal={key}="${{rules:-[]}}"' in script


def test_the_example_of_rules_is_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (text,) = re.findall("```json\n(.+?)```", (ROOT / "docs" / "kubernetes.md").read_text(), re.DOTALL)
    file = tmp_path / "rules.json"
    file.write_text(text)
    monkeypatch.setenv("ALARM_RULES_FILE", str(file))
    assert rules.load().places.keys() == {(None, None), ("B1", None)}


def test_the_broker_hands_the_simulators_events_to_ingest() -> None:
    objects = overlay("eventing")
    (trigger,) = of_kind(objects, "Trigger").values()
    assert trigger["spec"]["filter"]["attributes"] == {"type": EVENT_TYPE}
    bindings = of_kind(objects, "SinkBinding")
    assert bindings.keys() == {"simulate", "watch"}
    for name, binding in bindings.items():
        assert binding["spec"]["subject"]["name"] == name
        assert binding["spec"]["sink"]["ref"]["name"] == trigger["spec"]["broker"]


@pytest.mark.parametrize("name", ["kind", "eventing"])
def test_the_address_on_kind_leads_each_path_to_its_function(name: str) -> None:
    objects = overlay(name)
    (rule,) = of_kind(objects, "Ingress")["localhost"]["spec"]["rules"]
    leads: dict[str, str] = {}
    # What is posted to the root are readings, and whoever asks for leave there wants to post.
    posted = [path for path in rule["http"]["paths"] if "headers" in path]
    assert [(path["path"], path["headers"], path["splits"][0]["serviceName"]) for path in posted] == [
        ("/", {":method": {"exact": method}}, "ingest") for method in ("POST", "OPTIONS")
    ]
    for path in rule["http"]["paths"]:
        (split,) = path["splits"]
        assert f"http://{path['rewriteHost']}" == _address(objects, split["serviceName"])
        assert split["serviceNamespace"] == NAMESPACE
        if path not in posted:
            leads[path["path"]] = split["serviceName"]
    # What people look at.
    assert leads["/"] == "average"
    assert not any(lead.startswith(("/docs", "/redoc", "/dashboard")) for lead in leads)
    for function in ("average", "ingest", "simulate", "watch"):
        document = json.loads((ROOT / "functions" / function / "openapi.json").read_text())
        for path, item in document["paths"].items():
            # Of every function, each at its own name; and `/`, which the method decides on.
            if path == "/" or item.get("get", {}).get("tags") == ["operation"]:
                continue
            # By whole segments: that the first letters are the same is not enough.
            prefixes = [lead for lead in leads if f"{path}/".startswith(f"{lead.rstrip('/')}/")]
            assert leads[max(prefixes, key=len)] == function


def test_the_ports_of_the_node_are_those_that_kind_maps_to_the_host() -> None:
    cluster = yaml.safe_load((ROOT / "kind" / "cluster.yaml").read_text())
    mapped = [mapping["containerPort"] for node in cluster["nodes"] for mapping in node["extraPortMappings"]]
    services = of_kind([*build(KNATIVE / "serving"), *overlay("kind")], "Service", "v1")
    assert sorted(mapped) == sorted(port["nodePort"] for value in services.values() for port in value["spec"]["ports"])


def test_the_example_of_a_source_asks_the_simulator_for_what_it_understands() -> None:
    source = yaml.safe_load((ROOT / "examples" / "pingsource.yaml").read_text())
    assert faults(source) == []
    asked = simulation.parse(source["spec"]["data"].encode())
    assert (len(asked.rooms), len(asked.instants)) == (1, 7)


def test_the_image_of_the_database_is_made_of_the_same_images_everywhere_by_exact_tags() -> None:
    settings = (ROOT / "kind" / "settings.sh").read_text()
    dockerfile = (KNATIVE / "database" / "Dockerfile").read_text()
    documentation = (ROOT / "docs" / "kubernetes.md").read_text()
    for name, tag in (("SPILO_IMAGE", r"\d+\.\d+-p\d+"), ("TIMESCALEDB_IMAGE", r"pg17\.\d+-ts2\.\d+\.\d+")):
        (image,) = re.findall(rf"^: \"\$\{{{name}:=(\S+)\}}\"$", settings, re.MULTILINE)
        assert re.findall(rf"^ARG {name}=(\S+)$", dockerfile, re.MULTILINE) == [image]
        assert re.fullmatch(tag, image.partition(":")[2])
        assert f"`{image}`" in documentation
