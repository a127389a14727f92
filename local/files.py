"""Files of readings, cut into blocks of lines: CSV or NDJSON, compressed by gzip or not, from any place on."""

import csv
import gzip
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Protocol

from shared.formulas import READING_COLUMNS
from shared.settings import SettingError

SETTING_OF_COLUMN = dict(zip(READING_COLUMNS, ("BUILDING", "ROOM", "TIME", "TEMPERATURE"), strict=True))
"""The setting that names the column of the file."""
BLOCK_LINES = 2_000
"""Of a block; a request may hold 10,000 readings."""
MOST_LINE_BYTES = 64 * 1024
"""Of a line of which a reading can be made."""
MOST_BLOCK_BYTES = 4 * 1024 * 1024
"""Of a line that is read at all, and of a block."""
_GZIP = b"\x1f\x8b"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Fault:
    """A line that no reading is stored of, by its number (1 is the first of the file), and why."""

    line: int
    reason: str
    text: str


@dataclass(frozen=True, slots=True)
class Record:
    """A reading as it stands in the file, and as it stands in a request."""

    line: int
    text: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Block:
    """Some lines of the file."""

    lines: Sequence[bytes]
    first: int
    """Number of the first line."""
    end: int
    """Bytes of the file, uncompressed, up to the end of the block."""


Content = io.BufferedIOBase


class Format(Protocol):
    """How readings stand in a file."""

    content_type: str
    """What ingest is told of a body."""
    quotes: bool
    """Whether a line may end within quotation marks, and the reading go on in the next one."""

    def body(self, block: Block) -> bytes | None:
        """All readings of the block as a body; None if some may be faulty."""

    def records(self, block: Block) -> tuple[list[Record], list[Fault]]:
        """The readings of the block, one by one, whose contents together are a body; and what is no reading."""


@contextmanager
def opened(path: Path) -> Iterator[tuple[Content, Content]]:
    """The content of the file, and the file itself, whose position tells how far that is. Raises OSError."""
    with path.open("rb") as file:
        if file.peek(2).startswith(_UTF_16):
            raise SettingError(f"{path} is UTF-16. Save it as UTF-8: iconv -f utf-16 -t utf-8 {path} > new.csv")
        if not file.peek(2).startswith(_GZIP):
            yield file, file
            return
        with gzip.open(file) as content:
            yield content, file


def blocks(content: Content, first: int, begin: int, *, quotes: bool) -> Iterator[Block]:
    """The lines from a place on: the number of the line there, and the bytes before it.

    A block does not end within quotation marks, unless they are never closed. A line without an end is the last one.
    Raises SettingError for a line that is longer than any.
    """
    while lines := _some(content, BLOCK_LINES, first):
        odd = quotes and sum(line.count(b'"') for line in lines) % 2
        most = 2 * BLOCK_LINES
        while odd and len(lines) < most and _has_end(lines) and (more := _some(content, 1, first + len(lines))):
            lines += more
            odd ^= more[0].count(b'"') % 2
        begin += sum(map(len, lines))
        yield Block(lines, first, begin)
        if not _has_end(lines):
            # Somebody may be writing it: what came now would be read as a line of its own.
            return
        first += len(lines)


def _has_end(lines: Sequence[bytes]) -> bool:
    return lines[-1].endswith(b"\n")


def _some(content: Content, number: int, first: int) -> list[bytes]:
    lines: list[bytes] = []
    size = 0
    for line in iter(lambda: content.readline(MOST_BLOCK_BYTES), b""):
        if len(line) == MOST_BLOCK_BYTES and not line.endswith(b"\n"):
            raise SettingError(f"Line {first + len(lines)} is longer than {MOST_BLOCK_BYTES} bytes: no reading is")
        lines.append(line)
        size += len(line)
        if len(lines) == number or size > MOST_BLOCK_BYTES or not _has_end(lines):
            break
    return lines


def recognized(begin: bytes, columns: Mapping[str, str], encoding: str, delimiter: str) -> tuple[Format, bool]:
    """The format of a file with this first line, and whether that names columns.

    Of a first line that is longer than MOST_LINE_BYTES, one byte more is enough. `columns` says for each of
    READING_COLUMNS which column of the file it is, or after a `=` what it always is. Raises SettingError for columns
    that are not there.
    """
    is_too_long = len(begin) > MOST_LINE_BYTES
    begin = begin.removeprefix(_BYTE_ORDER_MARK)
    if begin.lstrip().startswith(b"{"):
        return Ndjson(columns), False
    if begin.lstrip().startswith(b"["):
        raise SettingError("The file is a JSON array. Make it one reading on each line: jq -c '.[]' FILE > FILE.ndjson")
    try:
        text = begin.decode(encoding)
    except UnicodeDecodeError:
        raise SettingError(f"The first line is not {encoding}; say what it is: ENCODING=windows-1252") from None
    delimiter = delimiter or max(",;\t", key=text.count)
    try:
        [names] = csv.reader([text], strict=True, delimiter=delimiter)
    except (csv.Error, ValueError):
        raise SettingError(
            "Lines end with CR alone. Have them end with LF: tr '\\r' '\\n' < FILE > new.csv"
            if "\r" in text.rstrip("\r\n")
            else "The first line does not name columns as CSV does"
        ) from None
    if is_too_long:
        raise SettingError(f"The first line, which names columns, is longer than {MOST_LINE_BYTES} bytes")
    return Csv([name.strip() for name in names], columns, encoding, delimiter), True


class Csv:
    """Readings as CSV."""

    content_type = "text/csv; charset=utf-8; header=absent"
    quotes = True

    def __init__(self, names: Sequence[str], columns: Mapping[str, str], encoding: str, delimiter: str) -> None:
        """Raises SettingError for columns that are not there."""
        self._width = len(names)
        self._encoding = encoding
        self._delimiter = delimiter
        self._constants = [value[1:] for value in columns.values() if value.startswith("=")]
        places = []
        for column in READING_COLUMNS:
            if (value := columns[column]).startswith("="):
                places.append(self._width + self._constants.index(value[1:]))
            elif names.count(value) == 1:
                places.append(names.index(value))
            else:
                setting = SETTING_OF_COLUMN[column]
                raise SettingError(
                    f"The column {value!r} of {column} is {'twice' if value in names else 'not'} in the file, whose"
                    f" columns are {', '.join(names)}. Say which one it is, {setting}=COLUMN, or what it always is,"
                    f" {setting}==VALUE"
                )
        self._pick = itemgetter(*places)

    def body(self, block: Block) -> bytes | None:
        """All readings of the block as a body; None if some may be faulty."""
        if not _has_end(block.lines) or max(map(len, block.lines)) > MOST_LINE_BYTES:
            return None
        try:
            texts = [line.decode(self._encoding) for line in block.lines]
            rows = list(csv.reader(texts, strict=True, delimiter=self._delimiter))
        except (csv.Error, UnicodeDecodeError):
            return None
        if {len(row) for row in rows} - {0, self._width}:
            return None
        return self._written(row for row in rows if row)

    def records(self, block: Block) -> tuple[list[Record], list[Fault]]:
        """The readings of the block, one by one, and what is no reading."""
        found: list[Record] = []
        faults: list[Fault] = []
        texts = [line.decode(self._encoding, "surrogateescape") for line in block.lines]
        begin = 0
        while begin < len(texts):
            rows = csv.reader(islice(texts, begin, None), strict=True, delimiter=self._delimiter)
            try:
                row = next(rows)
                lines = texts[begin : begin + rows.line_num]
                reason = self._reason(row, lines)
            except csv.Error as error:
                # Some messages go on with advice for who opens files in Python.
                reason = f"is not CSV: {str(error).partition(' - ')[0]}"
            if reason:
                # The line alone: what is behind a quotation mark that is not closed may be right.
                faults.append(Fault(block.first + begin, reason, texts[begin]))
                begin += 1
                continue
            if row:
                found.append(Record(block.first + begin, "".join(lines), self._written([row])))
            begin += rows.line_num
        return found, faults

    def _reason(self, row: Sequence[str], lines: Sequence[str]) -> str:
        if not lines[-1].endswith("\n"):
            return "has no end: the file may have been cut off. If it is whole, add the end of the line"
        if max(map(len, lines)) > MOST_LINE_BYTES:
            return f"is longer than {MOST_LINE_BYTES} bytes"
        if row and len(row) != self._width:
            return f"has {len(row)} fields, but the first line {self._width}"
        return "" if all(line.isascii() or _is_text(line) for line in lines) else f"is not {self._encoding}"

    def _written(self, rows: "Iterator[list[str]] | Sequence[list[str]]") -> bytes:
        picked = (self._pick(row + self._constants) for row in rows) if self._constants else map(self._pick, rows)
        if self._delimiter != ",":
            # Where semicolons are between columns, numbers have a decimal comma.
            picked = ((*others, temperature.replace(",", ".")) for *others, temperature in picked)
        text = io.StringIO(newline="")
        csv.writer(text).writerows(picked)
        return text.getvalue().encode()


class Ndjson:
    """Readings as NDJSON."""

    content_type = "application/x-ndjson"
    quotes = False

    def __init__(self, columns: Mapping[str, str]) -> None:
        self._columns = columns
        self._as_it_is = all(column == value for column, value in columns.items())

    def body(self, block: Block) -> bytes | None:
        """All readings of the block as a body; None if some may be faulty."""
        if self._as_it_is and max(map(len, block.lines)) <= MOST_LINE_BYTES:
            return b"".join(block.lines)
        records, faults = self.records(block)
        return None if faults else b"".join(record.content for record in records)

    def records(self, block: Block) -> tuple[list[Record], list[Fault]]:
        """The readings of the block, one by one, and what is no reading."""
        found: list[Record] = []
        faults: list[Fault] = []
        for number, line in enumerate(block.lines, block.first):
            if not line.strip():
                continue
            text = line.decode(errors="surrogateescape")
            try:
                found.append(Record(number, text, self._content(line)))
            except ValueError as error:
                faults.append(Fault(number, str(error), text))
        return found, faults

    def _content(self, line: bytes) -> bytes:
        """The line as it stands in a request. Raises ValueError, which says why it cannot."""
        if len(line) > MOST_LINE_BYTES:
            raise ValueError(f"is longer than {MOST_LINE_BYTES} bytes")
        try:
            # Python makes an int of so many digits only.
            reading = self._renamed(json.loads(line, parse_int=float))
            return line if self._as_it_is else json.dumps(reading).encode() + b"\n"
        except RecursionError:
            raise ValueError("is not JSON: it is nested too deeply") from None
        except ValueError as error:
            raise ValueError(f"is not JSON: {error}") from None

    def _renamed(self, reading: object) -> object:
        if self._as_it_is or not isinstance(reading, dict):
            return reading
        return {
            column: value[1:] if value.startswith("=") else reading[value]
            for column, value in self._columns.items()
            if value.startswith("=") or value in reading
        }


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
