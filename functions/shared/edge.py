"""What the HTTP edges of the functions have in common."""

import functools
import gc
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from time import perf_counter
from uuid import uuid4

from pydantic_core import to_json
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response

from shared import origins, prefix
from shared.metrics import REQUESTS
from shared.problems import Problem

Function = Callable[[Request], Awaitable[Response]]
GET, POST, DELETE = ("GET", "HEAD"), ("POST",), ("DELETE",)
Routes = Mapping[str, tuple[tuple[str, ...], Function]]
"""For each path, without a slash at its end: the methods allowed there, and what answers them. With a slash at its end,
a path stands for everything below it."""

MOST_PARAMETERS = 50
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
        failure: BaseException | None = None
        reason = ""
        try:
            response = await function(request)
        except Problem as problem:
            failure = problem.__cause__
            response, reason = problem.response(), problem.reason
        except Exception as error:  # noqa: BLE001 - every request is answered
            failure = error
            response = Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "The request could not be handled").response()
        status = int(response.status_code)
        requests(status, reason).inc()
        if status >= HTTPStatus.BAD_REQUEST:
            response.headers["x-request-id"] = _log(request, status, started, failure)
        elif log.isEnabledFor(logging.DEBUG):
            _log(request, status, started, None)
        if allowed:
            origins.allow(headers(request), response, allowed)
        return response

    return answering


def _log(request: Request, status: int, started: float, failure: BaseException | None) -> str:
    """Write the line of a request, and return its id: that of the gateway or client (X-Request-Id), or a new one."""
    received = headers(request)
    request_id = received.get("x-request-id", "")
    if not re.fullmatch(r"[\w.:/+=-]{1,128}", request_id, re.ASCII):
        request_id = uuid4().hex
    fields = {
        "request_id": request_id,
        # Of an event in binary mode, as Knative delivers all.
        "cloudevent_id": received.get("ce-id"),
        "method": request.method,
        # As it was sent, encoded: decoded, it could hold the end of the line.
        "path": request.scope.get("raw_path", b"").decode("latin-1"),
        "status": status,
        "duration_ms": round(1000 * (perf_counter() - started), 3),
        "cause": failure and repr(failure),
    }
    words = "{method} {path} answered {status} in {duration_ms:.1f} ms, request {request_id}".format(**fields)
    if fields["cloudevent_id"] is not None:
        words += ", event {cloudevent_id!r}".format(**fields)
    if failure:
        words += f": {failure!r}"
    unexpected = status == HTTPStatus.INTERNAL_SERVER_ERROR
    log.log(_level(status), "%s", words, exc_info=failure if unexpected else None, extra={"fields": fields})
    return request_id


def _level(status: int) -> int:
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return logging.ERROR
    if status > HTTPStatus.INTERNAL_SERVER_ERROR:
        return logging.WARNING
    return logging.INFO if status >= HTTPStatus.BAD_REQUEST else logging.DEBUG


def by_method(*routes: tuple[tuple[str, ...], Function]) -> tuple[tuple[str, ...], Function]:
    """One route of several, each of which has methods of its own."""
    functions = {method: function for methods, function in routes for method in methods}

    async def answer(request: Request) -> Response:
        return await functions[request.method](request)

    return tuple(functions), answer


async def route(request: Request, routes: Routes) -> Response:
    """Have the request answered by whom its path names.

    Raises Problem 404, 405 with the methods allowed, or the one with which the server refuses the request.
    """
    if refusal := request.scope.get("refusal"):
        raise refusal
    path = prefix.without(request.scope["path"])
    found = routes.get(path.rstrip("/")) or routes.get(f"/{path[1:].partition('/')[0]}/")
    if found is None:
        raise Problem(HTTPStatus.NOT_FOUND, f"There is nothing at {path}")
    methods, function = found
    if request.method not in methods:
        if request.method == "OPTIONS":
            return origins.options(headers(request), methods)
        allowed = origins.allow_header(methods)
        raise Problem(HTTPStatus.METHOD_NOT_ALLOWED, f"{path} takes {allowed} only", headers={"Allow": allowed})
    return await function(request)


def prefers(value: str, name: str) -> bool:
    """Whether a header Prefer (RFC 7240) names the preference, among others or with parameters."""
    return any(re.split("[;=]", each, maxsplit=1)[0].strip().lower() == name for each in value.split(","))


def query(request: Request) -> QueryParams:
    """What the query string asks. Raises Problem 422 for one of more names than any question has, before it costs."""
    if request.scope["query_string"].count(b"&") >= MOST_PARAMETERS:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"A question has at most {MOST_PARAMETERS} parameters")
    return request.query_params


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


def json(content: object, status: HTTPStatus = HTTPStatus.OK) -> Response:
    """The answer that holds the content as JSON."""
    # Several times as fast as starlette's JSONResponse, which makes an encoder for each.
    return Response(to_json(content), status, media_type="application/json")


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
