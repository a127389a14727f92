"""Who may do what. The roles belong to whoever provides the database; the migrations grant to those that exist."""

import logging

from sqlalchemy import Connection, text

log = logging.getLogger("migrations")


def withdraw_defaults(connection: Connection, roles: tuple[str, ...]) -> None:
    """Take away what the roles, or roles they are members of, would be granted on whatever is created from now on.

    The Postgres operator sets up its users so that a writer may read, change and delete whatever the owner creates.
    """
    for kind, schema, grantee in connection.execute(
        text(
            "SELECT DISTINCT CASE defaclobjtype WHEN 'r' THEN 'TABLES' ELSE 'SEQUENCES' END,"
            " quote_ident(nspname), quote_ident(grantee.rolname)"
            " FROM pg_default_acl CROSS JOIN aclexplode(defaclacl) AS acl"
            " LEFT JOIN pg_namespace ON pg_namespace.oid = defaclnamespace"
            " JOIN pg_roles AS grantee ON grantee.oid = acl.grantee"
            " JOIN pg_roles AS role ON role.rolname = ANY(:roles) AND pg_has_role(role.oid, grantee.oid, 'MEMBER')"
            " WHERE defaclobjtype IN ('r', 'S') AND defaclrole = current_user::regrole"
            " AND acl.grantee <> defaclrole"
        ),
        {"roles": list(roles)},
    ).all():
        where = f"IN SCHEMA {schema} " if schema else ""
        connection.execute(text(f"ALTER DEFAULT PRIVILEGES {where}REVOKE ALL ON {kind} FROM {grantee}"))


def grant(connection: Connection, privilege: str, relations: list[str], role: str) -> None:
    """Give the role this privilege on the relations."""
    if not _exists(connection, role):
        log.warning("there is no role %s: nothing is granted on %s", role, ", ".join(relations))
        return
    for relation in relations:
        connection.execute(text(f"GRANT {privilege} ON {relation} TO {_quoted(connection, role)}"))


def _exists(connection: Connection, role: str) -> bool:
    return bool(connection.scalar(text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": role}))


def _quoted(connection: Connection, role: str) -> str:
    return connection.dialect.identifier_preparer.quote(role)
