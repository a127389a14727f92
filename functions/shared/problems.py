"""Errors as a client sees them: RFC 9457 problem details, and nothing of the inside."""

import functools
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import TypedDict

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

Function = Callable[[Request], Awaitable[Response]]

log = logging.getLogger("problems")


class Fault(TypedDict):
    """One thing wrong with a request: which reading (0 is the first), which field of it, and what it must be."""

    index: int
    field: str
    message: str


class Problem(Exception):
    """An answer other than success, raised anywhere below a function's edge.

    `detail` is read by the client: it says what to fix or when to come back.
    """

    def __init__(
        self,
        status: HTTPStatus,
        detail: str,
        *,
        faults: Sequence[Fault] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.faults = faults
        self.headers = headers

    def response(self) -> JSONResponse:
        """The answer as `application/problem+json`."""
        body: dict[str, object] = {
            "type": "about:blank",
            "title": self.status.phrase,
            "status": self.status.value,
            "detail": self.detail,
        }
        if self.faults:
            body["errors"] = list(self.faults)
        return JSONResponse(body, self.status, self.headers, media_type="application/problem+json")


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


def unavailable(detail: str, retry_after: int = 1) -> Problem:
    """503: the request was fine, and may be sent again after `retry_after` seconds."""
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers={"Retry-After": str(retry_after)})


def method_not_allowed(request: Request, *allowed: str) -> Problem:
    """405 with the methods that are allowed here."""
    methods = ", ".join(allowed)
    return Problem(
        HTTPStatus.METHOD_NOT_ALLOWED, f"{request.url.path} takes {methods} only", headers={"Allow": methods}
    )


def not_found(request: Request) -> Problem:
    """404: this function has nothing at the path."""
    return Problem(HTTPStatus.NOT_FOUND, f"There is nothing at {request.url.path}")
