"""What tests say to a database from outside of the functions."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from alembic import command

import migrations.__main__ as migrations
from migrations.edition import Edition

ROOT = Path(__file__).parent.parent
SUPERUSER = "postgres"
Urls = Callable[[str], str]
"""The connection string for a role."""


def migrate(url: str) -> Edition:
    """Run the migrations as an operator does."""
    os.environ["DATABASE_URL"] = url
    return migrations.main()


def alembic(url: str, name: str, *arguments: str) -> None:
    """Run a command of Alembic."""
    os.environ["DATABASE_URL"] = url
    getattr(command, name)(migrations.config(), *arguments)


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
