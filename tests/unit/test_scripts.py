"""The shell scripts do not do what shells are known for."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT

SHELLCHECK = shutil.which("shellcheck", path=str(Path(sys.executable).parent))


@pytest.mark.skipif(SHELLCHECK is None, reason="shellcheck comes with no package for this platform")
def test_shellcheck_has_nothing_to_warn_of() -> None:
    assert SHELLCHECK
    scripts = sorted([*ROOT.glob("kind/*.sh"), *ROOT.glob("knative/*/*.sh")])
    assert scripts
    run = subprocess.run(
        [SHELLCHECK, "--shell", "bash", "--severity", "warning", "--external-sources", ".ci/run", *scripts],
        capture_output=True,
        check=False,
        cwd=ROOT,
        text=True,
    )
    assert run.returncode == 0, run.stdout


def test_the_end_of_the_cluster_removes_of_what_was_built_only_its_own(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "kind", tmp_path / "kind")
    for name in (
        "build/images.yaml",
        "build/objects.yaml",
        "build/bench/singles.json",
        "programs/docker",
        "programs/kind",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}/programs:{os.environ['PATH']}"}
    subprocess.run(["bash", tmp_path / "kind/down.sh"], env=environment, check=True, capture_output=True)
    assert [file.name for file in (tmp_path / "build").iterdir()] == ["bench"]
    assert (tmp_path / "build/bench/singles.json").exists()
