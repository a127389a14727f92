"""The HTTP edge of every function."""

import asyncio
import functools
import gc
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from time import perf_counter
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes
from uuid import uuid4

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response

from shared import answers, origins, prefix
from shared.logs import MOST_LOGGED_CHARACTERS
from shared.metrics import REQUESTS
from shared.problems import Problem, stopping

Function = Callable[[Request], Awaitable[Response]]
GET, POST, DELETE = ("GET", "HEAD"), ("POST",), ("DELETE",)


class Route(NamedTuple):
    """The methods that are allowed at a path, and what answers them."""

    methods: tuple[str, ...]
    function: Function


Routes = Mapping[str, Route]
"""By their paths, without a slash at the end. With one, a path stands for everything below it."""

MOST_QUERY_PARAMETERS = 50
"""Of a query string."""

log = logging.getLogger("edge")


def answered(function: Function) -> Function:
    """Make a function answer whatever happens: a Problem as that problem, anything else as a 500 that says nothing.

    Answers are counted by their status, and where that does not say enough by the reason. Each has a line in the log:
    at level debug if all went well, info if the request was refused, warning if the function is at fault. An answer
    other than success has the id of its request. Pages of the origins that CORS_ORIGINS lists may read all of them.
    """
    # Looked up once for each: that takes longer than counting.
    requests = functools.cache(lambda status, reason: REQUESTS.labels(function.__name__, status, reason))
    allowed = origins.load()

    @functools.wraps(function)
    async def answering(request: Request) -> Response:
        started = perf_counter()
        ended: BaseException | None = None
        failure: BaseException | None = None
        reason = ""
        try:
            response = await function(request)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - every request is answered
            ended = error
            problem, failure = _problem(error)
            response, reason = problem.response(), problem.reason
        status = int(response.status_code)
        requests(status, reason).inc()
        if status >= HTTPStatus.BAD_REQUEST:
            response.headers["x-request-id"] = _log(request, status, started, failure)
        elif log.isEnabledFor(logging.DEBUG):
            _log(request, status, started, None)
        if allowed:
            origins.allow(headers(request), response, allowed)
        if ended is not None:
            _forget_frames(ended)
        return response

    return answering


def _problem(error: BaseException) -> tuple[Problem, BaseException | None]:
    """The problem that answers a request which ended with the error, and what is to be logged of it."""
    if isinstance(error, Problem):
        return error, error.__cause__
    if isinstance(error, asyncio.CancelledError):
        # The server ends, and waits no longer.
        return stopping(), error
    return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "The request could not be handled"), error


def _forget_frames(error: BaseException) -> None:
    """Part an error, and those behind it, from the frames that they went through.

    Frames hold what the client sent, and some of them the error. Both would wait for garbage collection, which is rare,
    and an error of pydantic's has what was sent as Python's objects, of up to a hundred times the memory.
    """
    behind: BaseException | None = error
    while behind is not None:
        behind.__traceback__ = None
        behind = behind.__cause__ or behind.__context__


def _log(request: Request, status: int, started: float, failure: BaseException | None) -> str:
    """Write the line of a request, and return its id."""
    received = headers(request)
    fields = {
        "request_id": _request_id(received),
        # Of an event in binary mode, as Knative delivers all.
        "cloudevent_id": received["ce-id"][:MOST_LOGGED_CHARACTERS] if "ce-id" in received else None,
        "method": request.method,
        # As it was sent, encoded: decoded, it could hold the end of the line.
        "path": request.scope.get("raw_path", b"")[:MOST_LOGGED_CHARACTERS].decode("latin-1"),
        "status": status,
        "duration_ms": round(1000 * (perf_counter() - started), 3),
        # The database adds all of the statement that it was at.
        "cause": failure and repr(failure)[:MOST_LOGGED_CHARACTERS],
    }
    unexpected = status == HTTPStatus.INTERNAL_SERVER_ERROR
    extra = {"fields": fields}
    log.log(_level(status), "%s", _line(fields), exc_info=failure if unexpected else None, extra=extra)
    return str(fields["request_id"])


def _request_id(received: Mapping[str, str]) -> str:
    """That of the gateway or client (X-Request-Id), or a new one."""
    request_id = received.get("x-request-id", "")
    return request_id if re.fullmatch(r"[\w.:/+=-]{1,128}", request_id, re.ASCII) else uuid4().hex


def _line(fields: Mapping[str, Any]) -> str:
    """The fields in words."""
    words = "{method} {path} answered {status} in {duration_ms:.1f} ms, request {request_id}"
    if fields["cloudevent_id"] is not None:
        words += ", event {cloudevent_id!r}"
    if fields["cause"]:
        words += ": {cause}"
    return words.format(**fields)


def _level(status: int) -> int:
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return logging.ERROR
    if status < HTTPStatus.BAD_REQUEST:
        return logging.DEBUG
    # 501 is for what nobody has to understand.
    refused = status < HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.NOT_IMPLEMENTED
    return logging.INFO if refused else logging.WARNING


def by_method(*routes: Route) -> Route:
    """One route of several, each of which has methods of its own."""
    functions = {method: route.function for route in routes for method in route.methods}

    async def answer(request: Request) -> Response:
        return await functions[request.method](request)

    return Route(tuple(functions), answer)


async def route(request: Request, routes: Routes) -> Response:
    """Have the function answer that the request's path names.

    Raises Problem 404, 405 with the methods allowed, or the one with which the server refuses the request.
    """
    if refusal := request.scope.get("refusal"):
        raise refusal
    path = prefix.without(request.scope["path"])
    found = routes.get(path.rstrip("/")) or routes.get(f"/{path[1:].partition('/')[0]}/")
    if found is None:
        raise Problem(HTTPStatus.NOT_FOUND, f"There is nothing at {path}")
    if request.method not in found.methods:
        if request.method == "OPTIONS":
            return origins.options(headers(request), found.methods)
        allowed = origins.allow_header(found.methods)
        raise Problem(HTTPStatus.METHOD_NOT_ALLOWED, f"{path} takes {allowed} only", headers={"Allow": allowed})
    return await found.function(request)


def has_preference(value: str, name: str) -> bool:
    """Whether a header Prefer (RFC 7240) names the preference, among others or with parameters."""
    return any(re.split("[;=]", each, maxsplit=1)[0].strip().lower() == name for each in value.split(","))


def query(request: Request) -> QueryParams:
    """The parameters of the query string.

    Raises Problem 422, before it costs anything, if there are too many, or if they are not UTF-8: starlette would put
    other characters in the place of what is not.
    """
    sent = request.scope["query_string"]
    if sent.count(b"&") >= MOST_QUERY_PARAMETERS:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"A question has at most {MOST_QUERY_PARAMETERS} parameters")
    if not _is_encoded(sent):
        raise Problem(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "The query string is not percent-encoded UTF-8; B\u00fcro is to be sent as B%C3%BCro",
        )
    return request.query_params


def _is_encoded(sent: bytes) -> bool:
    """Whether a query string is percent-encoded UTF-8 (RFC 3986, 2.5)."""
    try:
        unquote_to_bytes(sent).decode()
    except UnicodeDecodeError:
        return False
    return sent.isascii()


def collect_garbage_rarely() -> None:
    """Have garbage collected more rarely, and never what is loaded by now. For a function to call when it starts.

    A full collection looks through every object: 13 ms in which no request is answered, several times a second under
    load. Requests leave next to no cycles behind, which are all that the collector is there for.
    """
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


async def health(_: Request) -> Response:
    """Say that the function is alive, whatever the database or the sink is."""
    return answers.json({"status": "ok", "message": "Service is healthy"})


def headers(request: Request) -> dict[str, str]:
    """The headers by their names in lower case; starlette's own look through all of them for each name."""
    sent = request.scope["headers"]
    found = {name.decode("latin-1"): value.decode("latin-1") for name, value in sent}
    if len(found) < len(sent):
        # One that is there several times is a list (RFC 9110, 5.3).
        values: dict[str, list[str]] = {}
        for name, value in sent:
            values.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
        found = {name: ", ".join(each) for name, each in values.items()}
    return found
