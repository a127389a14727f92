"""The sink of events that could not be delivered: logs them, with the reason that Knative adds to each."""

import logging

from cloudevents.http import CloudEvent
from functions_framework import aio

logging.basicConfig(level=logging.INFO, format="%(asctime)s - %(levelname)s - %(name)s - %(message)s")
log = logging.getLogger("dead-letters")


@aio.cloud_event
def dead_letters(event: CloudEvent) -> None:
    """Log the event."""
    log.warning("%s %s", dict(event.get_attributes()), event.get_data())
