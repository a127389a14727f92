"""The HTTP edge of `average`: answers questions about the readings."""

import asyncio
import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from functions_framework import aio
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from average import courses, questions, readings
from average.courses import Course, CourseOptions
from average.queries import AlarmPlace, Scope, Temperatures
from shared import access, answers, conninfo, database, edge, logs, negotiation, routes, settings, sites
from shared.pages import Site
from shared.problems import Problem
from shared.readings import written

if TYPE_CHECKING:
    from average.removals import Removals

Point = dict[str, Any]
"""What a series says of a bucket."""

logs.configure()
edge.collect_garbage_rarely()
LOCK_WAIT_SECONDS = 0.5
"""A statement waits so long for a lock. Then another question gets the connection, and the statement is tried again."""
DATABASE = database.load(connections=4, lock_seconds=LOCK_WAIT_SECONDS)
TOKENS = access.tokens("READ_TOKENS")
ADMIN_TOKENS = access.tokens("ADMIN_TOKENS", "let nobody remove readings")
ADMIN_URL = conninfo.load("ADMIN_DATABASE_URL")
"""The database as the role that may remove readings. If it is empty, the role of DATABASE_URL must be allowed to."""
REMOVED_FOR_DAYS = settings.number("REMOVED_FOR_DAYS", 30, least=0, most=questions.LONGEST_KEPT_OUT_DAYS)
"""For so long, readings that were removed are not stored again."""
ALIGNMENT = timedelta(minutes=settings.number("ALIGNMENT_INTERVAL", 4, least=1, most=1440))
SLICE_BUCKETS = 500
"""Of a series, whose points are made at a time: 10,000 take up to 0.1 s."""
DASHBOARD = Site(
    "dashboard",
    Path(__file__).parent / "dashboard",
    {
        "uplot.js": "youplot/vendor/uplot.iife.min.js",
        "uplot.css": "youplot/vendor/uplot.min.css",
    },
)


@aio.http
@edge.answered
async def average(request: Request) -> Response:
    """Answer a question about the readings."""
    return await edge.route(request, _ROUTES)


async def _average(request: Request) -> Response:
    scope, options = questions.average(edge.query(request), datetime.now(UTC), ALIGNMENT)
    values = courses.values(await _database().average(scope, options), options, scope.zone)
    answer = {**values, **_weighted(options), **_named(scope)}
    if not values["count"] and values["average_temperature"] is None:
        answer["message"] = "No data found"
    return answers.json(answer)


async def _series(request: Request) -> Response:
    scope, buckets, options = questions.series(edge.query(request), datetime.now(UTC), ALIGNMENT)
    points = await _points(await _database().series(scope, buckets, options), options, scope.zone)
    if negotiation.choice(edge.headers(request).get("accept", ""), ("application/json", "text/csv")) == "text/csv":
        answer = _csv([courses.flat(point) for point in points], ["start", *courses.columns(options)])
    else:
        width = buckets.bucket.fixed_width(buckets.zone)
        seconds = None if width is None else int(width.total_seconds())
        bucket = {"bucket": buckets.bucket.text, "bucket_seconds": seconds}
        answer = answers.json({**_named(scope), **_weighted(options), **bucket, "series": points})
    answer.headers["Vary"] = "Accept"
    return answer


async def _points(found: Sequence[tuple[datetime, Course]], options: CourseOptions, zone: tzinfo | None) -> list[Point]:
    """A point for each bucket. Other requests are served in between."""
    points: list[Point] = []
    for begin in range(0, len(found), SLICE_BUCKETS):
        points += (
            {"start": written(start, zone), **courses.values(course, options, zone)}
            for start, course in found[begin : begin + SLICE_BUCKETS]
            if course.readings or options.holds
        )
        await asyncio.sleep(0)
    return points


async def _readings(request: Request) -> Response:
    accept = edge.headers(request).get("accept", "")
    question = questions.readings(edge.query(request), accept, datetime.now(UTC), ALIGNMENT)
    scope, media_type = question.scope, question.media_type
    form = readings.FORMS[media_type]
    walk = readings.Walk(_database(), scope, form, question.after)
    headers = {"Vary": "Accept"}
    if form is readings.JSON:
        lines, place = await walk.some(question.limit or questions.MOST_READINGS)
        head = to_json({**_named(scope), "next": place and readings.line(scope.building_id, place)})
        return Response(b'%b,"readings":[%b]}' % (head[:-1], lines[:-1]), headers=headers, media_type=media_type)
    headers["Content-Disposition"] = f'attachment; filename="{_file_name(scope)}.{form.suffix}"'
    if form is readings.CSV:
        media_type += f"; charset=utf-8; header={'absent' if question.after else 'present'}"
    begin = readings.CSV_HEADER if form is readings.CSV and not question.after else b""
    # Before the answer begins, which could not be refused any more.
    pages = walk.pages(question.limit)
    first = begin + await anext(pages, b"")
    if walk.over:
        return Response(first, headers=headers, media_type=media_type)
    return readings.Download(
        readings.following(first, pages, request.method == "HEAD"), headers=headers, media_type=media_type
    )


async def _rooms(request: Request) -> Response:
    building_id, after, limit = questions.rooms(edge.query(request))
    # One more tells whether there are more.
    found = await _database().rooms(building_id, after, limit + 1)
    shown = found[:limit]
    return answers.json(
        {
            "rooms": [
                {
                    "building_id": room.building_id,
                    "room_id": room.room_id,
                    "latest": {"temperature": room.temperature, "timestamp": written(room.timestamp)},
                }
                for room in shown
            ],
            "next": questions.cursor(shown[-1].building_id, shown[-1].room_id) if len(found) > limit else None,
        }
    )


async def _alarms(request: Request) -> Response:
    scope = questions.alarms(edge.query(request), datetime.now(UTC))
    # One more tells whether there are more.
    found = await _database().alarms(replace(scope, limit=scope.limit + 1))
    shown = found[: scope.limit]
    return answers.json(
        {
            "alarms": [alarm._asdict() for alarm in shown],
            "open": await _database().open_alarms(scope),
            "next": questions.cursor(*AlarmPlace.of(shown[-1])) if len(found) > scope.limit else None,
        }
    )


async def _remove(request: Request) -> Response:
    return await _removed(request, questions.removal(edge.query(request), REMOVED_FOR_DAYS))


async def _forget(request: Request) -> Response:
    return await _removed(request, questions.forgetting(edge.query(request), REMOVED_FOR_DAYS))


async def _removed(request: Request, asked: dict[str, Any]) -> Response:
    from average import removals

    if asked["dry_run"]:
        rooms = await _removals_of_database().preview(asked)
        meant = {name: asked[name] for name in ("building_id", "room_id", "start", "end", "above", "below")}
        readings = sum(room.readings for room in rooms)
        return answers.json(
            {"dry_run": True, **meant, "readings": readings, "rooms": [room._asdict() for room in rooms]}
        )
    removal = await _removals_of_database().remove(asked, access.fingerprint(request))
    if removal.finished:
        return answers.json(removal._asdict())
    return answers.json({**removal._asdict(), "message": removals.UNFINISHED}, HTTPStatus.ACCEPTED)


async def _removals(request: Request) -> Response:
    building_id, after, limit = questions.removals(edge.query(request))
    # One more tells whether there are more.
    found = await _removals_of_database().listed(building_id, after, limit + 1)
    shown = found[:limit]
    return answers.json(
        {
            "removals": [removal._asdict() for removal in shown],
            "next": questions.cursor(shown[-1].asked, shown[-1].id) if len(found) > limit else None,
        }
    )


@cache
def _removals_of_database() -> "Removals":
    # A start would pay for it.
    from average.removals import Removals

    return Removals(replace(DATABASE, url=ADMIN_URL or DATABASE.url))


def _admin(function: edge.Function) -> edge.Function:
    """Have the function answer only who has one of ADMIN_TOKENS, and no page of another site."""
    if ADMIN_TOKENS:
        return access.only_with_token(ADMIN_TOKENS, sites.no_foreign_pages(function))

    async def off(_: Request) -> Response:
        raise Problem(
            HTTPStatus.FORBIDDEN,
            "Nobody may remove readings here: the settings list no token for it (ADMIN_TOKENS)",
            reason="off",
        )

    return off


async def _settings(_: Request) -> Response:
    return answers.json(
        {
            "app_name": "Temperature monitoring",
            # Nothing here debugs; clients look for the field.
            "debug": False,
            "alignment_interval": int(ALIGNMENT.total_seconds()) // 60,
        }
    )


_ROUTES: edge.Routes = {
    "": edge.Route(edge.GET, DASHBOARD.page("index.html")),
    "/dashboard/": edge.Route(edge.GET, DASHBOARD.file),
    "/v1/temperature/average": edge.Route(edge.GET, access.needs_token(TOKENS, _average)),
    "/temperature/average": edge.Route(edge.GET, access.needs_token(TOKENS, _average)),
    "/v1/temperature/series": edge.Route(edge.GET, access.needs_token(TOKENS, _series)),
    "/v1/temperature/readings": edge.by_method(
        edge.Route(edge.GET, access.needs_token(TOKENS, _readings)), edge.Route(edge.DELETE, _admin(_remove))
    ),
    "/v1/temperature/rooms": edge.by_method(
        edge.Route(edge.GET, access.needs_token(TOKENS, _rooms)), edge.Route(edge.DELETE, _admin(_forget))
    ),
    "/v1/temperature/removals": edge.Route(edge.GET, _admin(_removals)),
    "/v1/temperature/alarms": edge.Route(edge.GET, access.needs_token(TOKENS, _alarms)),
    "/ready": edge.Route(edge.GET, database.ready(DATABASE)),
    "/settings": edge.Route(edge.GET, access.needs_token(TOKENS, _settings)),
    **routes.of_every_function("average", TOKENS),
}


@cache
def _database() -> Temperatures:
    # Made by the first question: the framework imports this module before the server forks, and the pool needs a loop.
    return Temperatures(DATABASE)


def _named(scope: Scope) -> dict[str, str | None]:
    named = {
        "building_id": scope.building_id,
        "room_id": scope.room_id,
        "start": written(scope.start, scope.zone),
        "end": written(scope.end, scope.zone),
    }
    return {**named, "tz": str(scope.zone)} if scope.zone else named


def _weighted(options: CourseOptions) -> dict[str, str]:
    return {"weighting": "time"} if options.by_time else {}


def _file_name(scope: Scope) -> str:
    names = [scope.building_id, "all" if scope.room_id is None else scope.room_id]
    times = [f"{instant:%Y%m%dT%H%M%SZ}" for instant in (scope.start, scope.end)]
    return re.sub(r"[^A-Za-z0-9.-]+", "_", "-".join(["readings", *(name[:40] for name in names), *times]))


def _csv(points: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Response:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(points)
    return Response(text.getvalue(), media_type="text/csv")
