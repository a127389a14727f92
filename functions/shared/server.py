"""Serves functions over HTTP: how a server is set up, for the image, `make run`, tests and measurements alike.

`python -m shared.server [HOST]` serves the function that FUNCTION_TARGET and FUNCTION_SOURCE name, at PORT.
"""

import asyncio
import socket
import struct
import sys
from collections import deque
from collections.abc import Collection
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httptools
import uvicorn
from functions_framework.aio import create_asgi_app
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from shared import settings
from shared.problems import Problem, stopping

KEEP_ALIVE_SECONDS = 120
"""An idle connection is closed after so long. Knative's proxy closes its own after 90 seconds, so it is always first.
If this server were first, the next request could be on its way already, and its sender would get a 502."""
ARRIVAL_SECONDS = 30
"""A request may take so long to arrive, which is as long as Knative lets a request of `ingest` take."""
LINGER_SECONDS = 1
"""A connection stays open so long after a refusal. If it were closed while the client still sends, the answer would be
lost."""
STALL_SECONDS = 300
"""A client may take nothing of an answer for so long; what is left of it stays in memory until then. The system takes
more only when it got rid of a third of what it has, which may be megabytes. So a slow client seems to take nothing for
long."""
STOP_SECONDS = 1
"""When the server ends, a request that is still arriving has so long to arrive."""
MOST_HEAD_BYTES = 64 * 1024
"""Of the target and the headers of a request."""


def application(target: str | None = None, source: Path | None = None) -> Starlette:
    """The application that functions-framework makes of a function; by default the one that its variables name.

    The framework answers some requests itself, as text and without metrics: methods that it does not know, and two
    paths that browsers ask for. Here the function answers these too.
    """
    framework: Starlette = create_asgi_app(target, source, "http")
    everything = framework.routes[-1]
    assert isinstance(everything, Route) and everything.path == "/{path:path}"

    async def answer(request: Request, _: Exception) -> Response:
        response: Response = await everything.endpoint(request)
        return response

    framework.add_exception_handler(HTTPException, answer)
    return framework


def configuration(served: Any, *, access_log: bool = False, **more: Any) -> uvicorn.Config:
    """The configuration of a server of this ASGI application; `more` is where it listens and how it ends.

    A line for each request, `access_log`, would cost a third of what can be taken in; queue-proxy can log them where
    they are wanted.
    """
    return uvicorn.Config(
        served,
        interface="asgi3",
        loop="uvloop",
        http=Protocol,
        ws="none",
        lifespan="off",
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        # Nothing here asks who the client of a proxy is.
        proxy_headers=False,
        server_header=False,
        headers=[("X-Content-Type-Options", "nosniff")],
        # The functions set up logging.
        log_config=None,
        access_log=access_log,
        **more,
    )


class Protocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1, which answers as the functions do also what it cannot take.

    A request that breaks off, comes too slowly, is too large or no HTTP goes to the application with `refusal` in its
    scope: the Problem to raise. So it is counted, logged and answered as any other, in its turn.
    """

    # The request whose turn it is. `cycle` is the one that came last.
    _answered: RequestResponseCycle | None = None
    # Whether the request is complete; if it is not, the timer ends the wait for the rest.
    _is_complete = True
    _arrival_timer: asyncio.TimerHandle | None = None
    # Gives up a client that takes nothing of its answer.
    _stall_timer: asyncio.TimerHandle | None = None
    # Whether all that still comes is ignored.
    _ignores_input = False
    # Bytes of a head that comes in parts; those of its first part, which may have the end of another request too; and
    # whether the head may be too large.
    _head_bytes = _first_bytes = 0
    _head_may_be_too_large = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Close the connection too if nothing is ever sent."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self.flow = _Flow(self.transport, self.pipeline)
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the client."""
        if self._stall_timer is not None:
            self._stall_timer.cancel()
        self.pipeline.clear()
        if self._answered is not None:
            self._answered.disconnected = True
        super().connection_lost(exc)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answered = cycle
        super()._start_asgi_task(cycle, app)

    def data_received(self, data: bytes) -> None:
        """Read on, and begin or end to wait for the rest of a request."""
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None
        if self._ignores_input:
            return
        self._head_may_be_too_large = self._head_bytes + len(data) > MOST_HEAD_BYTES
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            self._refuse(error.__context__ if isinstance(error.__context__, Problem) else _no_request(error))
        else:
            if not self._is_complete:
                self._go_on_waiting(len(data))

    def _feed(self, data: bytes) -> None:
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                # Another protocol is offered, as Java does by itself: it may be passed over (RFC 9110, 7.8).
                data = data[offer.args[0] :]
                self._expect_body()
                if data:
                    continue
            return

    def _expect_body(self) -> None:
        """Have the body read of a request that offered another protocol: httptools takes it for that protocol."""
        framing = [b"%b: %b\r\n" % header for header in self.scope["headers"] if header[0] in _FRAMING]
        if not framing:
            return
        self.parser = httptools.HttpRequestParser(_Body(self, self.parser))
        self.parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % b"".join(framing))

    def _go_on_waiting(self, size: int) -> None:
        if "path" not in self.scope:
            if self._arrival_timer is None:
                self._first_bytes = size
            self._head_bytes += size
            if self._head_bytes - self._first_bytes > MOST_HEAD_BYTES:
                self._refuse(_too_large())
                return
        if self._arrival_timer is None:
            self._arrival_timer = self.loop.call_later(ARRIVAL_SECONDS, self._refuse, _late())

    def _stop_waiting(self) -> None:
        self._head_bytes = 0
        if self._arrival_timer is not None:
            self._arrival_timer.cancel()
            self._arrival_timer = None

    def _refuse(self, problem: Problem) -> None:
        """Have the request that is arriving answered with the Problem, and take nothing more."""
        self._ignores_input = True
        self._stop_waiting()
        if "path" not in self.scope:
            self._answer(problem)
            self.cycle.transport = _Lingering(self.transport, self.loop)
        elif self.cycle.response_complete:
            self.transport.close()
        else:
            self.cycle.scope["refusal"] = problem  # type: ignore[typeddict-unknown-key]
            self.cycle.keep_alive = False
            self.cycle.transport = _Lingering(self.transport, self.loop)  # type: ignore[assignment]
            self.cycle.message_event.set()

    def _answer(self, problem: Problem) -> None:
        """Have a request answered whose head did not come to its end."""
        before = self.cycle
        unknown = {"method": "-", "path": "/", "raw_path": b"-", "query_string": b"", "refusal": problem}
        self.scope |= unknown  # type: ignore[typeddict-item]
        self.cycle = RequestResponseCycle(
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=False,
            on_response=self.on_response_complete,
        )
        self.cycle.more_body = False
        if before is None or before.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:
            self.pipeline.appendleft((self.cycle, self.app))

    def eof_received(self) -> bool:  # type: ignore[override]
        """Go on answering a client that has only stopped to send; say whether there is something to answer."""
        if not self._is_complete and not self._ignores_input:
            self._refuse(Problem(HTTPStatus.BAD_REQUEST, "The connection ended before the request did"))
        if self.cycle is None or self.cycle.response_complete:
            return False
        self.cycle.keep_alive = False
        return True

    def pause_writing(self) -> None:
        """Send no more for now, and give the client up if it takes nothing."""
        super().pause_writing()
        self._stall_timer = self.loop.call_later(STALL_SECONDS, self._give_up, self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """Send again: the client took what there was."""
        if self._stall_timer is not None:
            self._stall_timer.cancel()
        super().resume_writing()

    def _give_up(self, left: int) -> None:
        """Close the connection of a client that took none of the bytes that were left for it."""
        if (now := self.transport.get_write_buffer_size()) < left:
            self._stall_timer = self.loop.call_later(STALL_SECONDS, self._give_up, now)
        else:
            self.transport.abort()

    def shutdown(self) -> None:
        """End after the answer that is under way. A request that is still arriving must be there in a moment."""
        super().shutdown()
        if not self._is_complete and not self._ignores_input and not self.transport.is_closing():
            self._stop_waiting()
            self._arrival_timer = self.loop.call_later(STOP_SECONDS, self._refuse, stopping())

    def on_message_begin(self) -> None:
        """Note that a request begins."""
        self._is_complete = False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Hand the request to the application.

        Raises Problem 431 if there is too much of it already. The parser lets more pass than HTTP does (RFC 9112): 400
        for another version, and without a Host (3.2), and 501 for a coding of the transfer that nobody undoes (6.1).
        """
        # A header takes four bytes more on the wire.
        if (
            self._head_may_be_too_large
            and len(self.url) + sum(len(n) + len(v) + 4 for n, v in self.headers) > MOST_HEAD_BYTES
        ):
            raise _too_large()
        version = self.parser.get_http_version()
        if version not in {"1.0", "1.1"}:
            raise Problem(HTTPStatus.BAD_REQUEST, f"This is not a request of HTTP/1.1: it says HTTP/{version}")
        names = [name for name, _ in self.headers]
        if version == "1.1" and names.count(b"host") != 1:
            raise Problem(HTTPStatus.BAD_REQUEST, "This is not a request of HTTP/1.1: it must have one header Host")
        if b"transfer-encoding" in names:
            codings = b",".join(value for name, value in self.headers if name == b"transfer-encoding")
            if codings.strip().lower() != b"chunked":
                raise Problem(HTTPStatus.NOT_IMPLEMENTED, "Send the body with Transfer-Encoding: chunked and no other")
        if self.expect_100_continue and version == "1.0":
            # Which has no interim answers (RFC 9110, 10.1.1).
            self.expect_100_continue = False
        super().on_headers_complete()
        self.headers = _FORGOTTEN  # type: ignore[assignment]
        if version == "1.0":
            self.cycle.__class__ = _WithoutChunks

    def on_message_complete(self) -> None:
        """Note that a request is there."""
        self._is_complete = True
        if self._arrival_timer is not None:
            self._stop_waiting()
        super().on_message_complete()


class _Flow(FlowControl):
    """Reads no more while requests wait for their turn: a client may send any number, and read no answer."""

    def __init__(self, transport: asyncio.Transport, waiting: Collection[object]) -> None:
        super().__init__(transport)
        self._waiting = waiting

    def resume_reading(self) -> None:
        """Read again, if no request waits."""
        if not self._waiting:
            super().resume_reading()


class _WithoutChunks(RequestResponseCycle):
    """An answer to HTTP/1.0, which knows no chunks: one of unknown length lasts until the connection is closed.

    uvicorn would send it chunked (RFC 9112, 6.1 forbids that), and the client would take the lengths for content.
    """

    _length_is_unknown = False

    async def send(self, message: Any) -> None:
        """Send what the application answers."""
        if message["type"] == "http.response.start":
            self._length_is_unknown = all(name.lower() != b"content-length" for name, _ in message["headers"])
            if self._length_is_unknown:
                self.chunked_encoding = False
                self.keep_alive = False
                self.transport = _Resetting(self)  # type: ignore[assignment]
        elif self._length_is_unknown:
            self.expected_content_length = len(message.get("body", b""))
        await super().send(message)


class _Resetting:
    """A transport whose end is the end of an answer; one that breaks off is reset, so that the client notices."""

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self.write = cycle.transport.write
        self.is_closing = cycle.transport.is_closing
        self._transport = cycle.transport
        self._cycle = cycle

    def close(self) -> None:
        if self._cycle.response_complete:
            self._transport.close()
        else:
            connection: socket.socket = self._transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()


class _Lingering:
    """A transport that is closed in two steps: no more is sent, and a moment later no more is read for nothing."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self._transport = transport
        self._loop = loop

    def close(self) -> None:
        if not self._transport.is_closing():
            self._transport.write_eof()
            self._loop.call_later(LINGER_SECONDS, self._transport.close)


_FRAMING = {b"content-length", b"transfer-encoding"}
_FORGOTTEN = deque[tuple[bytes, bytes]](maxlen=0)
"""Where trailers go: fields behind a chunked body. They are no headers (RFC 9110, 6.5.1), and may be any number."""


class _Body:
    """Hears from a parser that reads only a body."""

    def __init__(self, protocol: Protocol, parser: Any) -> None:
        """`parser` reads what comes behind the body."""
        self._protocol = protocol
        self._parser = parser
        self._begun = False
        self.on_body = protocol.on_body

    def on_message_begin(self) -> None:
        """Have the request wait for its body. Raises Problem 400 for another request behind it."""
        if self._begun:
            self._protocol.on_message_begin()
            raise Problem(HTTPStatus.BAD_REQUEST, "Behind the offer of another protocol there can be no more requests")
        self._begun = True
        self._protocol._is_complete = False
        self._protocol.cycle.more_body = True
        self._protocol.cycle.message_event.clear()

    def on_message_complete(self) -> None:
        """Note that the request is there."""
        self._protocol.on_message_complete()
        self._protocol.parser = self._parser


def _no_request(error: httptools.HttpParserError) -> Problem:
    # The parser could not even pass the target on.
    why = "Invalid target" if isinstance(error, httptools.HttpParserCallbackError) else error
    return Problem(HTTPStatus.BAD_REQUEST, f"This is not a request of HTTP/1.1: {why}")


def _late() -> Problem:
    return Problem(
        HTTPStatus.REQUEST_TIMEOUT,
        f"The request did not arrive within {ARRIVAL_SECONDS} seconds; send it in parts",
    )


def _too_large() -> Problem:
    return Problem(
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
        f"The target and the headers of a request hold at most {MOST_HEAD_BYTES} bytes",
    )


def main() -> None:
    """Serve until SIGTERM. Raises SettingError for a setting that makes no sense."""
    host = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1"
    port = settings.number("PORT", 8080, least=1, most=65535)
    uvicorn.Server(configuration(application(), host=host, port=port)).run()


if __name__ == "__main__":
    main()
