"""The pool of connections ends with its event loop."""

import asyncio
import socket
import threading
from contextlib import ExitStack

from average.pool import Pool

ENDING_SECONDS = 10


def test_an_event_loop_ends_while_its_pool_connects() -> None:
    with socket.create_server(("127.0.0.1", 0)) as database, ExitStack() as accepted:
        _, port = database.getsockname()

        async def connect() -> None:
            pool = Pool(f"host=127.0.0.1 port={port}", min_size=1, open=False)
            await pool.open()
            connection, _ = await asyncio.to_thread(database.accept)
            # It is not answered.
            accepted.enter_context(connection)

        thread = threading.Thread(target=asyncio.run, args=(connect(),), daemon=True)
        thread.start()
        thread.join(ENDING_SECONDS)
        assert not thread.is_alive()
