"""PostgreSQL of every version that the README names."""

import json
import platform
import sys
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from local.postgres import PROGRAMS, Postgres
from tests.support import MEMORY, Urls, copied, embedded, leave_out

OWN = "18"
"""The version that the product brings."""
PACKAGES = Path(__file__).parent / "server" / "node_modules"


def programs(version: str) -> Path:
    """Where the programs of a version are: the product's own, those of the system, or those of npm."""
    if version == OWN:
        return PROGRAMS
    if (place := Path(f"/usr/lib/postgresql/{version}/bin")).exists():
        return place
    machine = {"x86_64": "x64", "aarch64": "arm64", "arm64": "arm64"}.get(platform.machine(), platform.machine())
    package = PACKAGES / f"postgres-{version}-{sys.platform}-{machine}"
    if not package.exists():
        leave_out(f"PostgreSQL {version}")
    # A package holds no links; npm makes them in a step that it may leave out.
    for link in json.loads((package / "native" / "pg-symlinks.json").read_text()):
        if not (place := package / link["target"]).exists():
            place.symlink_to(Path(link["source"]).name)
    return package / "native" / "bin"


@pytest.fixture(scope="module", params=["15", "16", "17", OWN])
def server(request: pytest.FixtureRequest) -> Iterator[Postgres]:
    """A server of the version, whose database `temperature` is migrated and stays empty."""
    version: str = request.param
    with (
        tempfile.TemporaryDirectory(prefix="temperature-version-", dir=MEMORY) as folder,
        embedded(Path(folder) / "postgres", log=Path(folder) / "log", programs=programs(version)) as running,
    ):
        assert (Path(folder) / "postgres" / "PG_VERSION").read_text().strip() == version
        yield running


_numbers = count(1)


@pytest.fixture
def urls(server: Postgres) -> Iterator[Urls]:
    """A database of its own, migrated and empty."""
    with copied(server, f"test_{next(_numbers)}") as found:
        yield found
