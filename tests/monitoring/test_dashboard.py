"""The dashboard is one that Grafana takes as it is meant, and whoever looks at it understands."""

import json
from itertools import combinations
from typing import Any

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.monitoring.files import dashboard


def _lost(meant: Any, taken: Any, path: str = "") -> list[str]:
    """Where Grafana's own types have not what the file says."""
    if isinstance(meant, dict) and isinstance(taken, dict):
        return [fault for key in meant for fault in _lost(meant[key], taken.get(key), f"{path}/{key}")]
    if isinstance(meant, list) and isinstance(taken, list) and len(meant) == len(taken):
        return [fault for i, pair in enumerate(zip(meant, taken, strict=True)) for fault in _lost(*pair, f"{path}/{i}")]
    return [] if meant == taken else [path]


def _taken(meant: Any) -> Any:
    register_default_plugins()
    return json.loads(JSONEncoder().encode(Dashboard.from_json(meant)))


def test_grafana_knows_every_field() -> None:
    assert _lost(dashboard(), _taken(dashboard())) == []


def test_a_field_that_it_does_not_know_is_found() -> None:
    meant = dashboard()
    meant["panels"][1]["targets"][0]["legendformat"] = "stored"
    meant["panels"][1]["fieldConfig"]["defaults"]["units"] = "cps"
    assert _lost(meant, _taken(meant)) == [
        "/panels/1/fieldConfig/defaults/units",
        "/panels/1/targets/0/legendformat",
    ]


def test_each_panel_says_what_it_shows_in_which_unit_and_has_a_place_of_its_own() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    for panel in panels:
        if panel["type"] != "row":
            assert panel["description"].endswith(".")
            assert panel["fieldConfig"]["defaults"]["unit"]
    for one, other in combinations([panel["gridPos"] for panel in panels], 2):
        assert any(
            first[start] + first[size] <= second[start]
            for first, second in ((one, other), (other, one))
            for start, size in (("x", "w"), ("y", "h"))
        )


def test_the_data_source_is_the_one_that_was_chosen() -> None:
    sources = [panel["datasource"]["uid"] for panel in dashboard()["panels"] if panel["type"] != "row"]
    sources += [each["datasource"]["uid"] for each in dashboard()["templating"]["list"] if each["type"] == "query"]
    assert set(sources) == {"${datasource}"}
