"""The API description of `watch`."""

from http import HTTPStatus
from typing import Any

from pydantic import BaseModel

from shared.openapi import Content, Operation, schema_of
from shared.openapi import document as described


class Checked(BaseModel):
    """So many alarms were raised and cleared; the sink took `sent` events, and `unsent` are left for later checks."""

    raised: int
    cleared: int
    sent: int
    unsent: int


def document(*, token: bool = False) -> dict[str, Any]:
    """The OpenAPI document; `token` says whether the settings list some."""
    post = Operation(
        method="post",
        path="/watch",
        summary="Compare what came since the last check with the rules: raise and clear alarms, and tell the sink",
        answers={
            HTTPStatus.OK: [
                Content("application/json", schema_of(Checked), {"raised": 1, "cleared": 0, "sent": 1, "unsent": 0})
            ]
        },
        problems=[HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE],
    )
    return described("watch", "Raises and clears alarms of rooms.", [post], token=token)
