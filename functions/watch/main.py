"""The HTTP edge of `watch`: raises and clears alarms, and tells a sink of them. A timer asks for it every minute."""

import asyncio
import logging
from http import HTTPStatus

import psycopg
from functions_framework import aio
from starlette.requests import Request
from starlette.responses import Response

from shared import access, database, edge, logs, routes, settings, sink, sites
from shared.confirmation import Unconfirmed
from shared.problems import Problem, unavailable
from watch import alarms, rules

logs.configure()
log = logging.getLogger("watch")
TOKENS = access.tokens("WRITE_TOKENS")
RULES = rules.load()
EXTENSIONS = sink.extensions()
TOKEN = settings.text("ALARM_SINK_TOKEN")
PATIENCE = sink.patience()
# A transaction waits while its events are sent.
DATABASE = database.load(connections=1, idle=30 + PATIENCE)

# Checks of one process take turns, and so need one connection.
_turn = asyncio.Lock()


@aio.http
@edge.answered
async def watch(request: Request) -> Response:
    """Compare the readings that came since the last check with the rules, and answer 200 when the sink knows."""
    return await edge.route(request, _ROUTES)


async def _check(_: Request) -> Response:
    async with _turn:
        try:
            checked = await database.within(DATABASE.deadline, alarms.check(DATABASE, RULES))
            sent, unsent, reason = 0, checked.unsent, ""
            if unsent and (url := sink.url("ALARM_SINK_URL")):
                sent, unsent, reason = await _send(url)
        except (TimeoutError, psycopg.OperationalError, psycopg.InternalError, Unconfirmed) as error:
            raise unavailable("deadline", "The database does not answer; check again", 5) from error
    counts = {"raised": checked.raised, "cleared": checked.cleared, "sent": sent, "unsent": unsent}
    words = ", ".join(f"{count} {name}" for name, count in counts.items())
    log.log(logging.WARNING if reason else logging.INFO, "%s", words, extra={"fields": counts})
    if reason:
        detail = f"The sink did not take all events, and gets them again with the next check: {reason}"
        raise Problem(HTTPStatus.BAD_GATEWAY, detail, members=counts)
    return edge.json(counts)


async def _send(url: str) -> tuple[int, int, str]:
    # What sends is not loaded before there is something to send.
    from shared.delivery import Sink
    from watch import outbox

    return await outbox.send(DATABASE, Sink(url, TOKEN, PATIENCE), EXTENSIONS)


_post = (edge.POST, access.needs(TOKENS, sites.own(_check)))
_ROUTES: edge.Routes = {
    "": _post,
    "/watch": _post,
    "/ready": (edge.GET, database.ready(DATABASE)),
    **routes.of_every_function("watch", TOKENS),
}
