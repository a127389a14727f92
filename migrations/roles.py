"""Who may do what. The roles belong to whoever provides the database; the migrations grant to those that exist."""

import logging

from sqlalchemy import Connection, text

log = logging.getLogger("migrations")


def grant(connection: Connection, privilege: str, relations: list[str], role: str) -> None:
    """Give the role this privilege on the relations and take away all others, which it may have by default."""
    if not connection.scalar(text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": role}):
        log.warning("there is no role %s: nothing is granted on %s", role, ", ".join(relations))
        return
    quoted = connection.dialect.identifier_preparer.quote(role)
    for relation in relations:
        connection.execute(text(f"REVOKE ALL ON {relation} FROM {quoted}"))
        connection.execute(text(f"GRANT {privilege} ON {relation} TO {quoted}"))
