"""Whether a commit is on as many copies as synchronous replication promises."""

from collections.abc import Callable
from typing import Any

import psycopg


class Unconfirmed(Exception):
    """A commit is on the primary only: its wait for a synchronous standby was cancelled.

    PostgreSQL calls that a success, with a warning. A failover loses it.
    """


def confirming(connection: psycopg.AsyncConnection[Any] | psycopg.Connection[Any]) -> Callable[[], None]:
    """A function that raises Unconfirmed if a commit on the connection was not confirmed since its last call."""
    unconfirmed = []

    def notice(diagnostic: psycopg.errors.Diagnostic) -> None:
        # The words are in the language of the server; this is the same in all, and since synchronous replication is.
        if diagnostic.source_function == "SyncRepWaitForLSN":
            unconfirmed.append(diagnostic.message_primary)

    def confirm() -> None:
        if unconfirmed:
            raise Unconfirmed(unconfirmed.pop())

    connection.add_notice_handler(notice)
    return confirm
