"""The sink of events that could not be delivered: logs them, with the reason that Knative adds to each."""

import logging

from cloudevents.exceptions import GenericException
from cloudevents.http import from_http
from functions_framework import aio
from starlette.requests import Request
from starlette.responses import Response

logging.basicConfig(level=logging.INFO, format="%(asctime)s - %(levelname)s - %(name)s - %(message)s")
log = logging.getLogger("dead-letters")


@aio.http
async def dead_letters(request: Request) -> Response:
    """Log the event."""
    try:
        event = from_http(dict(request.headers), await request.body())
    except GenericException as error:
        return Response(f"This is not an event: {error}\n", status_code=400, media_type="text/plain")
    log.warning("%s %s", dict(event.get_attributes()), event.get_data())
    # An answer with a body would have to be an event.
    return Response(status_code=204)
