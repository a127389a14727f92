"""What every function answers beside its own work: whether it is alive, what it did, and how it is used."""

from collections.abc import Callable, Sequence
from pathlib import Path

from shared import access, description, documentation, edge
from shared.metrics import metrics

_FUNCTIONS = Path(__file__).parent.parent


def of_every_function(
    function: str, tokens: Sequence[bytes], always: Callable[[str, str], bool] = lambda *_: False
) -> edge.Routes:
    """The routes; what was done needs one of the tokens, if there are any.

    `always` says of a method and a path whether a token is needed whatever the settings list.
    """
    return {
        "/health": (edge.GET, edge.health),
        "/metrics": (edge.GET, access.needs(tokens, metrics)),
        "/openapi.json": (
            edge.GET,
            description.answers(_FUNCTIONS / function / "openapi.json", lambda *which: bool(tokens) or always(*which)),
        ),
        **documentation.ROUTES,
    }
