"""What a client can read, from its headers Accept and Accept-Encoding (RFC 9110, 12.5)."""

from collections.abc import Iterable


def quality(header: str, wanted: str) -> float:
    """How much the header asks for what is wanted, from 0 (not at all) to 1: a media type, or the name of a coding.

    If several ranges include it, the narrowest counts.
    """
    kind = wanted.partition("/")[0]
    found = {}
    for each in header.lower().split(","):
        name, *parameters = (part.strip() for part in each.split(";"))
        if name in {wanted, f"{kind}/*", "*/*", "*"}:
            found[name] = _weight(parameters)
    for name in (wanted, f"{kind}/*", "*/*", "*"):
        if name in found:
            return found[name]
    return 0.0


def prefers(header: str, wanted: str, default: str) -> bool:
    """Whether a client would rather have a media type than the default one.

    If it likes both as much: whether it names the type, and not the default one before. Clients that are generated name
    all types that there are, first the one that they read best.
    """
    asked, otherwise = quality(header, wanted), quality(header, default)
    if asked != otherwise:
        return asked > otherwise
    named = [each.partition(";")[0].strip() for each in header.lower().split(",")]
    return asked > 0 and wanted in named and default not in named[: named.index(wanted)]


def choice(header: str, offered: Iterable[str]) -> str:
    """The media type of those offered that a client would rather have than the ones before; else the first."""
    best, *others = offered
    for other in others:
        if prefers(header, other, best):
            best = other
    return best


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return min(max(float(value), 0.0), 1.0)
            except ValueError:
                return 0.0
    return 1.0
