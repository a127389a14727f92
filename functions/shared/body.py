"""Receives the body of a request from whoever sends it: slowly, without end, with many others, or not at all."""

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.requests import Request

from shared.problems import Problem, unavailable

BODY_SECONDS = 30
"""Seconds that a body may take to arrive: as long as Knative lets a request of `ingest` take."""
MOST_HELD = 64 * 1024 * 1024
"""Bytes of all bodies together that are still arriving: slow clients share them, and the memory is not theirs."""
MOST_DISCARDED, DISCARD_SECONDS = 64 * 1024 * 1024, 1
"""How much of a refused body is read for nothing: most clients look for the answer only when they have sent all."""


def length(headers: Mapping[str, str]) -> int:
    """The bytes of the body that the headers (names in lower case) declare, 0 if none."""
    declared = headers.get("content-length", "")
    return int(declared) if declared.isdecimal() else 0


async def receive(request: Request, headers: Mapping[str, str], most: int) -> bytes:
    """The whole body of a request with these headers (names in lower case).

    Raises Problem: 413 for one of more than `most` bytes, 415 for a compressed one, 408 for one that does not arrive in
    time, 503 if too many bodies are arriving, 400 if the client went away or the server lost it.

    Read from the server itself: starlette's stream takes longer for a small body than validating it.
    """
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "A body with a Content-Encoding cannot be read; send it as it is, not compressed",
            headers={"Accept-Encoding": "identity"},
        )
    if (declared := length(headers)) > most:
        # What is still to come is read by the server for nothing.
        raise _too_large(most, close=declared > MOST_DISCARDED)
    message = await request.receive()
    if message.get("more_body", False) or len(message.get("body", b"")) > most:
        return await _rest(request, message, most)
    _check(message)
    received = bytes(message.get("body", b""))
    if not received and "upgrade" in headers and ("transfer-encoding" in headers or declared):
        # https://github.com/Kludex/uvicorn/issues/2722
        raise Problem(HTTPStatus.BAD_REQUEST, "The body was lost with the offer of another protocol; send no Upgrade")
    return received


_held = 0
_BODIES_FULL = "Too many bodies are arriving; send it again in a second"


async def _rest(request: Request, message: Mapping[str, Any], most: int) -> bytes:
    """The body that begins with the message."""
    global _held
    received = bytearray()
    size = 0
    refusal: Problem | None = None
    try:
        async with asyncio.timeout(BODY_SECONDS) as limit:
            while True:
                _check(message)
                part = message.get("body", b"")
                size += len(part)
                if refusal is None and (size > most or _held + len(part) > MOST_HELD):
                    refusal = _too_large(most) if size > most else unavailable("bodies_full", _BODIES_FULL)
                    limit.reschedule(asyncio.get_running_loop().time() + DISCARD_SECONDS)
                    _held -= len(received)
                    received.clear()
                if refusal is None:
                    _held += len(part)
                    received += part
                elif size > MOST_DISCARDED:
                    refusal = _too_large(most, close=True)
                    break
                if not message.get("more_body", False):
                    break
                message = await request.receive()
    except TimeoutError:
        refusal = refusal or Problem(
            HTTPStatus.REQUEST_TIMEOUT,
            f"The body did not arrive within {BODY_SECONDS} seconds; send it in parts",
            headers={"Connection": "close"},
        )
    finally:
        _held -= len(received)
    if refusal:
        raise refusal
    return bytes(received)


def _too_large(most: int, *, close: bool = False) -> Problem:
    return Problem(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"A body holds at most {most} bytes; send it in parts",
        headers={"Connection": "close"} if close else None,
    )


def _check(message: Mapping[str, Any]) -> None:
    """Raises Problem 400 if the client went away: nobody reads it, and it is counted and logged as no fault of ours."""
    if message["type"] == "http.disconnect":
        raise Problem(HTTPStatus.BAD_REQUEST, "The client went away before the end of the body")
