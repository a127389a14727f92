"""The pipeline runs what it names by version, and what the scripts name."""

import re
from collections.abc import Iterator
from typing import Any

import yaml

from tests.support import ROOT

FILES = [ROOT / ".github/workflows/pipeline.yml", ROOT / ".github/actions/setup-environment/action.yaml"]
PIPELINE = yaml.safe_load(FILES[0].read_text())


def _setting(name: str) -> str:
    settings = (ROOT / "kind/settings.sh").read_text()
    (value,) = re.findall(rf'^: "\$\{{{name}:=(.+)\}}"$', settings, re.MULTILINE)
    return str(value)


def _systems(job: dict[str, Any]) -> Iterator[str]:
    named = job["runs-on"]
    yield from job["strategy"]["matrix"]["os"] if named == "${{ matrix.os }}" else [named]


def test_each_action_is_one_commit_with_the_version_that_it_is_of() -> None:
    used = [use for file in FILES for use in re.findall(r"uses: (.+)", file.read_text())]
    assert len(used) > 10
    for use in used:
        assert use == "./.github/actions/setup-environment" or re.fullmatch(
            r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", use
        )
    # One version of each.
    assert len({use.partition("@")[0] for use in used}) == len(set(used))


def test_each_system_has_a_version_and_arm64_is_one_of_them() -> None:
    for name in ("tests", "timescaledb", "cluster"):
        assert {"ubuntu-24.04", "ubuntu-24.04-arm"} <= set(_systems(PIPELINE["jobs"][name]))
    for job in PIPELINE["jobs"].values():
        assert not any(system.endswith("latest") for system in _systems(job))
        assert job["timeout-minutes"]


def test_timescaledb_is_tried_with_the_image_that_the_clusters_database_takes_it_from() -> None:
    runs = [step.get("run", "") for step in PIPELINE["jobs"]["timescaledb"]["steps"]]
    (start,) = [run for run in runs if "docker run" in run]
    assert start.startswith(". kind/settings.sh\n")
    assert '"$TIMESCALEDB_IMAGE"' in start
    major = yaml.safe_load((ROOT / "knative/database/postgresql.yaml").read_text())["spec"]["postgresql"]["version"]
    assert f"timescale/timescaledb-ha:pg{major}." in _setting("TIMESCALEDB_IMAGE")
    assert f"spilo-{major}:" in _setting("SPILO_IMAGE")
    assert _setting("TIMESCALEDB_IMAGE") in (ROOT / "docs/performance.md").read_text()


def _numbers(version: str) -> list[int]:
    return [int(number) for number in version.removeprefix("v").split(".")]


def test_the_cluster_of_the_pipeline_is_one_that_the_script_takes() -> None:
    (tools,) = [step["with"] for step in PIPELINE["jobs"]["cluster"]["steps"] if "kind-action" in step.get("uses", "")]
    (least,) = re.findall(r"([\d.]+) \"\$\(kind version --quiet\)\" \| sort", (ROOT / "kind/up.sh").read_text())
    assert _numbers(tools["version"]) >= _numbers(least)
    assert re.fullmatch(r"v1\.\d+\.\d+", tools["kubectl_version"])


def test_each_overlay_is_tried_on_a_cluster() -> None:
    overlays = {folder.name for folder in (ROOT / "knative/overlays").iterdir()} - {"example", "local"}
    assert set(PIPELINE["jobs"]["cluster"]["strategy"]["matrix"]["overlay"]) == overlays


def test_what_went_wrong_is_kept() -> None:
    kept = {
        name: step["if"]
        for name, job in PIPELINE["jobs"].items()
        for step in job["steps"]
        if "upload-artifact" in step.get("uses", "")
    }
    assert kept == {"cluster": "always()"} | dict.fromkeys(("tests", "clients", "timescaledb"), "failure()")
