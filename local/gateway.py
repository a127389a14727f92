"""The functions behind one address, each served by functions-framework's own ASGI application."""

import os
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from functions_framework.aio import create_asgi_app
from starlette.responses import JSONResponse

import average.api
import ingest.api
import simulate.api
import watch.api
from shared import access

Message = MutableMapping[str, Any]
Application = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]

FUNCTIONS = Path(__file__).parent.parent / "functions"


def application(environments: Mapping[str, Mapping[str, str]]) -> Application:
    """One application for the functions named, each with its own environment, in which it reads its settings."""
    functions = {name: _function(name, environment) for name, environment in environments.items()}

    async def gateway(scope: Message, receive: Callable[[], Awaitable[Message]], send: Any) -> None:
        answer = functions[_route(scope["method"], scope["path"])]
        if scope["path"] == "/openapi.json" and scope["method"] == "GET":
            answer = JSONResponse(_document())
        await answer(scope, receive, send)

    return gateway


def _function(name: str, environment: Mapping[str, str]) -> Application:
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        function: Application = create_asgi_app(name, FUNCTIONS / name / "main.py", "http")
        return function
    finally:
        os.environ.clear()
        os.environ.update(before)


def _document() -> dict[str, Any]:
    """The descriptions of all functions as one."""
    read, write = (bool(access.tokens(name)) for name in ("READ_TOKENS", "WRITE_TOKENS"))
    documents = [
        average.api.document(token=read),
        ingest.api.document(token=write),
        simulate.api.document(token=write),
        watch.api.document(token=write),
    ]
    return {
        **documents[0],
        "info": {
            **documents[0]["info"],
            "title": "Temperature monitoring",
            "description": "Readings in, averages out.",
        },
        "paths": {path: item for document in documents for path, item in document["paths"].items()},
        "components": {
            kind: {name: each for document in documents for name, each in document["components"].get(kind, {}).items()}
            for kind in ("schemas", "securitySchemes")
        },
    }


def _route(method: str, path: str) -> str:
    """The function that a request is for. `/` is both: readings are posted to it, and people look at it."""
    path = path.rstrip("/")
    if path.split("/")[1:2] in (["simulate"], ["watch"]):
        return path.split("/")[1]
    if path in {"/temperature", "/v1/temperature"} or (path == "" and method not in {"GET", "HEAD"}):
        return "ingest"
    return "average"
