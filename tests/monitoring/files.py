"""The files that an operator's Prometheus and Grafana load."""

import json
from typing import Any

import yaml

from tests.support import ROOT

ALERTS = ROOT / "monitoring" / "alerts.yaml"
DASHBOARD = ROOT / "monitoring" / "dashboard.json"


def rules() -> list[dict[str, Any]]:
    """The rules of all groups."""
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    """The rules that alarm, by their names."""
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def dashboard() -> Any:
    """The dashboard as Grafana has it."""
    return json.loads(DASHBOARD.read_text())


def panels() -> dict[str, dict[str, str]]:
    """What each panel shows: for its title, the expression of each of its lines."""
    return {
        panel["title"]: {target["legendFormat"]: target["expr"] for target in panel["targets"]}
        for panel in dashboard()["panels"]
        if panel["type"] != "row"
    }
