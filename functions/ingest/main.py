"""The HTTP edge of `ingest`: takes readings, answers when they are stored."""

import asyncio
from http import HTTPStatus

from functions_framework import aio
from starlette.requests import Request
from starlette.responses import Response

from ingest import bodies
from ingest.writer import WAITING_LIMIT, Writer
from shared import access, body, database, edge, logs, routes, settings, sites

MOST_BYTES = 8 * 1024 * 1024
BYTES = 100
"""Of a reading in a body, about."""
MOMENT = 0.25
"""Seconds that a request waits for room in the queue, and a client at least before it comes again."""

logs.configure()
edge.spare_collections()
DATABASE = database.load(connections=2)
TOKENS = access.tokens("WRITE_TOKENS")
QUEUE = settings.number("QUEUE_LIMIT", 50_000, least=bodies.MOST_READINGS, most=10_000_000)
WAITING_LIMIT.set(QUEUE)

# Made by the first request: the framework imports this module before the server forks, and the writer needs its loop.
_writer: Writer | None = None


@aio.http
@edge.answered
async def ingest(request: Request) -> Response:
    """Store the readings of a POST and answer 201 once they are committed."""
    return await edge.route(request, _ROUTES)


async def _store(request: Request) -> Response:
    global _writer
    headers = edge.headers(request)
    await _room(body.length(headers), MOMENT)
    content = await body.receive(request, headers, MOST_BYTES)
    await _room(len(content))
    readings = bodies.parse(headers, content)
    _writer = _writer or Writer(DATABASE, batch=bodies.MOST_READINGS, queue=QUEUE)
    duplicates = await _writer.store(readings) if readings else 0
    if headers.get("prefer") == "reply":
        # Knative's Broker and Channel send this, and take any body that is not an event for a failed delivery.
        return Response(status_code=HTTPStatus.CREATED)
    return edge.json(
        {"message": "Temperature data added", "accepted": len(readings), "duplicates": duplicates}, HTTPStatus.CREATED
    )


async def _room(size: int, moment: float = 0.0) -> None:
    """Wait a moment for room in a full queue for the readings of a body. Raises Problem 503 if there is none.

    Asked before the body costs what the readings that are in the queue wait for.
    """
    if _writer and _writer.full(size // BYTES):
        await asyncio.sleep(moment)
        _writer.admit(size // BYTES)


_post = (edge.POST, access.needs(TOKENS, sites.own(_store)))
_ROUTES: edge.Routes = {
    "": _post,
    "/temperature": _post,
    "/v1/temperature": _post,
    "/ready": (edge.GET, database.ready(DATABASE)),
    **routes.of_every_function("ingest", TOKENS),
}
