"""Readings as CSV (RFC 4180): a header that names the columns, and a reading on each line.

Imported once such a body comes: a start would pay for it.
"""

import asyncio
import codecs
import csv
import io
from collections.abc import Iterator, Sequence
from functools import partial
from http import HTTPStatus
from itertools import islice
from operator import itemgetter

from pydantic_core import SchemaValidator, ValidationError, core_schema

from ingest.refusals import MOST_READINGS, refused, too_many
from shared.formulas import READING_COLUMNS, unguarded
from shared.problems import MOST_FAULTS_LISTED, Fault, Problem, fault
from shared.readings import TEMPERATURE_RULE, Reading, temperature_schema
from shared.validation import faults, of_text, rule

SLICE_LINES = 1_000
"""Lines that are looked through at a time: others are served in between."""
MOST_LINES = 100_000
"""Of a table, empty ones too: to pass over an empty line takes 0.25 microseconds."""
CODEC_OF_CHARSET = {
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "us-ascii": "ascii",
    "iso-8859-1": "latin-1",
    "iso-8859-15": "iso8859-15",
    "windows-1252": "cp1252",
    "utf-16": "utf-16",
}
"""Python's names of the character sets that are understood, by those of IANA."""
_COLUMNS_ARE = f"The columns are {', '.join(READING_COLUMNS[:-1])} and {READING_COLUMNS[-1]}, in any order"


def schema(reading: core_schema.TypedDictSchema) -> core_schema.CoreSchema:
    """The schema of readings whose temperature is text."""
    temperature = rule(of_text(temperature_schema(strict=False)), TEMPERATURE_RULE)
    fields = {**reading["fields"], "temperature": core_schema.typed_dict_field(temperature)}
    return core_schema.list_schema({**reading, "fields": fields})


async def parse(validator: SchemaValidator, content_type: str, body: bytes) -> Sequence[Reading]:
    """The readings of a body. `validator` is of the schema here.

    Raises Problem: 400 for what is not CSV or not in its character set, 413 for too many readings, 415 for another
    character set, 422 for columns that are not those of readings, and for readings that break a rule, with every fault.
    """
    parameters = _parameters(content_type)
    codec = _codec(parameters.get("charset", "utf-8").lower())
    _check_text(body, codec)
    read = partial(_Table, body, codec, header=parameters.get("header", "present").lower() != "absent")
    table = read()
    names_are_guarded = b"'" in body
    readings: list[Reading] = []
    try:
        while rows := list(islice(table.rows, SLICE_LINES)):
            await asyncio.sleep(0)
            if {len(row) for row in rows} - {0, len(table.columns)}:
                break
            found = [_reading(*values) for values in map(table.ordered, filter(None, rows))]
            if len(readings) + len(found) > MOST_READINGS:
                raise too_many()
            if names_are_guarded:
                found = [_unguarded(each) for each in found]
            readings += validator.validate_python(found)
        else:
            return readings
    except (csv.Error, ValidationError):
        pass
    # Again, line by line, for what is wrong and where.
    raise await _refusal(validator, read(), names_are_guarded)


class _Table:
    """The columns of CSV, and its rows."""

    def __init__(self, body: bytes, charset: str, *, header: bool) -> None:
        """Raises Problem 422 for columns that are not understood. The body is in the character set."""
        self.line = 1
        self.rows = csv.reader(io.TextIOWrapper(io.BytesIO(body), charset, newline=""), strict=True)
        self.columns: Sequence[str] = _header(self.rows) if header else READING_COLUMNS
        self.ordered = itemgetter(*(self.columns.index(column) for column in READING_COLUMNS))
        """The values of a row in the order of READING_COLUMNS."""

    def numbered(self) -> Iterator[tuple[int, list[str]]]:
        """The rows that are not empty, each with the number of its first line."""
        self.line = self.rows.line_num + 1
        for row in self.rows:
            if row:
                yield self.line, row
            self.line = self.rows.line_num + 1


def _check_text(body: bytes, charset: str) -> None:
    """Raise Problem 400 for a body that is not in the character set, 413 for one of too many lines."""
    if charset == "utf-16" and not body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise Problem(
            HTTPStatus.BAD_REQUEST, "CSV in utf-16 must begin with a byte order mark, which says its byte order"
        )
    try:
        # Not of the bytes: those of an end of a line are in many letters of UTF-16, such as the Gujarati ones.
        text = body.decode(charset)
    except UnicodeDecodeError as error:
        number = body[: error.start].decode(charset).count("\n") + 1
        raise Problem(HTTPStatus.BAD_REQUEST, f"Line {number} is not {charset}; name its charset") from None
    if text.count("\n") > MOST_LINES or text.count("\r") > MOST_LINES:
        raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"CSV holds at most {MOST_LINES} lines; send it in parts")


def _header(rows: Iterator[list[str]]) -> Sequence[str]:
    try:
        columns = [name.strip() for name in next((row for row in rows if row), [])]
    except csv.Error as error:
        raise _not_csv(1, 0, error) from None
    unknown = (fault(name, "is no column of readings") for name in columns if name not in READING_COLUMNS)
    found = [
        # There may be a million.
        *islice(unknown, MOST_FAULTS_LISTED + 1),
        *(fault(name, "must be a column") for name in READING_COLUMNS if name not in columns),
        *(fault(name, "must be there once") for name in READING_COLUMNS if columns.count(name) > 1),
    ]
    if found:
        raise Problem(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            f"The first line must name columns. {_COLUMNS_ARE}",
            faults=[{**each, "line": 1} for each in found],
        )
    return columns


def _reading(building_id: str, room_id: str, timestamp: str, temperature: str) -> dict[str, str]:
    # Several times as fast as of any columns and values.
    return {"building_id": building_id, "room_id": room_id, "timestamp": timestamp, "temperature": temperature}


def _unguarded(row: dict[str, str]) -> dict[str, str]:
    return {**row, "building_id": unguarded(row["building_id"]), "room_id": unguarded(row["room_id"])}


async def _refusal(validator: SchemaValidator, table: _Table, names_are_guarded: bool) -> Problem:
    """The Problem of a table that is not valid."""
    found: list[Fault] = []
    rows = enumerate(table.numbered())
    index = -1
    try:
        for index, (number, row) in rows:
            if index == MOST_READINGS:
                return too_many()
            if index % SLICE_LINES == SLICE_LINES - 1:
                await asyncio.sleep(0)
            if len(row) != len(table.columns):
                message = f"has {len(row)} fields, but the header {len(table.columns)}"
                found.append({**fault("", message, index), "line": number})
                continue
            reading = _reading(*table.ordered(row))
            try:
                validator.validate_python([_unguarded(reading) if names_are_guarded else reading])
            except ValidationError as error:
                found += [{**each, "index": index, "line": number} for each in faults(error)]
            if len(found) > MOST_FAULTS_LISTED:
                break
    except csv.Error as error:
        return _not_csv(table.line, index + 1, error)
    return refused(found)


def _not_csv(number: int, index: int, error: csv.Error) -> Problem:
    message = f"is not CSV: {error}"
    found: Fault = {**fault("", message, index), "line": number}
    return Problem(HTTPStatus.BAD_REQUEST, f"Line {number} {message}", faults=[found])


def _codec(charset: str) -> str:
    """Python's name of a character set. Raises Problem 415 for one that is not read."""
    if charset not in CODEC_OF_CHARSET:
        raise Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"CSV with the charset {charset} cannot be read; send it as utf-8, or as one of "
            f"{', '.join(CODEC_OF_CHARSET)}",
        )
    return CODEC_OF_CHARSET[charset]


def _parameters(content_type: str) -> dict[str, str]:
    """The parameters of a media type."""
    found = (each.partition("=") for each in content_type.split(";")[1:])
    return {name.strip().lower(): value.strip().strip('"') for name, _, value in found}
