"""The functions behind one address, each served by functions-framework's own ASGI application."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from local import visitors
from local.visitors import Application, Message, Receive, Send
from shared import access, answers, edge, prefix, server
from shared.description import adapted

FUNCTIONS = Path(__file__).parent.parent / "functions"


def application(environments: Mapping[str, Mapping[str, str]]) -> Application:
    """One application for the functions named, each with its own environment, in which it reads its settings."""
    functions = {name: _function(name, environment) for name, environment in environments.items()}
    document = _document()

    async def gateway(scope: Message, receive: Receive, send: Send) -> None:
        path = prefix.without(scope["path"])
        answer = functions[_route(scope["method"], path)]
        if path == "/openapi.json" and scope["method"] in edge.GET:
            answer = answers.json(document)
        await answer(scope, receive, send)

    return visitors.only_own(gateway)


def _function(name: str, environment: Mapping[str, str]) -> Application:
    # functions-framework runs the file of a function, which can be told its settings by nothing but the environment.
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        return server.application(name, FUNCTIONS / name / "main.py")
    finally:
        os.environ.clear()
        os.environ.update(before)


def _document() -> dict[str, Any]:
    """The description of all functions at this address."""
    listed = {name: bool(access.tokens(name)) for name in ("READ_TOKENS", "WRITE_TOKENS")}
    document: dict[str, Any] = json.loads((Path(__file__).parent / "openapi.json").read_bytes())
    return adapted(
        document,
        lambda method, path: (
            access.is_for_admins(method, path)
            or listed["READ_TOKENS" if _route(method.upper(), path) == "average" else "WRITE_TOKENS"]
        ),
    )


def _route(method: str, path: str) -> str:
    """The function that a request is for. `/` is both: readings are posted to it, and people look at it."""
    path = path.rstrip("/")
    if path.split("/")[1:2] in (["simulate"], ["watch"]):
        return path.split("/")[1]
    if path in {"/temperature", "/v1/temperature"} or (path == "" and method not in {"GET", "HEAD"}):
        return "ingest"
    return "average"
