"""The routes that every function has: its health, its metrics, and the description of its API."""

from collections.abc import Sequence
from pathlib import Path

from shared import access, description, documentation, edge
from shared.metrics import metrics

_FUNCTIONS = Path(__file__).parent.parent


def of_every_function(function: str, tokens: Sequence[bytes]) -> edge.Routes:
    """The routes. The metrics need one of the tokens, if there are any."""
    return {
        "/health": edge.Route(edge.GET, edge.health),
        "/metrics": edge.Route(edge.GET, access.needs_token(tokens, metrics)),
        "/openapi.json": edge.Route(
            edge.GET,
            description.answering(
                _FUNCTIONS / function / "openapi.json",
                lambda method, path: access.is_for_admins(method, path) or bool(tokens),
            ),
        ),
        **documentation.ROUTES,
    }
