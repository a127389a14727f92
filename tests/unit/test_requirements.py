"""The pinned packages exist, as wheels, for the platforms that are promised."""

from pathlib import Path

import pytest

from tests.support import ROOT, python

FOLDERS = ("functions/*", "migrations", "local")
FILES = [str(file.relative_to(ROOT)) for folder in FOLDERS for file in sorted(ROOT.glob(f"{folder}/requirements.txt"))]
LINUX = ("aarch64-manylinux_2_28", "x86_64-manylinux_2_28")
MACOS = ("aarch64-apple-darwin", "x86_64-apple-darwin")
CASES = [(file, platform) for file in FILES for platform in (LINUX + MACOS if file.startswith("local") else LINUX)]


@pytest.mark.parametrize(("file", "platform"), CASES)
def test_every_package_has_a_wheel(file: str, platform: str, tmp_path: Path) -> None:
    run = python(
        *("-m", "uv", "pip", "install", "--dry-run", "--target", str(tmp_path), "--requirement", file),
        *("--no-deps", "--require-hashes", "--only-binary", ":all:"),
        *("--python-platform", platform, "--python-version", "3.13"),
    )
    assert run.returncode == 0, run.stderr
