"""A clock that is made up, for the database that `watch` looks at."""

from datetime import datetime
from typing import Any

import psycopg

from local.postgres import OWNER, WATCHER
from tests.support import Urls

_CLOCK = """
    CREATE SCHEMA clock;
    GRANT USAGE ON SCHEMA clock TO PUBLIC;
    CREATE FUNCTION clock.now() RETURNS timestamptz STABLE LANGUAGE sql AS $$
        SELECT current_setting('clock.now')::timestamptz
    $$;
    ALTER TABLE alarms ALTER noticed SET DEFAULT clock.now();
    ALTER TABLE alarm_events ALTER made SET DEFAULT clock.now(), ALTER next_attempt SET DEFAULT clock.now();
"""
"""What stands ahead of PostgreSQL's own now() in the search path of `watch`, whose statements stay as they are."""


def begin(urls: Urls) -> str:
    """Give a database such a clock, and return the address of it for `watch`."""
    with psycopg.connect(urls(OWNER), autocommit=True) as connection:
        connection.execute(_CLOCK)
    url = urls(WATCHER)
    return f"{url}{'&' if '?' in url else '?'}options=-csearch_path%3Dclock,public,pg_catalog"


def put(superuser: psycopg.Connection[Any], now: datetime) -> None:
    """Put the clock to an instant, for sessions of `watch` that begin from now on."""
    superuser.execute(f"ALTER ROLE {WATCHER} IN DATABASE {superuser.info.dbname} SET clock.now = '{now.isoformat()}'")
