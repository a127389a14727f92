"""What a client can read, from its headers Accept and Accept-Encoding (RFC 9110, 12.5)."""

from collections.abc import Iterable, Mapping


def quality(header: str, wanted: str) -> float:
    """How much the header asks for what is wanted, from 0 (not at all) to 1: a media type, or the name of a coding."""
    return _quality(_weights(header), wanted)


def choice(header: str, offered: Iterable[str]) -> str:
    """The media type that a client would rather have than the others that are offered.

    If it likes several as much, the one that it names first, and else the first: clients that are generated name all
    types that there are, and first the one that they read best.
    """
    weights = _weights(header)
    places = {name: place for place, name in enumerate(weights)}

    def liking(media_type: str) -> tuple[float, int]:
        weight = _quality(weights, media_type)
        return weight, -(places.get(media_type, len(places)) if weight else 0)

    return max(offered, key=liking)


def _weights(header: str) -> Mapping[str, float]:
    """What a header names, and how much it asks for each. Read once: a header may be long."""
    found = {}
    for each in header.lower().split(","):
        name, *parameters = (part.strip() for part in each.split(";"))
        found[name] = _weight(parameters)
    return found


def _quality(weights: Mapping[str, float], wanted: str) -> float:
    """That of the narrowest range that includes what is wanted."""
    kind = wanted.partition("/")[0]
    return next((weights[name] for name in (wanted, f"{kind}/*", "*/*", "*") if name in weights), 0.0)


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return min(max(float(value), 0.0), 1.0)
            except ValueError:
                return 0.0
    return 1.0
