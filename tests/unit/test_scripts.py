"""The shell scripts do not do what shells are known for."""

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
    scripts = sorted(ROOT.glob("kind/*.sh"))
    assert scripts
    run = subprocess.run(
        [SHELLCHECK, "--shell", "bash", "--severity", "warning", "--external-sources", ".ci/run", *scripts],
        capture_output=True,
        check=False,
        cwd=ROOT,
        text=True,
    )
    assert run.returncode == 0, run.stdout
