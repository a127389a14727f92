"""Guards names in CSV: anybody may choose a name, and a spreadsheet would take some of them for formulas.

What begins like a formula gets an apostrophe before it, which spreadsheets show as a part of the text. It is taken away
again where CSV comes in. A name that has such an apostrophe of its own gets one more, so that every name comes back.
"""

import re

READING_COLUMNS = ("building_id", "room_id", "timestamp", "temperature")
"""Of CSV that holds readings, in the order in which it is written."""

_FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
# Which is no formula, whatever it begins with.
_NUMBER = re.compile(r"'*-?\d+(\.\d+)?(e[-+]?\d+)?", re.ASCII)


def guarded(text: str) -> str:
    """The text as it stands in CSV."""
    return f"'{text}" if _begins_like_a_formula(text) else text


def unguarded(text: str) -> str:
    """The opposite of `guarded`. A text that was never guarded stays as it is."""
    return text[1:] if text.startswith("'") and _begins_like_a_formula(text) else text


def _begins_like_a_formula(text: str) -> bool:
    return bool(_FORMULA.match(text)) and not _NUMBER.fullmatch(text)
