"""What every function answers beside its own work: whether it is alive, what it did, and how it is used."""

from collections.abc import Sequence
from pathlib import Path

from shared import access, description, documentation, edge
from shared.metrics import metrics

_FUNCTIONS = Path(__file__).parent.parent


def of_every_function(function: str, tokens: Sequence[bytes]) -> edge.Routes:
    """The routes; what was done needs one of the tokens, if there are any."""
    return {
        "/health": (edge.GET, edge.health),
        "/metrics": (edge.GET, access.needs(tokens, metrics)),
        "/openapi.json": (
            edge.GET,
            description.answers(
                _FUNCTIONS / function / "openapi.json",
                lambda method, path: access.is_for_admins(method, path) or bool(tokens),
            ),
        ),
        **documentation.ROUTES,
    }
