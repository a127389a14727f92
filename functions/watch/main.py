"""The HTTP edge of `watch`: raises and clears alarms, and tells a sink of them. A timer asks for it every minute."""

import asyncio
import logging
import re
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path

import psycopg
from functions_framework import aio
from starlette.requests import Request
from starlette.responses import Response

from shared import access, answers, database, edge, logs, prefix, routes, settings, sink, sites
from shared.confirmation import Unconfirmed
from shared.problems import Problem, unavailable
from watch import alarms, rules

logs.configure()
log = logging.getLogger("watch")
DATABASE = database.load(connections=1)
TOKENS = access.tokens("WRITE_TOKENS")
RULES = rules.load()
SINK = sink.load("ALARM_SINK")
RETENTION = timedelta(days=settings.number("ALARM_RETENTION_DAYS", 365, least=0, most=36_500)) or None
CHECK_SECONDS = 40
"""So long a check goes on looking; what is left is for the next one."""
MOST_HOST_CHARACTERS = 300
"""Of the header Host, with the port. Each event names it in a header of its own, and a sink could refuse a long one."""
SCHEMA_PATH = "/watch/alarm.v1.json"
"""Where the JSON Schema of what sinks are told is."""
_SCHEMA_FILE = Path(__file__).parent / "alarm.v1.json"

# Checks of one process take turns, and so need one connection.
_turn = asyncio.Lock()


@aio.http
@edge.answered
async def watch(request: Request) -> Response:
    """Look at the readings that came since the last check, and answer 200 when the sink knows."""
    return await edge.route(request, _ROUTES)


async def _check(request: Request) -> Response:
    addressee = _addressee(request)
    try:
        async with asyncio.timeout(DATABASE.deadline_seconds):
            await _turn.acquire()
    except TimeoutError:
        raise unavailable("busy", "Another check is still going on; check again", 30) from None
    try:
        return await _checked(addressee)
    except (
        TimeoutError,
        psycopg.OperationalError,
        psycopg.InternalError,
        Unconfirmed,
        *database.NOT_MIGRATED_ERRORS,
        *database.EXTENSION_UPDATED_ERRORS,
    ) as error:
        raise database.unanswered(error, "check again") from error
    finally:
        _turn.release()


async def _checked(addressee: alarms.Addressee) -> Response:
    found = await alarms.check(DATABASE, RULES, addressee, RETENTION, CHECK_SECONDS)
    sent, unsent, reason = 0, found.unsent, ""
    if found.due:
        # What sends is not loaded before there is something to send.
        from watch import outbox

        sent, unsent, reason = await outbox.send(DATABASE, SINK, addressee.dataschema)
    counts = {"raised": found.raised, "cleared": found.cleared, "sent": sent, "unsent": unsent}
    words = ", ".join(f"{count} {name}" for name, count in counts.items())
    if found.unfinished:
        words += ", the rest is left to the next check"
    log.log(logging.WARNING if reason or found.unfinished else logging.INFO, "%s", words, extra={"fields": counts})
    if reason:
        detail = f"The sink did not take all events, and gets them again later: {reason}"
        raise Problem(HTTPStatus.BAD_GATEWAY, detail, members=counts)
    return answers.json(counts)


def _addressee(request: Request) -> alarms.Addressee:
    """Who is told, and of which request. Raises Problem 400 for a host with too long a name."""
    if len(request.base_url.netloc) > MOST_HOST_CHARACTERS:
        raise Problem(HTTPStatus.BAD_REQUEST, f"The header Host has at most {MOST_HOST_CHARACTERS} characters")
    traceparent = request.headers.get("traceparent", "")
    known = re.fullmatch(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", traceparent)
    return alarms.Addressee(
        sink=SINK.digest if SINK.url else None,
        dataschema=str(request.base_url.replace(path=prefix.of(request.scope["path"]) + SCHEMA_PATH, query="")),
        traceparent=traceparent if known else None,
    )


async def _schema(_: Request) -> Response:
    return Response(_SCHEMA_FILE.read_bytes(), media_type="application/schema+json")


_post = edge.Route(edge.POST, access.needs_token(TOKENS, sites.no_foreign_pages(_check)))
_ROUTES: edge.Routes = {
    "": _post,
    "/watch": _post,
    SCHEMA_PATH: edge.Route(edge.GET, _schema),
    "/ready": edge.Route(edge.GET, database.ready(DATABASE)),
    **routes.of_every_function("watch", TOKENS),
}
