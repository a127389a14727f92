"""The HTTP edge of `ingest`: takes readings, answers when they are stored."""

from http import HTTPStatus

from functions_framework import aio
from starlette.requests import Request
from starlette.responses import Response

from ingest import bodies
from ingest.writer import Writer
from shared import access, database, edge, logs, settings
from shared.metrics import metrics

MOST_BYTES = 8 * 1024 * 1024

logs.configure()
edge.spare_collections()
DATABASE = database.load(connections=2)
TOKENS = access.tokens("WRITE_TOKENS")
QUEUE = settings.number("QUEUE_LIMIT", 50_000, least=bodies.MOST_READINGS, most=10_000_000)

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
    readings = bodies.parse(headers, await edge.body(request, MOST_BYTES))
    _writer = _writer or Writer(DATABASE, batch=bodies.MOST_READINGS, queue=QUEUE)
    duplicates = await _writer.store(readings) if readings else 0
    if headers.get("prefer") == "reply":
        # Knative's Broker and Channel send this, and take any body that is not an event for a failed delivery.
        return Response(status_code=HTTPStatus.CREATED)
    return edge.json(
        {"message": "Temperature data added", "accepted": len(readings), "duplicates": duplicates}, HTTPStatus.CREATED
    )


_post = (edge.POST, access.needs(TOKENS, _store))
_ROUTES: edge.Routes = {
    "": _post,
    "/temperature": _post,
    "/v1/temperature": _post,
    "/health": (edge.GET, edge.health),
    "/ready": (edge.GET, database.ready(DATABASE)),
    "/metrics": (edge.GET, access.needs(TOKENS, metrics)),
    "/openapi.json": (edge.GET, edge.openapi("ingest")),
}
