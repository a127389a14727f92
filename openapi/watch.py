"""The description of `watch`."""

from http import HTTPStatus
from typing import Any

from pydantic import BaseModel

from openapi.document import JSON, Content, Count, Operation, of_every_function, schema_of
from openapi.document import document as described


class Checked(BaseModel):
    """So many alarms were raised and cleared; the sink took `sent` events, and `unsent` are left for later checks."""

    raised: Count
    cleared: Count
    sent: Count
    unsent: Count


def document() -> dict[str, Any]:
    """The OpenAPI document."""
    post = Operation(
        name="checkAlarms",
        method="post",
        path="/watch",
        summary="Raise and clear alarms",
        description="What came since the last check is compared with the rules, and the sink is told. `/` takes the"
        " same.",
        answers={
            HTTPStatus.OK: [Content(JSON, schema_of(Checked), {"raised": 1, "cleared": 0, "sent": 1, "unsent": 0})]
        },
        problems=[HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE],
    )
    return described("watch", "Raises and clears alarms of rooms.", [post, *of_every_function(ready=True)])
