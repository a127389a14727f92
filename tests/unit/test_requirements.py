"""The pinned packages exist, as wheels, for the platforms and the Pythons that are promised."""

import re
from itertools import product
from pathlib import Path

import pytest

from tests.support import ROOT, python

LOCAL = "local/requirements.txt"
"""It has what every function imports."""
FOLDERS = ("functions/*", "migrations")
FILES = [str(file.relative_to(ROOT)) for folder in FOLDERS for file in sorted(ROOT.glob(f"{folder}/requirements.txt"))]
PLATFORMS = ("aarch64-manylinux_2_28", "x86_64-manylinux_2_28", "aarch64-apple-darwin", "x86_64-apple-darwin")
PYTHONS = ("3.11", "3.12", "3.13", "3.14")


def _packages(file: str) -> set[str]:
    return set(re.findall(r"^[\w.-]+==[^ ]+", (ROOT / file).read_text(), re.MULTILINE))


@pytest.mark.parametrize("file", FILES)
def test_every_package_has_one_version_everywhere(file: str) -> None:
    assert set() < _packages(file) <= _packages(LOCAL) <= _packages("requirements-dev.txt")


@pytest.mark.parametrize(("platform", "version"), [*product(PLATFORMS, PYTHONS)])
def test_every_package_has_a_wheel(platform: str, version: str, tmp_path: Path) -> None:
    run = python(
        *("-m", "uv", "pip", "install", "--dry-run", "--target", str(tmp_path), "--requirement", LOCAL),
        *("--no-deps", "--require-hashes", "--only-binary", ":all:"),
        *("--python-platform", platform, "--python-version", version),
    )
    assert run.returncode == 0, run.stderr
