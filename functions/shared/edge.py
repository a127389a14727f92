"""What the HTTP edges of the functions have in common."""

import functools
import logging
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from importlib import import_module

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from shared.problems import Problem

Function = Callable[[Request], Awaitable[Response]]
GET, POST = ("GET", "HEAD"), ("POST",)
Routes = Mapping[str, tuple[tuple[str, ...], Function]]
"""For each path, without a slash at its end: the methods allowed there, and what answers them."""

log = logging.getLogger("edge")


def answered(function: Function) -> Function:
    """Make a function answer whatever happens: a Problem as that problem, anything else as a 500 that says nothing."""

    @functools.wraps(function)
    async def answering(request: Request) -> Response:
        try:
            return await function(request)
        except Problem as problem:
            return problem.response()
        except Exception:
            log.exception("%s %s failed", request.method, request.url.path)
            return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "The request could not be handled").response()

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


async def health(_: Request) -> Response:
    """Say that the function is alive, whatever the database or the sink is."""
    return JSONResponse({"status": "ok", "message": "Service is healthy"})


def openapi(function: str) -> Function:
    """What answers with the description of a function, which its module `api` makes."""

    async def answer(_: Request) -> Response:
        # Describing an API needs pydantic, which no function needs for its work.
        return JSONResponse(import_module(f"{function}.api").document())

    return answer


async def body(request: Request, most: int) -> bytes:
    """The whole body. Raises Problem 413 as soon as it is known to be of more than `most` bytes."""
    declared = request.headers.get("content-length", "")
    size = int(declared) if declared.isdigit() else 0
    received = bytearray()
    if size <= most:
        async for part in request.stream():
            received += part
            if (size := len(received)) > most:
                break
    if size > most:
        raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"A body holds at most {most} bytes; send it in parts")
    return bytes(received)
