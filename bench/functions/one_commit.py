"""A function that stores each reading with an INSERT and a commit of its own, as most services do."""

import os

from functions_framework import aio
from psycopg_pool import AsyncConnectionPool
from pydantic_core import SchemaValidator
from starlette.requests import Request
from starlette.responses import JSONResponse

from shared.readings import READING

INSERT = """
    INSERT INTO temperatures (building_id, room_id, temperature, timestamp)
    VALUES (%(building_id)s, %(room_id)s, %(temperature)s, %(timestamp)s) ON CONFLICT DO NOTHING
"""
_reading = SchemaValidator(READING)
_pool = AsyncConnectionPool(os.environ["DATABASE_URL"], min_size=0, max_size=10, open=False)


@aio.http
async def one_commit(request: Request) -> JSONResponse:
    """Validate and store the reading of a POST."""
    body = await request.body()
    if not body:
        return JSONResponse({"status": "ok"})
    reading = _reading.validate_json(body)
    await _pool.open()
    async with _pool.connection() as connection:
        cursor = await connection.execute(INSERT, reading)
    return JSONResponse({"message": "Temperature data added", "accepted": 1, "duplicates": 1 - cursor.rowcount}, 201)
