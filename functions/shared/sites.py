"""Keeps pages of other sites from writing with the browser of whoever opens them."""

import functools
from collections.abc import Collection, Sequence
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response

from shared import origins
from shared.edge import Function
from shared.problems import Problem

OWN = (b"same-origin", b"none")
"""What a browser says of a request (Fetch Metadata) that a page of ours or the person at it makes."""


def own(function: Function) -> Function:
    """Have the function answer only what no page of another site asked for; that is Problem 403.

    Every browser of these years says where a request comes from, to an https address and to this machine; programs that
    are no browser do not. Whoever is let in by a name of its own, and not by a token, is written to by pages otherwise:
    a browser sends some bodies to any address without asking.
    """
    allowed = [origin.encode() for origin in origins.load()]

    @functools.wraps(function)
    async def guarded(request: Request) -> Response:
        headers = request.scope["headers"]
        for name, value in headers:
            if name == b"sec-fetch-site" and value not in OWN and not listed(_origin(headers), allowed):
                raise foreign()
        return await function(request)

    return guarded


def foreign() -> Problem:
    """The refusal of a page of another site."""
    return Problem(
        HTTPStatus.FORBIDDEN,
        "A page of another site may not do this; list its origin in CORS_ORIGINS if it is to",
        reason="other_site",
    )


def listed(origin: bytes, allowed: Collection[bytes]) -> bool:
    """Whether the origin is one of those allowed."""
    return origin in allowed or b"*" in allowed


def _origin(headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    return next((value for name, value in headers if name == b"origin"), b"")
