"""Connections to the database that end with the event loop."""

import asyncio
from typing import Any

from psycopg_pool import AsyncConnectionPool

PAUSE_SECONDS = 0.1
"""Until a worker is cancelled again."""


class Pool(AsyncConnectionPool):
    """A pool whose workers end when they are cancelled.

    psycopg_pool takes a cancellation for a failure of what the worker does, such as to connect, and has it wait for
    more to do. An event loop that ends waits for that for ever.
    """

    @classmethod
    async def worker(cls, q: Any) -> None:
        """Do what the pool has to do, until it is closed or this is cancelled."""
        work = asyncio.create_task(super().worker(q))
        try:
            await asyncio.shield(work)
        finally:
            while not work.done():
                work.cancel()
                await asyncio.wait([work], timeout=PAUSE_SECONDS)
