"""The sink of events that could not be delivered: keeps them in a folder, says why, and sends them again if asked to.

In its pod, `python /function/dead_letters.py` lists them. With `redeliver` it sends them to SINK_URL, with `discard`
and ids it removes them.
"""

import asyncio
import base64
import json
import logging
import os
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import aiohttp
from cloudevents.exceptions import GenericException
from cloudevents.http import from_http
from functions_framework import aio
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from shared import body, edge, logs, sink
from shared.problems import Problem, unavailable
from shared.sink import Sink

logs.configure()
log = logging.getLogger("dead-letters")

FOLDER = Path(os.environ.get("DEAD_LETTERS", "/letters"))
LONGEST_REASON = 600
"""Characters of a reason that are shown."""
LONGEST_DATA = 200
"""Bytes of an event's data that are shown."""
MOST_EVENT_BYTES = 16 * 1024 * 1024
"""Twice what `ingest` takes."""
SLICE_BYTES = 3 * 64 * 1024
"""Bytes that are encoded at a time: the memory of the pod is small. Base64 makes four of three."""
BODIES = body.Receiver(MOST_EVENT_BYTES)


class NoEvent(Exception):
    """This is none; the message says why."""


@aio.http
@edge.answered
async def dead_letters(request: Request) -> Response:
    """Keep the event, and log why it was not delivered."""
    return await edge.route(request, _ROUTES)


async def _take(request: Request) -> Response:
    headers = edge.headers(request)
    event = await BODIES.receive(request, headers)
    try:
        attributes = _attributes(headers, event)
    except NoEvent as error:
        raise Problem(HTTPStatus.BAD_REQUEST, str(error)) from None
    try:
        await run_in_threadpool(_keep, headers, event)
    except OSError as error:
        raise unavailable("not_kept", "The event cannot be kept; send it again", 5) from error
    log.warning("%s was not delivered: %s", _name(attributes), reason(attributes))
    # An answer with a body would have to be an event.
    return Response(status_code=HTTPStatus.NO_CONTENT)


_ROUTES: edge.Routes = {"": edge.Route(edge.POST, _take)}


def reason(attributes: Mapping[str, Any]) -> str:
    """Why Knative could not deliver the event, in words."""
    code, data = str(attributes.get("knativeerrorcode") or ""), str(attributes.get("knativeerrordata") or "")
    where = _printable(str(attributes.get("knativeerrordest") or "")) or "its sink"
    if not code and not data:
        return "Knative did not say why"
    answered = f"{where} answered {_printable(code)}" if code and code != "-1" else f"{where} gave no answer"
    said = _explained(_decoded(data))
    return f"{answered}: {said}" if said else answered


def _decoded(data: str) -> str:
    """The answer of the sink, which Knative puts into the event as base64 and cuts off; other versions, as it is."""
    try:
        # What was cut in the middle of a character, or of four signs, loses that.
        return base64.b64decode(data[: len(data) // 4 * 4], validate=True).decode(errors="strict")
    except UnicodeDecodeError as error:
        if error.end == len(error.object) and error.start > len(error.object) - 4 and error.start:
            return bytes(error.object[: error.start]).decode()
    except ValueError:
        pass
    return unquote(data)


def _explained(answer: str) -> str:
    """What a problem document says; anything else as it is."""
    try:
        problem = json.loads(answer)
    except ValueError:
        problem = None
    if isinstance(problem, dict) and (problem.get("detail") or problem.get("title")):
        faults = problem.get("errors")
        words = [
            " ".join(str(fault.get(key, "")) for key in ("field", "message") if fault.get(key))
            for fault in (faults if isinstance(faults, list) else [])
            if isinstance(fault, dict)
        ]
        answer = "; ".join([str(problem.get("detail") or problem.get("title")), *words])
    answer = _printable(" ".join(answer.split()))
    return answer if len(answer) <= LONGEST_REASON else f"{answer[:LONGEST_REASON]}..."


def _attributes(headers: Mapping[str, str], event: bytes) -> dict[str, Any]:
    """Those of the event, whatever its data is. Raises NoEvent."""
    try:
        return dict(from_http(dict(headers), event, data_unmarshaller=lambda data: data).get_attributes())
    except (GenericException, TypeError, ValueError) as error:
        raise NoEvent(f"This is not an event: {_printable(str(error))}") from None


def _name(attributes: Mapping[str, Any]) -> str:
    return " ".join(f"{key} {_printable(str(attributes.get(key)))!r}" for key in ("type", "source", "id"))


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


def _keep(headers: Mapping[str, str], event: bytes) -> None:
    """Write the request down as it came; it is there as a whole, or not at all. Raises OSError."""
    kept = {name: value for name, value in headers.items() if name == "content-type" or name.startswith("ce-")}
    path = FOLDER / f"{time.time_ns():020}-{uuid.uuid4().hex[:8]}.json"
    unfinished = path.with_suffix(".part")
    try:
        with unfinished.open("xb") as file:
            file.write(json.dumps({"headers": kept, "body": ""}).encode().removesuffix(b'"}'))
            for begin in range(0, len(event), SLICE_BYTES):
                file.write(base64.b64encode(event[begin : begin + SLICE_BYTES]))
            file.write(b'"}')
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(path)
    finally:
        unfinished.unlink(missing_ok=True)
    folder = os.open(FOLDER, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _letters() -> Iterator[tuple[Path, dict[str, str], bytes, dict[str, Any]]]:
    """The oldest first: file, headers, body and attributes of each event."""
    for path in sorted(FOLDER.glob("*.json")):
        try:
            letter = json.loads(path.read_text())
            headers, event = dict(letter["headers"]), base64.b64decode(letter["body"], validate=True)
            attributes = _attributes(headers, event)
        except FileNotFoundError:
            # Delivered meanwhile, by another one.
            continue
        except (NoEvent, KeyError, TypeError, ValueError):
            print(f"{path} is damaged, and stays", file=sys.stderr)
            continue
        yield path, headers, event, attributes


def show() -> int:
    """List what is kept."""
    number = 0
    for path, _, event, attributes in _letters():
        number += 1
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(path.name.partition("-")[0]) / 1e9))
        print(f"{when} {_name(attributes)}: {reason(attributes)}")
        print(f"  {_printable(event[:LONGEST_DATA].decode(errors='replace'))}{'...' if event[LONGEST_DATA:] else ''}")
    print(f"{number} dead letters")
    return 0


def redeliver(target: Sink) -> int:
    """Send all of it to the sink, and remove what it takes. What it refuses stays; ends where it does not answer."""
    sent, refused = asyncio.run(_send(target))
    left = len(list(FOLDER.glob("*.json")))
    print(f"{sent} delivered, {refused} refused again, {left} left")
    return int(left > 0)


async def _send(target: Sink) -> tuple[int, int]:
    """How many the sink took, and how many it refused."""
    sent = refused = 0
    async with aiohttp.ClientSession(
        headers={"Authorization": f"Bearer {target.token}"} if target.token else {},
        # Where an event has none, it has none again.
        skip_auto_headers=["Content-Type"],
        timeout=aiohttp.ClientTimeout(total=target.patience_seconds),
    ) as client:
        for path, headers, event, attributes in _letters():
            again = {name: value for name, value in headers.items() if not name.startswith("ce-knativeerror")}
            try:
                # No redirect is followed: the answer to the GET that it becomes says nothing about the event.
                async with client.post(target.url, data=event, headers=again, allow_redirects=False) as answer:
                    status, said = answer.status, _explained(await answer.text(errors="replace"))
            except (aiohttp.ClientError, TimeoutError) as error:
                print(f"{target.url} does not answer ({type(error).__name__}): the rest stays", file=sys.stderr)
                break
            if 200 <= status < 300:
                path.unlink(missing_ok=True)
                sent += 1
            elif status >= 500 or status in {401, 403, 404, 408, 429}:
                print(f"{target.url} answers {status}: {said}; the rest stays", file=sys.stderr)
                break
            else:
                refused += 1
                print(f"{_name(attributes)} is refused again: {status}, {said}")
    return sent, refused


def discard(identities: list[str]) -> int:
    """Remove those of these ids."""
    number = 0
    for path, _, _, attributes in _letters():
        if attributes["id"] in identities:
            path.unlink(missing_ok=True)
            number += 1
    print(f"{number} discarded")
    return int(number == 0)


if __name__ == "__main__":
    task, identities = sys.argv[1:2], sys.argv[2:]
    if task == ["redeliver"] and not identities:
        sys.exit(redeliver(sink.load("SINK")))
    elif task == ["discard"] and identities:
        sys.exit(discard(identities))
    elif not task:
        sys.exit(show())
    sys.exit(__doc__)
