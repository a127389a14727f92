"""Who may do what. The roles belong to whoever provides the database; the migrations grant to those that exist."""

import logging

from sqlalchemy import Connection, text

from migrations.database import REVISION_TABLE, run
from shared.settings import SettingError

log = logging.getLogger("migrations")


def check(connection: Connection) -> None:
    """Raise SettingError if the role that runs the migrations may not do what they do."""
    role, schema, path, may_create, owner = connection.execute(
        text(
            "SELECT quote_ident(current_user), quote_ident(current_schema()), current_setting('search_path'),"
            " has_schema_privilege(current_schema(), 'CREATE'), ("
            "   SELECT quote_ident(pg_get_userbyid(relowner)) FROM pg_class"
            "   JOIN pg_namespace ON pg_namespace.oid = relnamespace"
            "   WHERE nspname = current_schema() AND relname = ANY(:tables) AND NOT pg_has_role(relowner, 'USAGE')"
            "   LIMIT 1"
            " )"
        ),
        {"tables": [REVISION_TABLE, "temperatures", "rooms", "alarms"]},
    ).one()
    if schema is None:
        raise SettingError(
            f"None of the schemas that the search_path names ({path}) is there for the role {role}. Make one, as the"
            f" owner of the database: CREATE SCHEMA ... AUTHORIZATION {role}"
        )
    if not may_create:
        raise SettingError(
            f"The role {role} may create nothing in the schema {schema}. Allow it, as the owner of the schema or of the"
            f" database: GRANT CREATE ON SCHEMA {schema} TO {role}"
        )
    if owner:
        raise SettingError(
            f"The tables in the schema {schema} belong to the role {owner}, and the migrations run as {role}. Run them"
            f" as that role, or let this one act for it: GRANT {owner} TO {role}"
        )


def withdraw_defaults(connection: Connection, roles: tuple[str, ...]) -> None:
    """Take away what the roles, or roles they are members of, would be granted on whatever is created from now on.

    The Postgres operator sets up its users so that a writer may read, change and delete whatever the owner creates.
    """
    for kind, schema, grantee in connection.execute(
        text(
            "SELECT DISTINCT CASE defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' ELSE 'FUNCTIONS' END,"
            " quote_ident(nspname), quote_ident(grantee.rolname)"
            " FROM pg_default_acl CROSS JOIN aclexplode(defaclacl) AS acl"
            " LEFT JOIN pg_namespace ON pg_namespace.oid = defaclnamespace"
            " JOIN pg_roles AS grantee ON grantee.oid = acl.grantee"
            " JOIN pg_roles AS role ON role.rolname = ANY(:roles) AND pg_has_role(role.oid, grantee.oid, 'MEMBER')"
            " WHERE defaclobjtype IN ('r', 'S', 'f') AND pg_get_userbyid(defaclrole) = current_user"
            " AND acl.grantee <> defaclrole"
        ),
        {"roles": list(roles)},
    ).all():
        where = f"IN SCHEMA {schema} " if schema else ""
        run(connection, f"ALTER DEFAULT PRIVILEGES {where}REVOKE ALL ON {kind} FROM {grantee}")


def let_in(connection: Connection, role: str) -> None:
    """Let the role find what is in the schema, unless it may already."""
    may = text("SELECT has_schema_privilege(rolname, current_schema(), 'USAGE') FROM pg_roles WHERE rolname = :role")
    if connection.scalar(may, {"role": role}) is not False:
        return
    schema = connection.scalar(text("SELECT quote_ident(current_schema())"))
    statement = f"GRANT USAGE ON SCHEMA {schema} TO {_quoted(connection, role)}"
    # Where another role owns the schema, that is no error, and does nothing.
    run(connection, statement)
    if not connection.scalar(may, {"role": role}):
        log.warning("the role %s may not use the schema, and its owner alone can let it: %s", role, statement)


def say_what_hides_rows(connection: Connection, roles: tuple[str, ...]) -> None:
    """Warn of row level security: a function asks for all rows or none."""
    hidden = text(
        "SELECT quote_ident(rolname), string_agg(pg_class.oid::regclass::text, ', ' ORDER BY relname)"
        " FROM pg_class CROSS JOIN pg_roles"
        " WHERE relnamespace = quote_ident(current_schema())::regnamespace AND relrowsecurity AND rolname = ANY(:roles)"
        " AND NOT rolbypassrls AND NOT pg_has_role(pg_roles.oid, relowner, 'USAGE')"
        " AND has_any_column_privilege(pg_roles.oid, pg_class.oid, 'SELECT, INSERT, UPDATE') GROUP BY rolname"
    )
    for role, tables in connection.execute(hidden, {"roles": list(roles)}).all():
        log.warning(
            "row level security keeps the role %s from %s, and what needs that is answered 503. A superuser can let it"
            " pass: ALTER ROLE %s BYPASSRLS",
            role,
            tables,
            role,
        )


def grant(connection: Connection, privilege: str, relations: list[str], role: str) -> None:
    """Give the role this privilege on the relations."""
    if not _exists(connection, role):
        log.warning("there is no role %s: nothing is granted on %s", role, ", ".join(relations))
        return
    for relation in relations:
        run(connection, f"GRANT {privilege} ON {relation} TO {_quoted(connection, role)}")


def reserve(connection: Connection, functions: list[str]) -> None:
    """Revoke the functions, which run as their owner, from every other role that was granted them."""
    for function, grantee in connection.execute(
        text(
            "SELECT pg_proc.oid::regprocedure::text, quote_ident(rolname)"
            " FROM pg_proc CROSS JOIN aclexplode(proacl) AS acl JOIN pg_roles ON pg_roles.oid = acl.grantee"
            " WHERE pronamespace = quote_ident(current_schema())::regnamespace AND proname = ANY(:functions)"
            " AND acl.grantee <> proowner"
        ),
        {"functions": functions},
    ).all():
        run(connection, f"REVOKE ALL ON FUNCTION {function} FROM {grantee}")


def _exists(connection: Connection, role: str) -> bool:
    return bool(connection.scalar(text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": role}))


def _quoted(connection: Connection, role: str) -> str:
    return str(connection.scalar(text("SELECT quote_ident(:role)"), {"role": role}))
