"""What the documentation and `make run` tell users to type works when it is typed, and their links lead somewhere."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.postgres import PROGRAMS
from tests.local.machine import place, running
from tests.stack import Stack
from tests.support import DOCUMENTS, ROOT, program

HERE = "http://localhost:8080"
# To read and to write takes none, to remove readings takes one.
TOKEN = "an-admin-token-0123456789"
# Every answer that is no success is a failure here.
CURL = 'curl() { command curl --fail-with-body -sS "$@"; }\n'


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    program("curl")
    with place() as folder, running(folder / "data", ADMIN_TOKENS=TOKEN) as stack:
        stack.wait_for("Log in ")
        yield stack


def commands() -> list[str]:
    found = (re.findall(r"^```sh\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL) for path in DOCUMENTS)
    return [block for blocks in found for block in blocks if HERE in block]


def run(command: str) -> str:
    done = subprocess.run(
        ["bash", "-ec", CURL + command],
        capture_output=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "ADMIN_TOKENS": TOKEN},
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("command", commands(), ids=range(len(commands())))
def test_a_command_of_the_documentation_works(stack: Stack, command: str) -> None:
    command = command.replace(HERE, stack.address).replace(".venv/bin/python", sys.executable)
    # A week of a room takes a while.
    assert run(command.replace("--backfill 7d", "--backfill 1h"))


def test_the_way_into_the_database_works(stack: Stack) -> None:
    (command,) = re.findall(r"`(psql .+?)`", (ROOT / "README.md").read_text())
    psql = PROGRAMS / "psql"
    command = command.replace("data/postgres", str(stack.folder / "postgres"), 1)
    assert run(command.replace("psql", str(psql), 1) + " -Atc 'SELECT 6 * 7'") == "42\n"


def test_what_it_prints_works_when_it_is_pasted(stack: Stack) -> None:
    printed = "\n".join(stack.lines)
    found = re.findall(r"^  (\w+) +(curl (?:.*\\\n)*.*)$", printed, re.MULTILINE)
    assert [name for name, _ in found] == ["Average", "Series", "Rooms", "Send"]
    for _, command in found:
        assert "detail" not in json.loads(run(command))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_link_leads_to_a_file_or_a_heading(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        path = (document.parent / name) if name else document
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}, target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_target_of_make_exists(document: Path) -> None:
    text = document.read_text()
    named = set(re.findall(r"(?:^|`)make ([a-z0-9]+)", text, re.MULTILINE))
    existing = set(re.findall(r"^([a-z0-9]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert named <= existing


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_that_is_named_exists(document: Path) -> None:
    named = re.findall(
        r"`((?:tests|functions|kind|knative|docs|bench|local|migrations)/[\w./]+)`", document.read_text()
    )
    for path in named:
        assert list(ROOT.glob(path.rstrip("/"))), path
