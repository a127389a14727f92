"""A function that does nothing: what the framework and its server cost by themselves."""

from functions_framework import aio
from starlette.requests import Request
from starlette.responses import JSONResponse


@aio.http
async def empty(request: Request) -> JSONResponse:
    """Read the body, and answer as `ingest` does."""
    await request.body()
    return JSONResponse({"message": "Temperature data added", "accepted": 1, "duplicates": 0}, 201)
