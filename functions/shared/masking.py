"""Keeps passwords out of what is logged and said."""

import re

# Up to the last @ of the word: a password may hold one, and the name of a host may not.
_IN_URL = r"(://[^\s:/@]*:)(\S*)@([^\s@]*)"
# Of libpq's connection strings, as a word of its own or as a parameter of a URL; sslpassword and the like too. What is
# in quotes ends with the last quote there is, and a word with what is not escaped: rather too much than too little.
_NAME = r"(?is)((?:password|passwd|pwd|secret|scram_client_key|scram_server_key)\s*=\s*)"
_NAMED = _NAME + r"(?:\\*'(?:.*'|.*)|(?:\\+.|\S)+)"


def masked(text: str) -> str:
    """The text with *** in place of every password that it holds in a URL, or behind `password=`."""
    if "@" not in text and "=" not in text:
        return text
    # Compiled, and kept by the module, when the first line needs it: a start has none.
    return re.sub(_NAMED, r"\1***", re.sub(_IN_URL, _without_password, text))


def _without_password(url: "re.Match[str]") -> str:
    # The @ may be one of the parameter that is a password, and what follows the rest of it.
    return f"{url[1]}***" if re.search(_NAME, url[2]) else f"{url[1]}***@{url[3]}"
