"""The settings that say where the database is: DATABASE_URL and its like, which may hold a password."""

from psycopg import ProgrammingError, pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from shared import settings

FORMS = (
    "Write postgresql://USER:PASSWORD@HOST:PORT/NAME, each special character of the password as % and its two"
    " hexadecimal digits (@ is %40, / is %2F), or host=HOST dbname=NAME user=USER password='PASSWORD'"
)

_NOWHERE = {"host": "/dev/null", "hostaddr": ""}
"""No folder of a socket: libpq is ready with it before it reaches a network."""


def load(name: str = "DATABASE_URL") -> str:
    """The setting as libpq takes it; empty if it is not set, so that libpq's own variables count (PGHOST ...).

    Raises SettingError for one that libpq cannot use, or would take apart in another way than it was meant. libpq's own
    error would quote a wrong part of it, perhaps the password. The SettingError quotes nothing of it.
    """
    url = settings.text(name)
    scheme, separator, rest = url.partition("://")
    if separator and scheme.partition("+")[0] in {"postgresql", "postgres"} and "+" in scheme:
        raise settings.SettingError(
            f"{name} names a driver of SQLAlchemy. Leave it out: postgresql:// instead of postgresql+DRIVER://"
        )
    try:
        parts = conninfo_to_dict(url)
    except ProgrammingError:
        parts = None
    is_url = scheme in {"postgresql", "postgres"} and bool(separator)
    if parts is None or (is_url and not _whole(rest)) or not _numbers(str(parts.get("port", ""))):
        raise settings.SettingError(f"{name} is not a connection string that can be used. {FORMS}")
    return url


def own_options(url: str) -> str:
    """The `options` that libpq would ask the server for: of the URL, of the service that it names, or of PGOPTIONS."""
    attempt = pq.PGconn.connect_start(make_conninfo(url, **_NOWHERE).encode())
    found = {option.keyword: option.val for option in attempt.info}
    return (found[b"options"] or b"").decode()


def _whole(rest: str) -> bool:
    """Whether what follows postgresql:// has its parts where they seem to be: one @ at most, ahead of the first slash.

    Every other sign that libpq could take for the end of a part must be encoded, and so must what ends a word. The
    value of a parameter may hold anything else; its name is written as it is.
    """
    user, at, behind = rest.partition("@")
    place, _, parameters = (behind if at and "/" not in user else rest).partition("?")
    names = [parameter.partition("=")[0] for parameter in parameters.split("&")]
    return "@" not in place and "%" not in "".join(names) and len(rest.split()) <= 1


def _numbers(ports: str) -> bool:
    return all(not port or port.isdecimal() for port in ports.replace(" ", "").split(","))
