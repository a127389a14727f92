"""Answers with JSON. The log has an encoder of its own: it must never fail, and migrations have a log too."""

from collections.abc import Mapping
from http import HTTPStatus

from pydantic_core import to_json
from starlette.responses import Response


def json(
    content: object,
    status: HTTPStatus = HTTPStatus.OK,
    *,
    headers: Mapping[str, str] | None = None,
    media_type: str = "application/json",
) -> Response:
    """The answer that holds the content as JSON."""
    # Several times as fast as starlette's JSONResponse, which makes an encoder for each.
    return Response(to_json(content), status, headers, media_type)
