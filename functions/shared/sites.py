"""Keeps pages of other sites from writing: a page can send requests in the name of its reader."""

import functools
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response

from shared import origins
from shared.edge import Function, headers
from shared.problems import Problem

OWN_FETCH_SITES = (b"same-origin", b"none")
"""What a browser says (Fetch Metadata) of a request that comes from our own page, or from the address bar."""


def no_foreign_pages(function: Function) -> Function:
    """Have the function answer only what no page of another site asked for; that is Problem 403.

    Today's browsers say where a request comes from, if they send it to an https address or to this machine. Other
    programs do not say it. Without this check, any page could write to a function that needs no token: a browser sends
    some bodies to any address without asking.
    """
    allowed = origins.load()

    @functools.wraps(function)
    async def guarded(request: Request) -> Response:
        is_foreign = any(
            name == b"sec-fetch-site" and value not in OWN_FETCH_SITES for name, value in request.scope["headers"]
        )
        if is_foreign and not origins.listed(headers(request).get("origin", ""), allowed):
            raise foreign_page()
        return await function(request)

    return guarded


def foreign_page() -> Problem:
    """The refusal of a page of another site."""
    return Problem(
        HTTPStatus.FORBIDDEN,
        "A page of another site may not do this; list its origin in CORS_ORIGINS if it is to",
        reason="other_site",
    )
