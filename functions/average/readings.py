"""Readings as they are stored: page by page out of the database, line by line into an answer.

A page is a short statement of its own, which begins behind the last line of the page before. So a reader that is slow
holds no connection, transaction or snapshot, and a download goes on over another connection, after a failover too.
PostgreSQL writes the values as text; what stands between them is put there for a whole page at once.
"""

import asyncio
import csv
import io
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass

from pydantic_core import to_json
from starlette.responses import StreamingResponse
from starlette.types import Send

from average.queries import Place, Scope, Temperatures, Values
from shared.formulas import READING_COLUMNS, guarded
from shared.problems import Problem
from shared.readings import written

log = logging.getLogger("average")

PAGE_READINGS = 10_000
"""Readings of a page: some 0.5 MB of CSV or 1 of NDJSON, of which a download holds two at most."""
PAGE_ROOMS = 100
"""Rooms that one statement looks for readings in, so that it ends soon where there are none."""


@dataclass(frozen=True, slots=True)
class Form:
    """How a reading is written: its names, the timestamp without its Z, `between`, the temperature, `end`."""

    names: Callable[[str, str], str]
    between: bytes
    end: bytes
    suffix: str


def _csv(building_id: str, room_id: str) -> str:
    text = io.StringIO(newline="")
    csv.writer(text).writerow([guarded(building_id), guarded(room_id), ""])
    return text.getvalue().removesuffix("\r\n")


def _json(building_id: str, room_id: str) -> str:
    names = to_json({"building_id": building_id, "room_id": room_id}).decode()
    return f'{names[:-1]},"timestamp":"'


def line(building_id: str, place: Place) -> str:
    """The line of NDJSON of a reading, which is what `after` takes."""
    reading = {"building_id": building_id, "room_id": place.room_id, "timestamp": written(place.timestamp)}
    return to_json({**reading, "temperature": place.temperature}).decode()


CSV_HEADER = f"{','.join(READING_COLUMNS)}\r\n".encode()
CSV = Form(_csv, b"Z,", b"\r\n", "csv")
NDJSON = Form(_json, b'Z","temperature":', b"}\n", "ndjson")
JSON = Form(_json, b'Z","temperature":', b"},", "json")
FORMS: Mapping[str, Form] = {
    "application/json": JSON,
    "text/csv": CSV,
    "application/x-ndjson": NDJSON,
    "application/ndjson": NDJSON,
    "application/jsonl": NDJSON,
}
"""By media type; the first one is what is answered without a wish."""


class Walk:
    """Goes through the readings of a scope, in the order of room, timestamp and temperature, from a place on."""

    def __init__(self, temperatures: Temperatures, scope: Scope, form: Form, after: Place | None) -> None:
        self.over = False
        """Whether there are no more readings."""
        self.place = after
        """That of the last reading of the last page that was full."""
        self._temperatures = temperatures
        self._scope = scope
        self._form = form
        room_id = after.room_id if after else scope.room_id
        self._rooms: Sequence[str] = [] if room_id is None else [room_id]
        self._listed = room_id or ""

    async def page(self, most: int) -> tuple[bytes, int]:
        """The next lines and how many they are: `most`, or fewer where the rooms of a statement or all readings end.

        Raises Problem 503 if the database does not answer within the deadline.
        """
        while not self.over:
            if not self._rooms:
                await self._list()
                continue
            after = self.place if self.place and self.place.room_id == self._rooms[0] else None
            found = await self._temperatures.readings(self._scope, self._rooms, after, most)
            count = sum(values.number for values in found)
            if count == most:
                last = found[-1]
                self.place = Place(last.room_id, last.last, float(last.text.rpartition(b'"')[2]))
                self._rooms = self._rooms[self._rooms.index(last.room_id) :]
            else:
                self._rooms = []
                self.over = self._scope.room_id is not None
            if count:
                return b"".join(self._written(values) for values in found), count
        return b"", 0

    def _written(self, values: Values) -> bytes:
        names = self._form.names(self._scope.building_id, values.room_id).encode()
        lines = values.text[1:].replace(b'\n"', b"\n").replace(b'"', self._form.between)
        return names + lines.replace(b"\n", self._form.end + names) + self._form.end

    async def pages(self, most: int | None) -> AsyncIterator[bytes]:
        """All pages, or those of `most` readings."""
        while not self.over and most != 0:
            lines, count = await self.page(PAGE_READINGS if most is None else min(most, PAGE_READINGS))
            most = None if most is None else most - count
            if lines:
                yield lines

    async def some(self, most: int) -> tuple[bytes, Place | None]:
        """The next lines, and the place behind which there are more, None if there are not."""
        lines = b"".join([page async for page in self.pages(most)])
        place = self.place
        # One more tells whether there are more.
        return lines, place if (await self.page(1))[1] else None

    async def _list(self) -> None:
        building_id = self._scope.building_id
        found = await self._temperatures.rooms(building_id, (building_id, self._listed), PAGE_ROOMS)
        self._rooms = [room.room_id for room in found]
        self.over = not found
        if found:
            self._listed = self._rooms[-1]


async def following(first: bytes, pages: AsyncIterator[bytes], head: bool) -> AsyncIterator[bytes]:
    """The first page and those after it; nothing for HEAD, whose answer has no content.

    While one is sent, the database works at the next.
    """
    if head:
        return
    page: bytes | None = first
    while page:
        coming = asyncio.ensure_future(anext(pages, None))
        try:
            yield page
            page = await coming
        finally:
            coming.cancel()


class Download(StreamingResponse):
    """An answer of pages. One that cannot be ended is broken off, so that the client notices."""

    async def stream_response(self, send: Send) -> None:
        """Send the pages. Without the last message the server closes the connection before the end of the answer."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            async for page in self.body_iterator:
                await send({"type": "http.response.body", "body": page, "more_body": True})
        except Problem as problem:
            log.warning("a download was broken off: %s", problem.detail, exc_info=problem.__cause__)
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})
