"""Who may call from elsewhere: web pages of other origins (CORS), and event sources that ask before they send."""

import re
from collections.abc import Collection, Mapping, Sequence
from http import HTTPStatus

from starlette.responses import Response

from shared import settings

# As a browser writes it: other letters as xn--, and no port that goes without saying.
_ORIGIN = r"(?!http://.*:80$|https://.*:443$)[a-z][a-z0-9+.-]*://(?:(?![/?#@A-Z])[!-~])+"
_PREFLIGHT_KEPT_SECONDS = 3600
_READABLE_HEADERS = "Allow, Retry-After, WWW-Authenticate, X-Request-Id"
"""Headers of answers that pages of other origins may read, beside those that they always may."""


def load() -> Sequence[str]:
    """The origins that CORS_ORIGINS lists; none by default.

    Raises SettingError for what no browser sends as an origin.
    """
    found = settings.words("CORS_ORIGINS")
    for origin in found:
        if origin != "*" and not re.fullmatch(_ORIGIN, origin):
            raise settings.SettingError(
                f"CORS_ORIGINS lists {origin!r}, which is no origin. List such as https://example.com, or * for all"
            )
    return found


def listed(origin: str, allowed: Collection[str]) -> bool:
    """Whether the origin is one of those that `load` found."""
    return origin in allowed or "*" in allowed


def allow_header(methods: Sequence[str]) -> str:
    """The header Allow of what answers these methods, and of itself OPTIONS."""
    return ", ".join((*methods, "OPTIONS"))


def options(headers: Mapping[str, str], methods: Sequence[str]) -> Response:
    """The answer to OPTIONS, from the headers of the request (names in lower case).

    A path that takes events lets every source send them: the handshake of HTTP 1.1 Web Hooks for Event Delivery, 4.
    """
    allowed = {"Allow": allow_header(methods)}
    if "POST" not in methods or "webhook-request-origin" not in headers:
        return Response(status_code=HTTPStatus.NO_CONTENT, headers=allowed)
    granted = {"WebHook-Allowed-Origin": headers["webhook-request-origin"], "WebHook-Allowed-Rate": "*"}
    return Response(status_code=HTTPStatus.OK, headers={**allowed, **granted})


def allow(headers: Mapping[str, str], response: Response, allowed: Sequence[str]) -> None:
    """Let the page read the answer that made a request with these headers, if its origin is one of those allowed.

    Of an answer to OPTIONS it reads what it may send (Fetch, 3.3.2). Cookies are none of it: nobody here reads one.
    """
    response.headers.add_vary_header("Origin")
    origin = headers.get("origin", "")
    if not origin or not listed(origin, allowed):
        return
    response.headers["Access-Control-Allow-Origin"] = origin
    response.headers["Access-Control-Expose-Headers"] = _READABLE_HEADERS
    if "access-control-request-method" in headers:
        response.headers["Access-Control-Allow-Methods"] = response.headers.get("Allow", "")
        response.headers["Access-Control-Allow-Headers"] = headers.get("access-control-request-headers", "")
        response.headers["Access-Control-Max-Age"] = str(_PREFLIGHT_KEPT_SECONDS)
