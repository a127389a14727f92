"""A sink of events that really listens."""

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

from cloudevents.http import CloudEvent, from_http

from tests.support import wait_until


class Sink(ThreadingHTTPServer):
    """An HTTP server that records what it takes, and that can be told to misbehave first."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.connections: list[_Handler] = []
        self.status = 202
        self.headers: dict[str, str] = {}
        self.to_refuse: float = 0
        self.to_reset = 0
        self.seconds = 0.0
        self.drips = 0
        """How many signs of an endless answer it sends, one in 0.1 seconds."""
        self.open = Event()
        self.open.set()
        self.attempts = 0
        self.answering: list[_Handler] = []
        self.most_at_once = 0
        self.requests: list[tuple[dict[str, str], bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"

    @property
    def events(self) -> list[CloudEvent]:
        return [from_http(headers, body) for headers, body in self.requests]

    def refuse(self, times: float, status: int, **headers: str) -> None:
        """Answer so many attempts with the status, and take the rest."""
        self.to_refuse, self.status, self.headers = times, status, headers


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Sink

    def setup(self) -> None:
        self.server.connections.append(self)
        super().setup()

    def finish(self) -> None:
        super().finish()
        self.server.connections.remove(self)

    def do_POST(self) -> None:
        sink = self.server
        body = self.rfile.read(int(self.headers["content-length"]))
        sink.attempts += 1
        sink.answering.append(self)
        sink.most_at_once = max(sink.most_at_once, len(sink.answering))
        sink.open.wait(5)
        time.sleep(sink.seconds)
        sink.answering.remove(self)
        if sink.drips:
            return self._drip(sink.drips)
        if sink.to_reset > 0:
            sink.to_reset -= 1
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            return None
        if sink.to_refuse > 0:
            sink.to_refuse -= 1
            self.send_response(sink.status)
            for name, value in sink.headers.items():
                self.send_header(name.replace("_", "-"), value)
        else:
            sink.requests.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(202)
        self.send_header("content-length", "0")
        self.end_headers()
        return None

    def _drip(self, signs: int) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.wfile.write(b"HTTP/1.1 202 Accepted\r\nX-Long: ")
            for _ in range(signs):
                self.wfile.write(b"x")
                time.sleep(0.1)

    def do_GET(self) -> None:
        raise AssertionError("nothing gets anything from a sink")

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def listening() -> Iterator[Sink]:
    """A sink, to which no connection is left in the end."""
    with Sink() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.open.set()
        server.shutdown()
        thread.join()
        wait_until(
            lambda: not server.connections, seconds=2, otherwise="a connection to the sink is not closed in the end"
        )
