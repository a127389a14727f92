"""Variables that lead PostgreSQL and its clients to another server, and such a server."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from psycopg import pq

OTHERS = {
    "PGSERVICEFILE": "/nonexistent",
    "PGSYSCONFDIR": "/nonexistent",
    "PGTZ": "Asia/Kolkata",
    "PGDATESTYLE": "German",
    "PGGEQO": "nonsense",
    "PGDATA": "/nonexistent",
    "PG_COLOR": "always",
    "TZ": "Europe/Berlin",
    "LC_ALL": "tr_TR.UTF-8",
    "LANG": "nonsense",
}
"""What libpq and PostgreSQL's programs read beside what libpq lists."""
HOSTILE = {
    "PGCONNECT_TIMEOUT": "2",
    "PGHOST": "127.0.0.1",
    "PGHOSTADDR": "127.0.0.1",
    "PGCLIENTENCODING": "LATIN1",
    "PGOPTIONS": "-c search_path=nowhere -c timezone=Asia/Kolkata",
    "PGTARGETSESSIONATTRS": "standby",
    "PGREQUIREAUTH": "scram-sha-256",
    "PGSSLMODE": "verify-full",
    "PGLOADBALANCEHOSTS": "random",
}
"""What does harm; to the others any word does."""


def variables(port: int) -> dict[str, str]:
    """All of libpq's variables, those of future versions too, and what else PostgreSQL reads."""
    listed = [option.envvar.decode() for option in pq.Conninfo.get_defaults() if option.envvar]
    return {**dict.fromkeys(listed, "nonsense"), "PGPORT": str(port), **HOSTILE, **OTHERS}


@contextmanager
def other_server() -> Iterator[tuple[int, list[object]]]:
    """A port where another server might be, and who came there."""
    came: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    connection, address = listener.accept()
                except OSError:
                    return
                connection.close()
                came.append(address)

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1], came
