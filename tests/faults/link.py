"""The network between the functions and PostgreSQL, which can be cut, delayed and stalled."""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path


class Link:
    """Passes what is sent to a port of 127.0.0.1 on to a Unix socket, and back.

    The socket is asked for anew for each connection: the server may have moved.
    """

    def __init__(self, target: Callable[[], Path]) -> None:
        self.delay = 0.0
        """Seconds after which a packet goes on, in both directions."""
        self._target = target
        self._open = asyncio.Event()
        self._open.set()
        self._closed = asyncio.Event()
        self._sockets: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stall(self) -> None:
        """Let nothing through, and nobody know."""
        self._loop.call_soon_threadsafe(self._open.clear)

    def resume(self) -> None:
        """Let everything through that was held up."""
        self._loop.call_soon_threadsafe(self._open.set)

    def reset(self) -> None:
        """Break every connection."""
        self._loop.call_soon_threadsafe(self._reset)

    def close(self) -> None:
        """End it."""
        self._loop.call_soon_threadsafe(self._closed.set)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._listen())

    async def _listen(self) -> None:
        server = await asyncio.start_server(self._serve, sock=self._listener)
        await self._closed.wait()
        # From Python 3.12 on, to leave the context would be to wait until the last client goes.
        server.close()

    def _reset(self) -> None:
        for each in self._sockets:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            each.shutdown(socket.SHUT_RDWR)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client: socket.socket = writer.get_extra_info("socket")
        self._sockets.add(client)
        try:
            await self._open.wait()
            server_reader, server_writer = await asyncio.open_unix_connection(self._target())
            try:
                await asyncio.wait(
                    [
                        asyncio.create_task(self._pass(reader, server_writer)),
                        asyncio.create_task(self._pass(server_reader, writer)),
                    ],
                    return_when=asyncio.FIRST_COMPLETED,
                )
            finally:
                server_writer.close()
        except OSError:
            pass
        finally:
            self._sockets.discard(client)
            writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while part := await reader.read(65536):
                await asyncio.sleep(self.delay)
                await self._open.wait()
                writer.write(part)
                await writer.drain()
        except OSError:
            pass
