"""What a function loads when it starts. Every module is paid for at every cold start."""

import json

import pytest

from tests.support import python

# A function that is loaded and one request that it answers, as functions-framework does it; then the names of modules.
SCRIPT = """
import json, sys
from functions_framework.aio import create_asgi_app
app = create_asgi_app({name!r}, "functions/{name}/main.py", "http")
print(json.dumps(sorted({{module.partition(".")[0] for module in sys.modules}})))
"""
# Installed for their static files alone, and what those packages bring.
FILES = {"fastapi", "fastapi_offline", "opentelemetry", "youplot"}
FORBIDDEN = {
    "ingest": {"sqlalchemy", "alembic", "pydantic", "psycopg_pool", "requests", "tqdm", "average", "simulate"},
    "average": {"sqlalchemy", "alembic", "pydantic", "requests", "tqdm", "ingest", "simulate"},
    "simulate": {"sqlalchemy", "alembic", "pydantic", "psycopg", "psycopg_pool", "tqdm", "ingest", "average"},
}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_a_function_loads_only_what_it_uses(name: str) -> None:
    run = python("-c", SCRIPT.format(name=name))
    assert run.returncode == 0, run.stderr
    loaded = set(json.loads(run.stdout))
    assert {"starlette", "shared"} <= loaded
    assert loaded & (FORBIDDEN[name] | FILES) == set()
