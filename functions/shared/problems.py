"""Errors as a client sees them: RFC 9457 problem details, and nothing of the inside."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import NotRequired, TypedDict

from starlette.responses import Response

from shared import answers

_PHRASES = {
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "Content Too Large",
    HTTPStatus.UNPROCESSABLE_ENTITY: "Unprocessable Content",
}
"""Where Python before 3.13 has others."""
MOST_FAULTS_LISTED = 1_000
"""How many faults an answer lists; ten thousand readings can have a hundred thousand."""
MOST_FIELD_CHARACTERS = 255
"""Of the name of a field in an answer: clients name fields that nobody knows."""


class Fault(TypedDict):
    """One thing wrong with a request: which reading (0 is the first), which field of it, and what it must be.

    `line` is where a reading of CSV begins in the body (1 is the first line, which is mostly the header).
    """

    index: int
    line: NotRequired[int]
    field: str
    message: str


def fault(field: str, message: str, index: int = 0) -> Fault:
    """What is wrong with a field of the request, or of the reading with this index."""
    return {"index": index, "field": field[:MOST_FIELD_CHARACTERS], "message": message}


def phrase(status: HTTPStatus) -> str:
    """The words for a status (RFC 9110, 15)."""
    return _PHRASES.get(status, status.phrase)


class Problem(Exception):
    """An answer other than success, raised anywhere below a function's edge.

    `detail` is read by the client: it says what to fix or when to come back. `members` are more for programs to read.
    `reason` is read by the operator: it tells apart answers of one status.
    """

    def __init__(
        self,
        status: HTTPStatus,
        detail: str,
        *,
        faults: Sequence[Fault] = (),
        members: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        reason: str = "",
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.faults = faults
        self.members = members or {}
        self.headers = headers
        self.reason = reason

    def response(self) -> Response:
        """The answer as `application/problem+json`."""
        body: dict[str, object] = {
            "type": "about:blank",
            "title": phrase(self.status),
            "status": self.status.value,
            "detail": self.detail,
        }
        if self.faults:
            body["errors"] = list(self.faults[:MOST_FAULTS_LISTED])
        if len(self.faults) > MOST_FAULTS_LISTED:
            body["detail"] = f"{self.detail}; the first {MOST_FAULTS_LISTED} faults are listed"
        body |= self.members
        return answers.json(body, self.status, headers=self.headers, media_type="application/problem+json")


def unavailable(reason: str, detail: str, retry_after_seconds: int = 1) -> Problem:
    """503: the request was fine, and may be sent again later."""
    headers = {"Retry-After": str(retry_after_seconds)}
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers=headers, reason=reason)


def stopping() -> Problem:
    """503: the instance ends before the request could be handled."""
    return unavailable("stopping", "This instance ends; send it again")
