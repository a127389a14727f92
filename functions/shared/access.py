"""Who may use a function: clients with a bearer token (RFC 6750) that a setting lists."""

import os
from collections.abc import Sequence
from hmac import compare_digest
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response

from shared import settings
from shared.edge import Function
from shared.problems import Problem

LEAST_TOKEN_CHARACTERS = 16


def tokens(name: str, without: str = "let everybody in") -> Sequence[bytes]:
    """The tokens that a setting lists.

    `without` is what to unset it does, which is said of one that is empty.
    To change a token, the new one is listed beside the old one until all clients have it. Raises SettingError for a
    setting that is there and empty, such as a secret that was not filled in, and for a token that somebody could guess.
    """
    found = settings.words(name)
    if name in os.environ and not found:
        raise settings.SettingError(f"{name} is empty. List a token, or unset it to {without}")
    if any(len(token) < LEAST_TOKEN_CHARACTERS or not token.isascii() for token in found):
        raise settings.SettingError(
            f"{name} lists a token that is not of {LEAST_TOKEN_CHARACTERS} characters or more, all of them ASCII."
            " Make one, such as: openssl rand -hex 32"
        )
    return [token.encode() for token in found]


def needs_token(allowed: Sequence[bytes], function: Function) -> Function:
    """Have the function answer only requests with one of the tokens, if there are any; others are Problem 401."""
    return only_with_token(allowed, function) if allowed else function


def only_with_token(allowed: Sequence[bytes], function: Function) -> Function:
    """Have the function answer only requests with one of the tokens; others are Problem 401."""

    async def guarded(request: Request) -> Response:
        scheme, token = _credentials(request)
        # All are compared, each in the same time: how long it takes says nothing about how much is right.
        matches = [compare_digest(token, each) for each in allowed]
        if scheme.lower() == "bearer" and any(matches):
            return await function(request)
        challenge = 'Bearer error="invalid_token"' if scheme.lower() == "bearer" else "Bearer"
        raise Problem(
            HTTPStatus.UNAUTHORIZED,
            "A token is needed that allows this; send it as Authorization: Bearer TOKEN",
            headers={"WWW-Authenticate": challenge},
        )

    return guarded


def is_for_admins(method: str, path: str) -> bool:
    """Whether a request always needs one of ADMIN_TOKENS: those that remove readings, or list removals, do."""
    return method.upper() == "DELETE" or path == "/v1/temperature/removals"


def fingerprint(request: Request) -> str:
    """12 digits of the SHA-256 of a request's token. They tell tokens apart, and do not lead back to one."""
    # Only few requests need it.
    from hashlib import sha256

    return sha256(_credentials(request)[1]).hexdigest()[:12]


def _credentials(request: Request) -> tuple[str, bytes]:
    """The scheme of authorization, and the token."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return scheme, token.strip().encode()
