"""The description of `simulate`."""

from http import HTTPStatus
from typing import Any

from pydantic import BaseModel

from openapi.document import JSON, Content, Operation, of_every_function, schema_of
from openapi.document import document as described
from simulate.simulation import REQUEST


class Emitted(BaseModel):
    """The sink took `emitted` readings, for which some attempts were repeated."""

    emitted: int
    retried: int
    failed: int


def document() -> dict[str, Any]:
    """The OpenAPI document."""
    post = Operation(
        name="simulate",
        method="post",
        path="/simulate",
        summary="Emit simulated readings to the sink",
        description="Each is a CloudEvent; the same for the same rooms and instants. `/` takes the same.",
        body=[Content(JSON, REQUEST, {"profile": "daily", "backfill": "1h", "interval": 60})],
        body_required=False,
        answers={
            HTTPStatus.OK: [Content(JSON, schema_of(Emitted), {"emitted": 180, "retried": 0, "failed": 0})],
        },
        problems=[
            HTTPStatus.BAD_REQUEST,
            HTTPStatus.FORBIDDEN,
            HTTPStatus.METHOD_NOT_ALLOWED,
            HTTPStatus.REQUEST_TIMEOUT,
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            HTTPStatus.UNPROCESSABLE_ENTITY,
            HTTPStatus.BAD_GATEWAY,
            HTTPStatus.SERVICE_UNAVAILABLE,
        ],
    )
    return described("simulate", "Emits readings of rooms to a sink.", [post, *of_every_function(ready=False)])
