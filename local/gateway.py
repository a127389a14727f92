"""The functions behind one address, each served by functions-framework's own ASGI application."""

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from local import visitors
from shared import access, description, edge, prefix, server
from shared.metrics import metrics

FUNCTIONS = Path(__file__).parent.parent / "functions"
_DOCUMENT = Path(__file__).parent / "openapi.json"
"""The description of all functions at one address."""
_TOKENS = ("READ_TOKENS", "WRITE_TOKENS")


def application(environments: Mapping[str, Mapping[str, str]]) -> ASGIApp:
    """One application for the functions named, each with its own environment, in which it reads its settings."""
    functions = {name: _function(name, environment) for name, environment in environments.items()}
    listed = {name: access.tokens(name) for name in _TOKENS}
    # What is about all functions, and so for whoever has a token of any.
    own: edge.Routes = {
        "": edge.Route((*edge.GET, *edge.POST), _answered_elsewhere),
        "/metrics": edge.Route(
            edge.GET, access.needs_token([each for some in listed.values() for each in some], metrics)
        ),
        "/openapi.json": edge.Route(edge.GET, description.answering(_DOCUMENT, partial(_needs_token, listed))),
    }

    @visitors.application
    async def gateway(request: Request) -> Response:
        return await edge.route(request, own)

    def _is_own(scope: Scope, path: str) -> bool:
        # No function alone knows what all of them take at `/`.
        of_functions = "refusal" in scope or scope["method"] in own[""].methods
        path = path.rstrip("/")
        return path in own and not (path == "" and of_functions)

    async def routed(scope: Scope, receive: Receive, send: Send) -> None:
        path = prefix.without(scope["path"])
        answer = gateway if _is_own(scope, path) else functions[_route(scope["method"], path)]
        await answer(scope, receive, send)

    return visitors.only_own(routed)


async def _answered_elsewhere(_: Request) -> Response:
    raise AssertionError("The functions answer these methods")


def _function(name: str, environment: Mapping[str, str]) -> ASGIApp:
    # functions-framework runs the file of a function, which can be told its settings by nothing but the environment.
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        return server.application(name, FUNCTIONS / name / "main.py")
    finally:
        os.environ.clear()
        os.environ.update(before)


def _needs_token(listed: Mapping[str, Sequence[bytes]], method: str, path: str) -> bool:
    """Whether a request needs a token, if the settings list these."""
    if path == "/metrics":
        return any(listed.values())
    name = "READ_TOKENS" if _route(method.upper(), path) == "average" else "WRITE_TOKENS"
    return access.is_for_admins(method, path) or bool(listed[name])


def _route(method: str, path: str) -> str:
    """The function that a request is for. `/` is both: readings are posted to it, and people look at it."""
    path = path.rstrip("/")
    if path.split("/")[1:2] in (["simulate"], ["watch"]):
        return path.split("/")[1]
    if path in {"/temperature", "/v1/temperature"} or (path == "" and method not in {"GET", "HEAD"}):
        return "ingest"
    return "average"
