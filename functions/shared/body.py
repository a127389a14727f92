"""Receives the body of a request from whoever sends it: slowly, without end, compressed, with many others, in part.

How long a request may take to arrive is the server's to know: `shared.server`.
"""

import asyncio
import zlib
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.requests import Request

from shared.problems import Problem, unavailable

MOST_HELD = 64 * 1024 * 1024
"""Bytes of all bodies of more than one part together, until their requests are answered."""
SLOW_SECONDS = 2
"""After which a body that is still arriving makes room for others."""
MOST_DISCARDED, DISCARD_SECONDS = 64 * 1024 * 1024, 1
"""How much of a refused body is read for nothing: most clients look for the answer only when they have sent all."""
SLICE = 256 * 1024
"""Bytes that are inflated at a time: others are served in between."""
MOST_MEMBERS = 100
"""Of one gzip body; each can be next to nothing, and costs."""


def require(headers: Mapping[str, str]) -> None:
    """Raise Problem 411 unless the headers (names in lower case) say that a body follows.

    What is sent without saying so is lost: HTTP takes it for the next request (RFC 9112, 6.3).
    """
    if "content-length" not in headers and "transfer-encoding" not in headers:
        raise Problem(
            HTTPStatus.LENGTH_REQUIRED,
            "No body was announced; send Content-Length, or Transfer-Encoding: chunked",
            headers={"Connection": "close"},
        )


def length(headers: Mapping[str, str]) -> int:
    """The bytes of the body that the headers (names in lower case) declare, 0 if none."""
    declared = headers.get("content-length", "").lstrip("0")
    # A parser lets no more than 20 digits pass; Python reads some thousand.
    return int(declared[:20]) if declared.isdecimal() else 0


async def receive(request: Request, headers: Mapping[str, str], most: int) -> bytes:
    """The whole body of a request with these headers (names in lower case), inflated if it is gzip.

    Raises Problem: 413 for one of more than `most` bytes, compressed or inflated, 415 for another compression, 503 if
    too many bodies are arriving, 400 if it is not what it says, if it breaks off or if the client went away.

    Read from the server itself: starlette's stream takes longer for a small body than validating it.
    """
    coding = _coding(headers["content-encoding"]) if "content-encoding" in headers else ""
    if (declared := length(headers)) > most:
        # What is still to come is read by the server for nothing.
        raise _too_large(most, close=declared > MOST_DISCARDED)
    message = await request.receive()
    if message.get("more_body", False) or len(message.get("body", b"")) > most:
        received = await _rest(request, message, most)
    else:
        _check(request, message)
        received = bytes(message.get("body", b""))
    return await _inflated(received, most) if coding else received


def _coding(encoding: str) -> str:
    """`gzip`, or nothing for a body as it is, of a Content-Encoding. Raises Problem 415 for all else."""
    codings = [coding for each in encoding.lower().split(",") if (coding := each.strip()) not in {"", "identity"}]
    if codings in (["gzip"], ["x-gzip"]):
        return "gzip"
    if codings:
        raise Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"A body with Content-Encoding {', '.join(codings)} cannot be read; send it as gzip or as it is",
            headers={"Accept-Encoding": "gzip"},
        )
    return ""


_held = 0


class _Hold:
    """What a request holds of the memory for bodies, until it is answered."""

    def __init__(self) -> None:
        self._size = 0
        task = asyncio.current_task()
        assert task is not None
        task.add_done_callback(lambda _: self.release())

    def take(self, size: int) -> bool:
        """Hold that much more if there is room for it; whoever is slow makes room. Return whether there was."""
        global _held
        while _held + size > MOST_HELD:
            first = next(iter(_arriving), None)
            if first is None or first is self or not first.slow:
                return False
            first.refuse(unavailable("body_slow", "The body arrives too slowly while others wait; send it in parts"))
        _held += size
        self._size += size
        return True

    def release(self) -> None:
        """Hold nothing any more."""
        global _held
        _held -= self._size
        self._size = 0


class _Arriving(_Hold):
    """A body of more than one part."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.received = bytearray()
        self.size = 0
        self.refusal: Problem | None = None
        self.limit = asyncio.timeout(None)
        """Ends to wait for what is read for nothing."""
        self._most = most
        self._since = asyncio.get_running_loop().time()

    @property
    def slow(self) -> bool:
        """Whether it has had the time that every body gets."""
        return asyncio.get_running_loop().time() - self._since > SLOW_SECONDS

    def add(self, part: bytes) -> None:
        """Take a part, or refuse the body."""
        self.size += len(part)
        if self.refusal:
            if self.size > MOST_DISCARDED:
                self.refusal = _too_large(self._most, close=True)
        elif self.size > self._most:
            self.refuse(_too_large(self._most))
        elif self.take(len(part)):
            self.received += part
        else:
            self.refuse(_full())

    def refuse(self, refusal: Problem) -> None:
        """Hold nothing of it any more, and read for nothing what comes within a moment."""
        self.refusal = refusal
        _arriving.pop(self, None)
        self.release()
        self.received = bytearray()
        self.limit.reschedule(asyncio.get_running_loop().time() + DISCARD_SECONDS)


_arriving: dict[_Arriving, None] = {}
"""The one that began first in front."""


async def _rest(request: Request, message: Mapping[str, Any], most: int) -> bytes:
    """The body that begins with the message."""
    body = _Arriving(most)
    try:
        async with body.limit:
            _arriving[body] = None
            while True:
                _check(request, message)
                body.add(message.get("body", b""))
                if not message.get("more_body", False) or body.size > MOST_DISCARDED:
                    break
                message = await request.receive()
    except TimeoutError:
        assert body.refusal
    finally:
        _arriving.pop(body, None)
    if body.refusal:
        raise body.refusal
    return bytes(body.received)


async def _inflated(compressed: bytes, most: int) -> bytes:
    """The content of a gzip file (RFC 1952), of as many members as there are."""
    hold = _Hold()
    content = bytearray()
    members = 0
    inflate = zlib.decompressobj(wbits=31)
    for begin in range(0, len(compressed), SLICE):
        part = compressed[begin : begin + SLICE]
        while part:
            if inflate.eof:
                members += 1
                if members == MOST_MEMBERS:
                    raise _not_gzip(f"it has more than {MOST_MEMBERS} members")
                inflate = zlib.decompressobj(wbits=31)
            try:
                inflated = inflate.decompress(part, SLICE)
            except zlib.error as error:
                raise _not_gzip(str(error)) from None
            part = inflate.unused_data if inflate.eof else inflate.unconsumed_tail
            content += inflated
            if len(content) > most:
                raise _too_large(most)
            if not hold.take(len(inflated)):
                raise _full()
            if len(content) > SLICE:
                await asyncio.sleep(0)
    if not inflate.eof:
        raise _not_gzip("it ends before its end")
    return bytes(content)


def _not_gzip(why: str) -> Problem:
    return Problem(HTTPStatus.BAD_REQUEST, f"The body is not gzip, as Content-Encoding says: {why}")


def _full() -> Problem:
    return unavailable("bodies_full", "Too many bodies are arriving; send it again in a second")


def _too_large(most: int, *, close: bool = False) -> Problem:
    return Problem(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"A body holds at most {most} bytes; send it in parts",
        headers={"Connection": "close"} if close else None,
    )


def _check(request: Request, message: Mapping[str, Any]) -> None:
    """Raises the Problem of a request that broke off, as the server has it.

    Of a client that went away nobody reads it; it is counted and logged as no fault of ours.
    """
    if refusal := request.scope.get("refusal"):
        raise refusal
    if message["type"] == "http.disconnect":
        raise Problem(HTTPStatus.BAD_REQUEST, "The client went away before the end of the body")
