"""Keeps passwords out of what is logged and said."""

import re

_USER_OF_URL = r"://[^\s:/@]*:"
# The names of secrets in libpq's connection strings, and in the parameters of a URL. Longer names such as sslpassword
# end alike. The last quote ends a value in quotes; the first space without a backslash ends another one. This rather
# masks too much than too little.
_NAME = r"(?is)((?:password|passwd|pwd|secret|scram_client_key|scram_server_key)\s*=\s*)"
_NAMED = _NAME + r"(?:\\*'(?:.*'|.*)|(?:\\+.|\S)+)"


def masked(text: str) -> str:
    """The text with *** in place of every password that it holds in a URL, or behind `password=`."""
    if "@" not in text and "=" not in text:
        return text
    # The first line that needs the patterns has them compiled; `re` keeps them. Most starts need none.
    return re.sub(_NAMED, r"\1***", re.sub(r"\S+", _without_password, text))


def _without_password(word: "re.Match[str]") -> str:
    # The last @ of the word ends the password: a password may hold an @, and the name of a host may not. So a word is
    # looked through once, however often a URL seems to begin in it.
    before, at, host = word[0].rpartition("@")
    user = re.search(_USER_OF_URL, before) if at else None
    if user is None:
        return word[0]
    shown = f"{before[: user.end()]}***"
    # The @ may belong to a parameter that is a password. Then the rest of that password follows it.
    return shown if re.search(_NAME, before[user.end() :]) else f"{shown}@{host}"
