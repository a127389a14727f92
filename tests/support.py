"""What tests say to a database from outside of the functions."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from alembic import command

import migrations.__main__ as migrations
from migrations.edition import Edition

ROOT = Path(__file__).parent.parent
SUPERUSER = "postgres"
Urls = Callable[[str], str]
"""The connection string for a role."""


def migrate(url: str) -> Edition:
    """Run the migrations as an operator does."""
    with _database(url):
        return migrations.main()


def alembic(url: str, name: str, *arguments: str) -> None:
    """Run a command of Alembic."""
    with _database(url):
        getattr(command, name)(migrations.config(), *arguments)


@contextmanager
def _database(url: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", url)
        yield


def python(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run Python in the root of the project, as the README has users do, with these variables set."""
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "functions:.", **environment},
        text=True,
    )
