"""Keeps passwords out of what is logged and said."""

import re

# The last @ of the word ends the password: a password may hold an @, and the name of a host may not.
_IN_URL = r"(://[^\s:/@]*:)(\S*)@([^\s@]*)"
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
    return re.sub(_NAMED, r"\1***", re.sub(_IN_URL, _without_password, text))


def _without_password(url: "re.Match[str]") -> str:
    # The @ may belong to a parameter that is a password. Then the rest of that password follows it.
    return f"{url[1]}***" if re.search(_NAME, url[2]) else f"{url[1]}***@{url[3]}"
