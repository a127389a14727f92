"""The description of a function's API, as it was written down when the function was built (`python -m openapi`)."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from pydantic_core import from_json, to_json
from starlette.requests import Request
from starlette.responses import Response

from shared import edge


def answering(file: Path, needs_token: Callable[[str, str], bool]) -> edge.Function:
    """A function that answers with the description in the file.

    `needs_token` says of a method and a path whether the settings list tokens for it.
    """
    document = cache(lambda: to_json(_adapted(from_json(file.read_bytes()), needs_token)))

    async def answer(_: Request) -> Response:
        return Response(document(), media_type="application/json")

    return answer


def _adapted(document: dict[str, Any], needs_token: Callable[[str, str], bool]) -> dict[str, Any]:
    """The description as it is true here: the API is beside it, and needs a token only where the settings list some."""
    document["servers"] = [{"url": "."}]
    secured = False
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if operation["security"] and needs_token(method, path):
                secured = True
            else:
                operation["security"] = []
                operation["responses"].pop("401", None)
    if not secured:
        del document["components"]["securitySchemes"]
    return document
