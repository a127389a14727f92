"""The HTTP edge of `simulate`, and its command line: emits readings of rooms to a sink, each as a CloudEvent.

Simulating an instant again emits the very same events, see `simulation`; so a call may be repeated at will.
"""

import argparse
import asyncio
import json
import logging
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from http import HTTPStatus
from typing import TYPE_CHECKING

from functions_framework import aio
from starlette.requests import Request
from starlette.responses import Response

from shared import access, answers, body, edge, logs, routes, sink, sites
from shared.problems import Problem, unavailable
from shared.settings import whole_number
from shared.sink import Sink
from simulate import events
from simulate.simulation import PROFILES, Room, Simulation, parse

if TYPE_CHECKING:
    from shared.delivery import Outcome

MOST_BODY_BYTES = 1024 * 1024

logs.configure()
log = logging.getLogger("simulate")
SINK = sink.load("SINK")
_NO_SINK = "No sink: set K_SINK or SINK_URL"
BODIES = body.Receiver(MOST_BODY_BYTES)


@aio.http
@edge.answered
async def simulate(request: Request) -> Response:
    """Emit the readings that a POST asks for and answer 200 once the sink has taken all of them."""
    return await edge.route(request, _ROUTES)


async def _emit(request: Request) -> Response:
    simulation = parse(await BODIES.receive(request, edge.headers(request)))
    if not SINK.url:
        raise unavailable("no_sink", _NO_SINK)
    outcome = await _deliver(simulation, SINK)
    log.log(logging.WARNING if outcome.failed else logging.INFO, "%s", outcome)
    counts = {"emitted": outcome.emitted, "retried": outcome.retried, "failed": outcome.failed}
    if outcome.failed:
        raise Problem(HTTPStatus.BAD_GATEWAY, str(outcome), members=counts)
    return answers.json(counts)


# Whoever may have readings written may have them simulated.
TOKENS = access.tokens("WRITE_TOKENS")
_post = edge.Route(edge.POST, access.needs_token(TOKENS, sites.no_foreign_pages(_emit)))
_ROUTES: edge.Routes = {
    "": _post,
    "/simulate": _post,
    **routes.of_every_function("simulate", TOKENS),
}


async def _deliver(simulation: Simulation, target: Sink, done: Callable[..., object] = lambda *_: None) -> "Outcome":
    # A start would pay for it.
    from shared import delivery

    return await delivery.emit(simulation, events.of(target), target, done=done, turns=_turns())


@cache
def _turns() -> asyncio.Semaphore:
    # Made by the first simulation: the framework imports this module before the server forks, and it needs the loop.
    from shared.delivery import CONNECTIONS

    return asyncio.Semaphore(CONNECTIONS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Emit what the command line asks for, print the outcome and return the exit status: 1 if any reading failed."""
    parser = _parser()
    options = vars(parser.parse_args(arguments))
    target = replace(SINK, url=options.pop("sink") or SINK.url)
    if not target.url:
        parser.error(_NO_SINK)
    sink.check_authorization(target.url, target.token, "SINK_TOKEN")
    try:
        simulation = parse(json.dumps({name: value for name, value in options.items() if value is not None}).encode())
    except Problem as problem:
        parser.error("; ".join(f"{fault['field']} {fault['message']}" for fault in problem.faults) or problem.detail)
    started = time.perf_counter()
    try:
        outcome = asyncio.run(_deliver_with_progress(simulation, target))
    except KeyboardInterrupt:
        print("Stopped; what was sent stays, and the same command sends the rest", file=sys.stderr)
        return 128 + signal.SIGINT
    print(f"{outcome}; took {time.perf_counter() - started:.1f} s")
    return 1 if outcome.failed else 0


async def _deliver_with_progress(simulation: Simulation, target: Sink) -> "Outcome":
    if not sys.stderr.isatty():
        return await _deliver(simulation, target)
    # Only a person at a terminal needs it.
    from tqdm import tqdm

    with tqdm(total=len(simulation), unit=" readings") as bar:
        return await _deliver(simulation, target, done=lambda *_: bar.update())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Emit simulated temperature readings to a sink, each as a CloudEvent.",
        epilog="Readings of the same rooms, instants and profile are the same every time.",
    )
    parser.add_argument("--sink", type=_url, metavar="URL", help="where events go (default: K_SINK, else SINK_URL)")
    parser.add_argument(
        "--room",
        dest="rooms",
        action="append",
        type=_room,
        metavar="BUILDING/ROOM",
        help="a room; repeat it for more (default: B1/101, B1/102 and B2/201)",
    )
    parser.add_argument(
        "--interval", type=whole_number, metavar="SECONDS", help="between the readings of a room (default: 5)"
    )
    parser.add_argument(
        "--count", type=whole_number, metavar="N", help="readings of each room, the last one now (default: 1)"
    )
    parser.add_argument("--backfill", metavar="PERIOD", help="instead of --count: a past period such as 90m or 2d")
    parser.add_argument("--profile", choices=PROFILES, help="what the temperatures are like (default: uniform)")
    return parser


def _url(text: str) -> str:
    if not sink.is_usable(text):
        raise argparse.ArgumentTypeError("must be an http or https URL")
    return text


def _room(text: str) -> Room:
    building_id, _, room_id = text.partition("/")
    return Room(building_id=building_id, room_id=room_id)


if __name__ == "__main__":
    sys.exit(main())
