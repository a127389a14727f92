"""Metrics have the names that an operator reads."""

import re
from collections.abc import Callable
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from local.postgres import MONITOR
from migrations import health
from tests.monitoring.files import panels, rules
from tests.support import DOCUMENTS, ROOT


def _names(text: str) -> set[str]:
    """The names of our metrics, without those that are recorded from them."""
    return set(re.findall(r"(?<![:\w])temperature_\w+(?![:\w])", text))


def _families(serve: Callable[..., TestClient]) -> list[Any]:
    """What all functions count, which in one process is in one place."""
    for function in ("ingest", "average", "simulate"):
        client = serve(function)
        # The first answer is counted when it is given.
        client.get("/metrics")
    families = text_string_to_metric_families(client.get("/metrics").text)
    return [family for family in families if family.name.startswith("temperature_")]


OF_THE_DATABASE = {health.UP, *(f"temperature_{metric}" for metric in health.METRICS)}
NEVER_A_FAULT = {
    "temperature_rooms",
    "temperature_rooms_unsummarized",
    "temperature_rooms_without_courses",
    "temperature_unsummarized_seconds",
    "temperature_removals_unfinished",
    "temperature_alarm_events_unsent",
    "temperature_database_bytes",
}


def test_the_documentation_lists_the_metrics_that_there_are(serve: Callable[..., TestClient]) -> None:
    there_are = {f"{family.name}_total" if family.type == "counter" else family.name for family in _families(serve)}
    of_readme = (ROOT / "README.md").read_text().partition("\n## Monitoring\n")[2].partition("\n## ")[0]
    assert of_readme
    # A limit stands beside what it is a limit of.
    listed = {
        name
        for name in _names((ROOT / "docs/monitoring.md").read_text() + of_readme) - {MONITOR}
        if name.removesuffix("_limit") not in OF_THE_DATABASE - {name}
    }
    assert listed == there_are | OF_THE_DATABASE


def test_the_documentation_lists_the_reasons_of_answers_and_what_to_do() -> None:
    code = "".join(path.read_text() for folder in ("functions", "local") for path in (ROOT / folder).rglob("*.py"))
    of_503 = set(re.findall(r'unavailable\(\s*"(\w+)"', code))
    of_403 = set(re.findall(r'reason="(\w+)"', code))
    assert {"deadline", "read_only", "queue_full"} <= of_503 and {"off", "other_host"} <= of_403
    documents = "".join(path.read_text() for path in DOCUMENTS)
    (metric,) = re.findall(r"^\| `temperature_requests_total` \| (.+) \|$", documents, re.MULTILINE)
    assert set(re.findall(r"`([a-z_]+)`", metric)) - {
        "function",
        "status",
        "reason",
        "ingest",
        "watch",
        "simulate",
    } == (of_503 | of_403)
    runbook = documents.partition("\n### Requests fail\n")[2].partition("\n### ")[0]
    # Which is no fault of a function.
    assert of_503 - {"not_ready"} == {reason for reason in of_503 if f"`{reason}`" in runbook}


def test_the_alarms_and_the_dashboard_use_metrics_that_there_are(serve: Callable[..., TestClient]) -> None:
    suffixes = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
    there_are = {f"{family.name}{suffix}" for family in _families(serve) for suffix in suffixes[family.type]}
    there_are |= OF_THE_DATABASE | {f"{name}_limit" for name in OF_THE_DATABASE}
    used = [rule["expr"] for rule in rules()]
    used += [expression for lines in panels().values() for expression in lines.values()]
    assert _names(" ".join(used)) <= there_are


def test_whatever_can_be_a_fault_of_the_database_has_an_alarm() -> None:
    used = _names(" ".join(rule["expr"] for rule in rules()))
    assert used & OF_THE_DATABASE == OF_THE_DATABASE - NEVER_A_FAULT
