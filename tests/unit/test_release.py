"""There is one version, and the change log says of each what changed and how to come to it."""

import re
import tomllib
from datetime import date

from tests.support import ROOT

HEADING = re.compile(r"^## (\d+)\.(\d+)\.(\d+) - (unreleased|\d{4}-\d{2}-\d{2})$", re.MULTILINE)
CHANGES = (ROOT / "CHANGELOG.md").read_text()
VERSIONS = [(tuple(int(part) for part in found[:3]), found[3]) for found in HEADING.findall(CHANGES)]
"""The newest first."""


def test_the_version_is_the_newest_of_the_change_log() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert version == ".".join(map(str, VERSIONS[0][0]))


def test_versions_are_in_order_and_only_the_newest_may_be_unreleased() -> None:
    assert len(VERSIONS) == CHANGES.count("\n## ") >= 2
    assert sorted(VERSIONS, reverse=True) == VERSIONS
    days = [date.fromisoformat(day) for _, day in VERSIONS if day != "unreleased"]
    assert len(days) >= len(VERSIONS) - 1
    assert sorted(days, reverse=True) == days


def test_each_version_but_the_first_says_how_to_come_to_it() -> None:
    *sections, _ = HEADING.split(CHANGES)[5::5]
    assert sections
    assert all("\n### Upgrading\n" in section for section in sections)
