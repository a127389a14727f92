"""What tests say to a database from outside of the functions."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

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


def alembic(url: str, *arguments: str) -> None:
    """Run an Alembic command as a contributor does. Raises CalledProcessError if it fails."""
    subprocess.run(
        [sys.executable, "-m", "alembic", *arguments],
        check=True,
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": url, "PYTHONPATH": "functions:."},
    )
