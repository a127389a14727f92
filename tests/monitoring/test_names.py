"""Metrics have the names that an operator reads."""

import re
from collections.abc import Callable
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from tests.monitoring.files import panels, rules
from tests.support import DOCUMENTS


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


def test_the_documentation_lists_the_metrics_that_there_are(serve: Callable[..., TestClient]) -> None:
    there_are = {f"{family.name}_total" if family.type == "counter" else family.name for family in _families(serve)}
    sections = [path.read_text().partition("\n## Watch\n")[2].partition("\n## ")[0] for path in DOCUMENTS]
    assert _names(" ".join(sections)) == there_are


def test_the_alarms_and_the_dashboard_use_metrics_that_there_are(serve: Callable[..., TestClient]) -> None:
    suffixes = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
    there_are = {f"{family.name}{suffix}" for family in _families(serve) for suffix in suffixes[family.type]}
    used = [rule["expr"] for rule in rules()]
    used += [expression for lines in panels().values() for expression in lines.values()]
    assert _names(" ".join(used)) <= there_are
