"""The HTTP edge of `ingest`: takes readings, answers when they are stored."""

import asyncio
from http import HTTPStatus

from functions_framework import aio
from starlette.requests import Request
from starlette.responses import Response

from ingest import bodies, clocks
from ingest.admission import Admission
from ingest.committing import Sessions
from ingest.writer import COPIES_MEANT, Writer
from shared import access, body, database, edge, logs, routes, settings, sites

MOST_BYTES = 8 * 1024 * 1024
LOCK_SECONDS = 0.2
"""How long a statement waits for a lock that another holds, before readings that are not locked go ahead of it."""
MOMENT = 0.25
"""Seconds that a request waits for room in the queue, and a client at least before it comes again."""

logs.configure()
edge.spare_collections()
DATABASE = database.load(connections=2, lock=LOCK_SECONDS)
TOKENS = access.tokens("WRITE_TOKENS")
CLOCK = clocks.load()
COPIES_MEANT.set(settings.number("COPIES", 1, least=1, most=100))
ADMISSION = Admission(settings.number("QUEUE_LIMIT", 50_000, least=bodies.MOST_READINGS, most=10_000_000))

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
    body.require(headers)
    if body.length(headers) <= MOST_BYTES and ADMISSION.full:
        # Before a body costs what the readings that are in the queue wait for.
        await asyncio.sleep(MOMENT)
        ADMISSION.check()
    content = await body.receive(request, headers, MOST_BYTES)
    ADMISSION.check()
    readings = await bodies.parse(headers, content, CLOCK)
    _writer = _writer or Writer(
        Sessions(DATABASE).connect,
        ADMISSION,
        connections=DATABASE.connections,
        deadline=DATABASE.deadline,
        batch=bodies.MOST_READINGS,
    )
    duplicates = await _writer.store(readings) if readings else 0
    if "prefer" in headers and edge.prefers(headers["prefer"], "reply"):
        # Knative's Broker and Channel send this, and take any body that is not an event for a failed delivery.
        return Response(status_code=HTTPStatus.CREATED)
    return edge.json(
        {"message": "Temperature data added", "accepted": len(readings), "duplicates": duplicates}, HTTPStatus.CREATED
    )


_post = (edge.POST, access.needs(TOKENS, sites.own(_store)))
_ROUTES: edge.Routes = {
    "": _post,
    "/temperature": _post,
    "/v1/temperature": _post,
    "/ready": (edge.GET, database.ready(DATABASE)),
    **routes.of_every_function("ingest", TOKENS),
}
