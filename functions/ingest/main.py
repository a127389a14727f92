"""The HTTP edge of `ingest`: takes readings, answers when they are stored."""

import asyncio
from functools import cache
from http import HTTPStatus

from functions_framework import aio
from starlette.requests import Request
from starlette.responses import Response

from ingest import bodies, timestamps
from ingest.admission import Admission
from ingest.committing import Sessions
from ingest.refusals import MOST_READINGS
from ingest.writer import COPIES_MEANT, Writer
from shared import access, answers, body, database, edge, logs, routes, settings, sites

MOST_BODY_BYTES = 8 * 1024 * 1024
LOCK_WAIT_SECONDS = 0.2
"""A statement waits so long for a lock. Then readings that nobody locks go first."""
QUEUE_WAIT_SECONDS = 0.25
"""A request waits so long for room in the queue. A client that comes again at once is slowed down by that."""

logs.configure()
edge.collect_garbage_rarely()
DATABASE = database.load(connections=2, lock_seconds=LOCK_WAIT_SECONDS)
TOKENS = access.tokens("WRITE_TOKENS")
TIMESTAMP_LIMITS = timestamps.load()
COPIES_MEANT.set(settings.number("COPIES", 1, least=1, most=100))
ADMISSION = Admission(settings.number("QUEUE_LIMIT", 50_000, least=MOST_READINGS, most=10_000_000))
BODIES = body.Receiver(MOST_BODY_BYTES)


@cache
def _writer() -> Writer:
    # Made by the first request: the framework imports this module before the server forks, and it needs the loop.
    return Writer(
        Sessions(DATABASE).connect,
        ADMISSION,
        connections=DATABASE.connections,
        deadline_seconds=DATABASE.deadline_seconds,
        most_readings=MOST_READINGS,
    )


@aio.http
@edge.answered
async def ingest(request: Request) -> Response:
    """Store the readings of a POST and answer 201 once they are committed."""
    return await edge.route(request, _ROUTES)


async def _store(request: Request) -> Response:
    headers = edge.headers(request)
    body.require_announced(headers)
    if body.announced_bytes(headers) <= MOST_BODY_BYTES and ADMISSION.full:
        # Before a body costs what the readings that are in the queue wait for.
        await asyncio.sleep(QUEUE_WAIT_SECONDS)
        ADMISSION.check()
    content = await BODIES.receive(request, headers)
    ADMISSION.check()
    readings = await bodies.parse(headers, content, TIMESTAMP_LIMITS)
    duplicates = await _writer().store(readings) if readings else 0
    if "prefer" in headers and edge.has_preference(headers["prefer"], "reply"):
        # Knative's Broker and Channel send this, and take any body that is not an event for a failed delivery.
        return Response(status_code=HTTPStatus.CREATED)
    return answers.json(
        {"message": "Temperature data added", "accepted": len(readings), "duplicates": duplicates}, HTTPStatus.CREATED
    )


_post = edge.Route(edge.POST, access.needs_token(TOKENS, sites.no_foreign_pages(_store)))
_ROUTES: edge.Routes = {
    "": _post,
    "/temperature": _post,
    "/v1/temperature": _post,
    "/ready": edge.Route(edge.GET, database.ready(DATABASE)),
    **routes.of_every_function("ingest", TOKENS),
}
