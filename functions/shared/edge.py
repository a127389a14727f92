"""What the HTTP edges of the functions have in common."""

import functools
import gc
import logging
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from importlib import import_module

from pydantic_core import to_json
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from shared.metrics import REQUESTS
from shared.problems import Problem

Function = Callable[[Request], Awaitable[Response]]
GET, POST = ("GET", "HEAD"), ("POST",)
Routes = Mapping[str, tuple[tuple[str, ...], Function]]
"""For each path, without a slash at its end: the methods allowed there, and what answers them."""

log = logging.getLogger("edge")


def answered(function: Function) -> Function:
    """Make a function answer whatever happens: a Problem as that problem, anything else as a 500 that says nothing.

    Answers are counted by their status.
    """
    # Looked up once for each status: that takes longer than counting.
    requests = functools.cache(lambda status: REQUESTS.labels(function.__name__, status))

    @functools.wraps(function)
    async def answering(request: Request) -> Response:
        try:
            response = await function(request)
        except Problem as problem:
            response = problem.response()
        except Exception:
            log.exception("%s %s failed", request.method, request.url.path)
            response = Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "The request could not be handled").response()
        requests(int(response.status_code)).inc()
        return response

    return answering


async def route(request: Request, routes: Routes) -> Response:
    """Have the request answered by whom its path names. Raises Problem 404, or 405 with the methods allowed."""
    path = request.scope["path"]
    if (found := routes.get(path.rstrip("/"))) is None:
        raise Problem(HTTPStatus.NOT_FOUND, f"There is nothing at {path}")
    methods, function = found
    if request.method not in methods:
        allowed = ", ".join(methods)
        raise Problem(HTTPStatus.METHOD_NOT_ALLOWED, f"{path} takes {allowed} only", headers={"Allow": allowed})
    return await function(request)


def spare_collections() -> None:
    """Have garbage collected more rarely, and never what is loaded by now. For a function to call when it starts.

    A full collection looks through every object: 13 ms in which no request is answered, several times a second under
    load. Requests leave next to no cycles behind, which are all that the collector is there for.
    """
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


async def health(_: Request) -> Response:
    """Say that the function is alive, whatever the database or the sink is."""
    return json({"status": "ok", "message": "Service is healthy"})


def openapi(function: str) -> Function:
    """What answers with the description of a function, which its module `api` makes."""

    async def answer(_: Request) -> Response:
        # Describing an API needs pydantic, which no function needs for its work.
        return json(import_module(f"{function}.api").document())

    return answer


def json(content: object, status: HTTPStatus = HTTPStatus.OK) -> Response:
    """The answer that holds the content as JSON."""
    # Several times as fast as starlette's JSONResponse, which makes an encoder for each.
    return Response(to_json(content), status, media_type="application/json")


def headers(request: Request) -> dict[str, str]:
    """The headers by their names in lower case; starlette's own look through all of them for each name."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in request.scope["headers"]}


async def body(request: Request, most: int) -> bytes:
    """The whole body. Raises Problem 413 as soon as it is known to be of more than `most` bytes.

    Read from the server itself: starlette's stream takes longer for a small body than validating it.
    """
    received = bytearray()
    declared = dict(request.scope["headers"]).get(b"content-length", b"")
    size, more = int(declared) if declared.isdigit() else 0, True
    while more and size <= most:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        received += message.get("body", b"")
        size, more = len(received), message.get("more_body", False)
    if size > most:
        raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"A body holds at most {most} bytes; send it in parts")
    return bytes(received)
