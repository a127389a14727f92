"""`python -m openapi`: write the descriptions that are committed, of each function and of all behind one address."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import openapi.average
import openapi.ingest
import openapi.simulate
import openapi.watch
from openapi.document import together
from openapi.watch import event_schema

ROOT = Path(__file__).parent.parent


def descriptions() -> Mapping[Path, str]:
    """What each file holds."""
    modules = (openapi.average, openapi.ingest, openapi.simulate, openapi.watch)
    documents = {module.__name__.rpartition(".")[2]: module.document() for module in modules}
    # `make run` has all of them behind one address, where `average` answers what every function does.
    whole = together("Temperature monitoring", "Readings in, averages out.", documents.values())
    files = {ROOT / "functions" / name / "openapi.json": document for name, document in documents.items()}
    files |= {ROOT / "local" / "openapi.json": whole, ROOT / "functions" / "watch" / "alarm.v1.json": event_schema()}
    return {path: _text(document) for path, document in files.items()}


def _text(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for path, text in descriptions().items():
        path.write_text(text)
