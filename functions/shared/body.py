"""Receives the body of a request, however it is sent: slowly, without end, compressed, with many others, in part.

How long a request may take to arrive is the server's to know: `shared.server`.
"""

import asyncio
import zlib
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any, Self

from starlette.requests import Request

from shared.problems import Problem, unavailable

MOST_HELD_BYTES = 64 * 1024 * 1024
"""Bytes that all bodies of more than one part hold together, until their requests are answered."""
SLOW_SECONDS = 2
"""A body that takes longer than this makes room for others."""
MOST_DISCARDED_BYTES, DISCARD_SECONDS = 64 * 1024 * 1024, 1
"""So much of a refused body is read and forgotten: most clients look for the answer only when they have sent all."""
SLICE_BYTES = 256 * 1024
"""Bytes that are inflated at a time: others are served in between."""
MOST_GZIP_MEMBERS = 100
"""Of one gzip body. Each costs time, even one that holds next to nothing."""


def require_announced(headers: Mapping[str, str]) -> None:
    """Raise Problem 411 unless the headers (names in lower case) say that a body follows.

    A body that is not announced is lost: HTTP takes it for the next request (RFC 9112, 6.3).
    """
    if "content-length" not in headers and "transfer-encoding" not in headers:
        raise Problem(
            HTTPStatus.LENGTH_REQUIRED,
            "No body was announced; send Content-Length, or Transfer-Encoding: chunked",
            headers={"Connection": "close"},
        )


def announced_bytes(headers: Mapping[str, str]) -> int:
    """The bytes of the body that the headers (names in lower case) declare, 0 if none."""
    declared = headers.get("content-length", "").lstrip("0")
    # A parser lets no more than 20 digits pass; Python reads some thousand.
    return int(declared[:20]) if declared.isdecimal() else 0


class Receiver:
    """Receives the bodies of a function, each of at most so many bytes, and all within MOST_HELD_BYTES."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._memory = _Memory()

    async def receive(self, request: Request, headers: Mapping[str, str]) -> bytes:
        """The whole body of a request with these headers (names in lower case), inflated if it is gzip.

        Raises Problem: 413 for one that is too large, compressed or inflated, 415 for another compression, 503 if too
        many bodies are arriving, 400 if it is not what it says, if it breaks off or if the client went away.

        Read from the server itself: starlette's stream takes longer for a small body than validating it.
        """
        is_gzip = "content-encoding" in headers and _is_gzip(headers["content-encoding"])
        if (declared := announced_bytes(headers)) > self._most_bytes:
            # The server reads the rest, and forgets it.
            raise _too_large(self._most_bytes, close=declared > MOST_DISCARDED_BYTES)
        message = await request.receive()
        if message.get("more_body", False) or len(message.get("body", b"")) > self._most_bytes:
            received = await self._rest(request, message)
        else:
            _raise_if_broken_off(request, message)
            received = bytes(message.get("body", b""))
        return await self._inflated(received) if is_gzip else received

    async def _rest(self, request: Request, message: Mapping[str, Any]) -> bytes:
        """The body that begins with the message."""
        with _Arriving(self._memory, self._most_bytes) as body:
            async with body.reading:
                while True:
                    _raise_if_broken_off(request, message)
                    body.add(message.get("body", b""))
                    if not message.get("more_body", False) or body.size > MOST_DISCARDED_BYTES:
                        break
                    message = await request.receive()
        if body.refusal:
            raise body.refusal
        return bytes(body.received)

    async def _inflated(self, compressed: bytes) -> bytes:
        """The content of a gzip file (RFC 1952), of as many members as there are."""
        hold = _Hold(self._memory)
        content = bytearray()
        for inflated in _inflate(compressed):
            content += inflated
            if len(content) > self._most_bytes:
                raise _too_large(self._most_bytes)
            if not hold.take(len(inflated)):
                raise _full()
            if len(content) > SLICE_BYTES:
                await asyncio.sleep(0)
        return bytes(content)


def _inflate(compressed: bytes) -> Iterator[bytes]:
    """The content of a gzip file, in parts of at most SLICE_BYTES. Raises Problem 400 for what is none."""
    members = 1
    inflate = zlib.decompressobj(wbits=31)
    for begin in range(0, len(compressed), SLICE_BYTES):
        part = compressed[begin : begin + SLICE_BYTES]
        while part:
            if inflate.eof:
                members += 1
                if members > MOST_GZIP_MEMBERS:
                    raise _not_gzip(f"it has more than {MOST_GZIP_MEMBERS} members")
                inflate = zlib.decompressobj(wbits=31)
            try:
                yield inflate.decompress(part, SLICE_BYTES)
            except zlib.error as error:
                raise _not_gzip(str(error)) from None
            part = inflate.unused_data if inflate.eof else inflate.unconsumed_tail
    if not inflate.eof:
        raise _not_gzip("it ends before its end")


def _is_gzip(encoding: str) -> bool:
    """Whether a Content-Encoding says gzip; if not, a body is as it is. Raises Problem 415 for all else."""
    codings = [coding for each in encoding.lower().split(",") if (coding := each.strip()) not in {"", "identity"}]
    if codings in ([], ["gzip"], ["x-gzip"]):
        return bool(codings)
    raise Problem(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        f"A body with Content-Encoding {', '.join(codings)} cannot be read; send it as gzip or as it is",
        headers={"Accept-Encoding": "gzip"},
    )


class _Memory:
    """The memory for bodies: what is held of it, and the bodies that arrive, the one that began first in front."""

    def __init__(self) -> None:
        self.held = 0
        self.arriving: dict[_Arriving, None] = {}


class _Hold:
    """What a request holds of the memory, until it is answered."""

    def __init__(self, memory: _Memory) -> None:
        self._memory = memory
        self._size = 0
        task = asyncio.current_task()
        assert task is not None
        task.add_done_callback(lambda _: self.release())

    def take(self, size: int) -> bool:
        """Hold that much more if there is room, which slow bodies make. Return whether there was."""
        while self._memory.held + size > MOST_HELD_BYTES:
            first = next(iter(self._memory.arriving), None)
            if first is None or first is self or not first.slow:
                return False
            first.refuse(unavailable("body_slow", "The body arrives too slowly while others wait; send it in parts"))
        self._memory.held += size
        self._size += size
        return True

    def release(self) -> None:
        """Hold nothing any more."""
        self._memory.held -= self._size
        self._size = 0


class _Arriving(_Hold):
    """A body of more than one part."""

    def __init__(self, memory: _Memory, most_bytes: int) -> None:
        super().__init__(memory)
        self.received = bytearray()
        self.size = 0
        self.refusal: Problem | None = None
        self.reading = asyncio.timeout(None)
        """Ends the wait for the rest of a body that is refused."""
        self._most_bytes = most_bytes
        self._since = asyncio.get_running_loop().time()

    def __enter__(self) -> Self:
        self._memory.arriving[self] = None
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        self._memory.arriving.pop(self, None)
        # A refused body has had its time.
        return isinstance(error, TimeoutError) and self.refusal is not None

    @property
    def slow(self) -> bool:
        """Whether it has had the time that every body gets."""
        return asyncio.get_running_loop().time() - self._since > SLOW_SECONDS

    def add(self, part: bytes) -> None:
        """Take a part, or refuse the body."""
        self.size += len(part)
        if self.refusal:
            if self.size > MOST_DISCARDED_BYTES:
                self.refusal = _too_large(self._most_bytes, close=True)
        elif self.size > self._most_bytes:
            self.refuse(_too_large(self._most_bytes))
        elif self.take(len(part)):
            self.received += part
        else:
            self.refuse(_full())

    def refuse(self, refusal: Problem) -> None:
        """Hold nothing of it any more. Read what comes within DISCARD_SECONDS, and forget it."""
        self.refusal = refusal
        self._memory.arriving.pop(self, None)
        self.release()
        self.received = bytearray()
        self.reading.reschedule(asyncio.get_running_loop().time() + DISCARD_SECONDS)


def _not_gzip(why: str) -> Problem:
    return Problem(HTTPStatus.BAD_REQUEST, f"The body is not gzip, as Content-Encoding says: {why}")


def _full() -> Problem:
    return unavailable("bodies_full", "Too many bodies are arriving; send it again in a second")


def _too_large(most_bytes: int, *, close: bool = False) -> Problem:
    return Problem(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"A body holds at most {most_bytes} bytes; send it in parts",
        headers={"Connection": "close"} if close else None,
    )


def _raise_if_broken_off(request: Request, message: Mapping[str, Any]) -> None:
    """Raises the Problem of a request that broke off, as the server has it.

    Of a client that went away nobody reads it; it is counted and logged as no fault of ours.
    """
    if refusal := request.scope.get("refusal"):
        raise refusal
    if message["type"] == "http.disconnect":
        raise Problem(HTTPStatus.BAD_REQUEST, "The client went away before the end of the body")
