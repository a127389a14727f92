"""What is said of readings that are refused, in whatever form they come."""

from collections.abc import Sequence
from http import HTTPStatus

from shared.problems import Fault, Problem

MOST_READINGS = 10_000
"""Of one request."""


def refused(found: Sequence[Fault]) -> Problem:
    """422 for readings that break a rule."""
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "Nothing was stored: some readings break a rule", faults=found)


def too_many() -> Problem:
    """413 for more readings than a request may hold."""
    return Problem(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"A request holds at most {MOST_READINGS} readings; send them in parts"
    )
