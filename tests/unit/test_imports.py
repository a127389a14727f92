"""What a function loads when it starts. Every module is paid for at every cold start."""

import json
import re
from importlib.metadata import packages_distributions

import pytest

from tests.support import ROOT, python

# A function that is loaded and one request that it answers, as functions-framework does it; then the names of modules.
SCRIPT = """
import json, sys
from shared import server
server.configuration(server.application({name!r}, "functions/{name}/main.py")).load()
print(json.dumps(sorted({{module.partition(".")[0] for module in sys.modules}})))
"""
# Installed for their static files alone.
FILES = {"offapi", "youplot"}
FORBIDDEN = {
    "ingest": {"sqlalchemy", "alembic", "pydantic", "psycopg_pool", "requests", "tqdm", "average", "simulate", "watch"},
    "average": {"sqlalchemy", "alembic", "pydantic", "requests", "tqdm", "ingest", "simulate", "watch"},
    "simulate": {"sqlalchemy", "alembic", "pydantic", "psycopg", "psycopg_pool", "tqdm", "ingest", "average", "watch"},
    "watch": {
        "sqlalchemy",
        "alembic",
        "pydantic",
        "psycopg_pool",
        "requests",
        "tqdm",
        "ingest",
        "average",
        "simulate",
    },
}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_a_function_loads_only_what_it_uses(name: str) -> None:
    run = python("-c", SCRIPT.format(name=name))
    assert run.returncode == 0, run.stderr
    loaded = set(json.loads(run.stdout))
    assert {"starlette", "shared"} <= loaded
    assert loaded & (FORBIDDEN[name] | FILES) == set()


# As if these packages were not installed.
WITHOUT = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Missing())
"""


@pytest.mark.parametrize(
    ("folder", "script"),
    [
        *((f"functions/{name}", f"{SCRIPT.format(name=name)}import {name}.main") for name in FORBIDDEN),
        ("migrations", "import migrations.__main__"),
    ],
    ids=[*FORBIDDEN, "migrations"],
)
def test_an_image_has_the_packages_that_it_loads(folder: str, script: str) -> None:
    listed = set(re.findall(r"^([\w.-]+)==", (ROOT / folder / "requirements.txt").read_text(), re.MULTILINE))
    missing = {
        module
        for module, distributions in packages_distributions().items()
        if not {distribution.lower().replace("_", "-") for distribution in distributions} & listed
    }
    assert {"pytest", "hypothesis"} <= missing
    run = python("-c", WITHOUT.format(names=missing) + script)
    assert run.returncode == 0, run.stderr
