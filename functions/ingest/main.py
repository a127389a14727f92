"""The HTTP edge of `ingest`: takes readings, answers when they are stored."""

from http import HTTPStatus

from functions_framework import aio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ingest import bodies
from ingest.writer import Writer
from shared import database, logs, settings
from shared.problems import Problem, answered, method_not_allowed, not_found

PATHS = {"", "/temperature", "/v1/temperature"}
MOST_BYTES = 8 * 1024 * 1024

logs.configure()
DATABASE = database.load(connections=2)
QUEUE = settings.number("QUEUE_LIMIT", 50_000, least=bodies.MOST_READINGS, most=10_000_000)

# Made by the first request: the framework imports this module before the server forks, and the writer needs its loop.
_writer: Writer | None = None


@aio.http
@answered
async def ingest(request: Request) -> Response:
    """Store the readings of a POST and answer 201 once they are committed."""
    path = request.url.path.rstrip("/")
    if path in PATHS:
        if request.method != "POST":
            raise method_not_allowed(request, "POST")
        return await _store(request)
    if path not in {"/health", "/openapi.json"}:
        raise not_found(request)
    if request.method not in {"GET", "HEAD"}:
        raise method_not_allowed(request, "GET", "HEAD")
    if path == "/health":
        return JSONResponse({"status": "ok", "message": "Service is healthy"})
    # Describing the API needs pydantic, which storing readings does not.
    from ingest import api

    return JSONResponse(api.document())


async def _store(request: Request) -> Response:
    global _writer
    readings = bodies.parse(request.headers, await _body(request))
    _writer = _writer or Writer(DATABASE, batch=bodies.MOST_READINGS, queue=QUEUE)
    duplicates = await _writer.store(readings) if readings else 0
    if request.headers.get("prefer") == "reply":
        # Knative's Broker and Channel send this, and take any body that is not an event for a failed delivery.
        return Response(status_code=HTTPStatus.CREATED)
    return JSONResponse(
        {"message": "Temperature data added", "accepted": len(readings), "duplicates": duplicates}, HTTPStatus.CREATED
    )


async def _body(request: Request) -> bytes:
    """The whole body. Raises Problem 413 as soon as it is known to be too large."""
    too_large = Problem(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"A body holds at most {MOST_BYTES} bytes; send the readings in parts"
    )
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > MOST_BYTES:
        raise too_large
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > MOST_BYTES:
            raise too_large
        parts.append(part)
    return b"".join(parts)
