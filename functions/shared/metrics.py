"""The metrics that every function has at `/metrics`, for Prometheus. A function defines its own metrics itself."""

from prometheus_client import CONTENT_TYPE_LATEST, Counter, disable_created_metrics, generate_latest
from starlette.requests import Request
from starlette.responses import Response

HISTOGRAM_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""Bounds of histograms: from what an answer takes to how long a client waits."""

# Another series for each counter and histogram, which says when it began; Prometheus has no use for it in this format.
disable_created_metrics()

REQUESTS = Counter("temperature_requests", "Requests that were answered", ["function", "status", "reason"])


async def metrics(_: Request) -> Response:
    """Answer with all that is counted in this process."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
