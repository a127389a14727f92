"""Keeps passwords out of what is logged and said."""

import re

# Up to the last @ of the word: a password may hold one, and the name of a host may not.
_IN_URL = r"(://[^\s:/@]*:)\S*@"
# Of libpq's connection strings, as a word of its own or as a parameter of a URL; sslpassword and the like too.
_NAMED = r"(?i)((?:password|passwd|pwd|secret)\s*=\s*)(?:'(?:[^'\\]|\\.)*'?|[^\s&'\"]+)"


def masked(text: str) -> str:
    """The text with *** in place of every password that it holds in a URL, or behind `password=`."""
    if "@" not in text and "=" not in text:
        return text
    # Compiled, and kept by the module, when the first line needs it: a start has none.
    return re.sub(_NAMED, r"\1***", re.sub(_IN_URL, r"\1***@", text))
