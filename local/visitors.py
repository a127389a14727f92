"""Who may use `make run`: programs and pages of this machine.

It listens at this machine's own addresses only, and yet a page from anywhere, open in a browser here, can send requests
to them, and can have a name of its own lead here (DNS rebinding). The browser says so, in headers that no page can set.
"""

import re
from collections.abc import Collection
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from shared import edge, origins, settings, sites
from shared.problems import Problem

OWN_NAMES = ("localhost", "127.0.0.1", "[::1]")
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_UNASKED_MEDIA_TYPES = {b"text/plain", b"application/x-www-form-urlencoded", b"multipart/form-data"}
"""A page may send these to any address without asking (Fetch, CORS-safelisted request-header)."""


def names() -> Collection[str]:
    """The names that it answers to: this machine's own, and those that ALLOWED_HOSTS adds, without a port.

    Raises SettingError for what is no name.
    """
    added = [name.lower() for name in settings.words("ALLOWED_HOSTS")]
    for name in added:
        if not re.fullmatch(r"[a-z0-9_.-]+|\[[0-9a-f:.]+\]", name):
            raise settings.SettingError(
                f"ALLOWED_HOSTS lists {name!r}, which is no name of a host. One is temperature.example.com, without a"
                " scheme and a port"
            )
    return {*OWN_NAMES, *(name.rstrip(".") for name in added)}


def only_own(served: ASGIApp) -> ASGIApp:
    """The application, for requests of this machine's own programs and pages only; others are answered 403 or 415."""
    own_names, allowed = names(), origins.load()

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        problem = _refusal(scope, own_names, allowed)
        await (_refused(problem) if problem else served)(scope, receive, send)

    return guarded


def application(function: edge.Function) -> ASGIApp:
    """An application of a function, whose answers are counted and logged as those of every other."""
    answered = edge.answered(function)

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await (await answered(Request(scope, receive)))(scope, receive, send)

    return answer


def _refused(problem: Problem) -> ASGIApp:
    @application
    async def gateway(_: Request) -> Response:
        raise problem

    return gateway


def _refusal(scope: Scope, own_names: Collection[str], allowed: Collection[str]) -> Problem | None:
    """Why a request is refused, if it is."""
    headers: dict[bytes, list[bytes]] = {}
    for name, value in scope["headers"]:
        headers.setdefault(name, []).append(value.strip().lower())
    hosts = headers.get(b"host", [])
    # A program may leave the header out (HTTP/1.0); a browser does not.
    if not all(_name(host) in own_names for host in hosts):
        return Problem(
            HTTPStatus.FORBIDDEN,
            f"This is answered at {', '.join(sorted(own_names))} only. If another name is to lead here, start it with"
            " ALLOWED_HOSTS=NAME",
            reason="other_host",
        )
    if scope["method"] in _SAFE_METHODS:
        return None
    # A browser that does not send Sec-Fetch-Site, which the functions look at.
    if b"sec-fetch-site" not in headers:
        for origin in headers.get(b"origin", []):
            if not origins.listed(origin.decode("latin-1"), allowed) and origin.partition(b"://")[2] not in hosts:
                return sites.foreign_page()
    kinds = {value.partition(b";")[0].strip() for value in headers.get(b"content-type", [])}
    if kinds & _UNASKED_MEDIA_TYPES and _has_body(headers):
        return Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "A body of this Content-Type is not taken, since any page can send it; send application/json",
        )
    return None


def _has_body(headers: dict[bytes, list[bytes]]) -> bool:
    return b"transfer-encoding" in headers or any(value.strip(b" 0") for value in headers.get(b"content-length", []))


def _name(host: bytes) -> str:
    """The name in a Host header, without the port."""
    text = host.decode("latin-1")
    bracketed = re.match(r"\[[^\]]*\]", text)
    return bracketed[0] if bracketed else text.partition(":")[0].rstrip(".")
