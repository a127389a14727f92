"""`python -m local.importing`: store the readings of a large file through `ingest`, and go on where an import ended.

The rules for a reading are those of `ingest` alone, which says what is wrong with which one. So this works wherever
`ingest` is, on this machine or on a cluster.
"""

import csv
import hashlib
import io
import json
import os
import signal
import sys
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any, NoReturn

import httpx2
from tqdm import tqdm

from local.command import show_any_name
from local.files import (
    MOST_LINE_BYTES,
    SETTING_OF_COLUMN,
    Block,
    Content,
    Fault,
    Format,
    Record,
    blocks,
    opened,
    recognized,
)
from local.locks import is_taken
from shared import settings, sink
from shared.backoff import PASSING_STATUSES, Backoff, retry_after_seconds
from shared.formulas import guarded
from shared.settings import SettingError

CONNECTIONS = 4
BLOCKS_AHEAD = 2 * CONNECTIONS
"""Blocks that are read ahead of those that are stored."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, MOST_PAUSE_SECONDS_ASKED = 0.1, 5, 30
"""The pauses before a block is sent again: two of its own, and the longest that an answer may ask for."""
PATIENCE_SECONDS = 60
"""The import ends after so long without any answer but 503."""
KEEPING_SECONDS = 1.0
"""So often the progress is written down."""
READ_BYTES = 1024 * 1024
"""At once, of what an import before has stored."""


@dataclass
class Progress:
    """How far an import is: all before `offset` is stored, or told of in the file of faulty lines."""

    offset: int = 0
    line: int = 1
    stored: int = 0
    duplicates: int = 0
    faulty: int = 0
    faulty_bytes: int = 0
    """Of the file of faulty lines; what is behind was not kept."""
    faulty_digest: str = ""
    """SHA-256 of these. Where the file differs there, somebody worked at it, and the import begins anew."""
    digest: str = ""
    """SHA-256 of all before `offset`. A file that differs there is another one, and begins anew."""
    asked: dict[str, str] = field(default_factory=dict)
    """How the file was read, and where it went. An import that differs begins anew."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a block."""

    stored: int
    duplicates: int
    faults: Sequence[Fault]


class Ingest:
    """Sends blocks, from several threads at once."""

    def __init__(self, url: str, token: str, format: Format) -> None:
        headers = {"Content-Type": format.content_type}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        self._url = url
        try:
            self._client = httpx2.Client(headers=headers, timeout=60, trust_env=not sink.is_on_this_machine(url))
        except (ImportError, OSError, ValueError) as error:
            raise SettingError(
                "What the environment says of proxies (HTTPS_PROXY, ALL_PROXY, NO_PROXY) or of certificates"
                f" (SSL_CERT_FILE) cannot be used: {error}"
            ) from None
        self._format = format
        self.stopped = threading.Event()

    def store(self, block: Block) -> Outcome:
        """Store the readings of the block, all but those that are faulty. Raises SettingError if that cannot be."""
        body = self._format.body(block)
        if body is not None:
            answer = self._post(body)
            if answer.status_code == HTTPStatus.CREATED:
                return Outcome(*_counts(answer), [])
        records, faults = self._format.records(block)
        outcome = self._each(records)
        found = sorted([*faults, *outcome.faults], key=lambda fault: fault.line)
        return replace(outcome, faults=found)

    def _each(self, records: Sequence[Record]) -> Outcome:
        """Store records; those that are refused become faults."""
        faults: list[Fault] = []
        while records:
            answer = self._post(b"".join(record.content for record in records))
            if answer.status_code == HTTPStatus.CREATED:
                return Outcome(*_counts(answer), faults)
            if answer.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE and len(records) > 1:
                middle = len(records) // 2
                first, second = self._each(records[:middle]), self._each(records[middle:])
                return Outcome(
                    first.stored + second.stored,
                    first.duplicates + second.duplicates,
                    [*faults, *first.faults, *second.faults],
                )
            reasons = _reasons(answer, len(records))
            faults += [Fault(record.line, reasons[i], record.text) for i, record in enumerate(records) if i in reasons]
            records = [record for i, record in enumerate(records) if i not in reasons]
        return Outcome(0, 0, faults)

    def _post(self, body: bytes) -> httpx2.Response:
        """The answer to a body: stored, or faulty. Raises SettingError for all other answers, or if there is none."""
        until = time.monotonic() + PATIENCE_SECONDS
        backoff = Backoff(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
        while True:
            asked, is_final = 0.0, False
            try:
                answer = self._client.post(self._url, content=body)
            except httpx2.RequestError as error:
                reason = f"does not answer ({type(error).__name__})"
            else:
                if answer.status_code in _ANSWERED_STATUSES:
                    return answer
                reason = f"answers {answer.status_code}: {_detail(answer)}"
                is_final = answer.status_code not in PASSING_STATUSES
                asked = min(retry_after_seconds(answer.headers.get("Retry-After", "")), MOST_PAUSE_SECONDS_ASKED)
            pause = max(backoff.pause_seconds(), asked)
            if is_final or self.stopped.is_set() or time.monotonic() + pause > until:
                raise SettingError(f"{self._url} {reason}")
            self.stopped.wait(pause)


_ANSWERED_STATUSES = {
    HTTPStatus.CREATED,
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
}


def _counts(answer: httpx2.Response) -> tuple[int, int]:
    """The readings that a request stored, and those that were there. Raises SettingError for an answer of others."""
    try:
        counts = answer.json()
        accepted, duplicates = int(counts["accepted"]), int(counts["duplicates"])
    except (ValueError, KeyError, TypeError):
        raise SettingError(
            f"{answer.url} answers {answer.status_code}, but not how many readings it stored, as ingest does. Is URL"
            " the address of ingest?"
        ) from None
    return accepted - duplicates, duplicates


def _detail(answer: httpx2.Response) -> str:
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return answer.reason_phrase


def _reasons(answer: httpx2.Response, number: int) -> Mapping[int, str]:
    """Why readings of a request were refused, by their index. Raises SettingError for an answer that names none."""
    reasons: dict[int, list[str]] = {}
    with suppress(ValueError, KeyError, TypeError):
        for fault in answer.json()["errors"]:
            reasons.setdefault(fault["index"], []).append(f"{fault['field']} {fault['message']}".strip())
    if not reasons.keys() & set(range(number)):
        if number > 1:
            raise SettingError(f"The answer {answer.status_code} names no reading: {_detail(answer)}")
        return {0: _detail(answer)}
    return {index: "; ".join(each) for index, each in reasons.items()}


class Faulty:
    """The file of faulty lines, which is there once there is one: the number of each, why, and what stands there."""

    def __init__(self, path: Path, size: int) -> None:
        """Go on behind so many bytes, or fewer if there are fewer."""
        self.path = path
        self._file: IO[bytes] | None = None
        self._digest, self.size = hashlib.sha256(), 0
        if not size:
            path.unlink(missing_ok=True)
        elif path.exists():
            with path.open("r+b") as content:
                self._digest, _ = _read(content, size)
                self.size = content.tell()
                content.truncate()

    def add(self, faults: Sequence[Fault]) -> None:
        """Write faults down."""
        if not faults:
            return
        text = io.StringIO(newline="")
        if not self.size:
            csv.writer(text).writerow(["line", "reason", "text"])
        csv.writer(text).writerows((fault.line, fault.reason, guarded(fault.text.rstrip("\r\n"))) for fault in faults)
        content = text.getvalue().encode(errors="backslashreplace")
        if self._file is None:
            self._file = self.path.open("ab")
        self._file.write(content)
        self._digest.update(content)
        self.size += len(content)

    @property
    def digest(self) -> str:
        """SHA-256 of all of it."""
        return self._digest.hexdigest()

    def keep(self) -> None:
        """Have it outlive a loss of power."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())


class Import:
    """An import of a file, which may end anywhere and begin again."""

    def __init__(self, path: Path, content: Content, begin: Progress) -> None:
        """Go on where an import of the same file ended, or at `begin`. The content is there then."""
        self.place = path.with_name(f"{path.name}.progress")
        self.progress = _kept(self.place, begin)
        self._digest, end = _read(content, self.progress.offset)
        told = path.with_name(f"{path.name}.faulty.csv")
        self.faulty = Faulty(told, self.progress.faulty_bytes)
        before, found = self.progress, (self._digest.hexdigest(), self.faulty.digest)
        # Behind a line without an end, what was added since would be read as a line of its own.
        if before is not begin and ((before.digest, before.faulty_digest) != found or end != b"\n"):
            self._digest, _ = _read(content, begin.offset)
            self.faulty = Faulty(told, 0)
            self.progress = begin
        self.progress.digest, self.progress.faulty_digest = self._digest.hexdigest(), self.faulty.digest
        self._kept_at = 0.0

    def done(self, block: Block, outcome: Outcome) -> None:
        """Note what became of the next block."""
        self.faulty.add(outcome.faults)
        self._digest.update(b"".join(block.lines))
        # At once: a signal in between leaves what goes together, and the next import takes the rest away.
        self.progress = replace(
            self.progress,
            offset=block.end,
            line=block.first + len(block.lines),
            digest=self._digest.hexdigest(),
            stored=self.progress.stored + outcome.stored,
            duplicates=self.progress.duplicates + outcome.duplicates,
            faulty=self.progress.faulty + len(outcome.faults),
            faulty_bytes=self.faulty.size,
            faulty_digest=self.faulty.digest,
        )
        if time.monotonic() - self._kept_at > KEEPING_SECONDS:
            self.keep()

    def keep(self) -> None:
        """Keep how far it is."""
        self.faulty.keep()
        new = self.place.with_name(f"{self.place.name}.new")
        new.write_text(json.dumps(asdict(self.progress)))
        new.replace(self.place)
        self._kept_at = time.monotonic()

    def forget(self) -> None:
        """Leave nothing but the faulty lines: it is done."""
        self.faulty.keep()
        self.place.unlink(missing_ok=True)


def _kept(place: Path, begin: Progress) -> Progress:
    """How far an import was that asked the same; `begin` if there is none."""
    with suppress(OSError, ValueError, TypeError):
        before = Progress(**json.loads(place.read_text()))
        if before.asked == begin.asked:
            return before
    return begin


def _read(content: Content, size: int) -> "tuple[hashlib._Hash, bytes]":
    """The SHA-256 of the first bytes of the content, and the last one of them; the content is behind them then."""
    digest, end = hashlib.sha256(), b""
    content.seek(0)
    while size and (some := content.read(min(size, READ_BYTES))):
        digest.update(some)
        size -= len(some)
        end = some[-1:]
    return digest, end


def main() -> None:
    """Import the file that FILE names. Raises SettingError for what the user has to change."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    show_any_name()
    path = settings.path("FILE") or _usage()
    url = sink.url("URL") or f"http://localhost:{settings.number('PORT', 8080, least=1, most=65535)}/"
    columns = {column: settings.text(setting, column) for column, setting in SETTING_OF_COLUMN.items()}
    encoding, delimiter, token = settings.text("ENCODING", "utf-8"), _delimiter(), sink.token("TOKEN")
    sink.check_authorization(url, token, "TOKEN")
    _check_encoding(encoding)
    try:
        with opened(path) as (content, file):
            if is_taken(file):
                raise SettingError(f"Another import of {path} is running")
            head = content.readline(MOST_LINE_BYTES + 1)
            format, has_header = recognized(head, columns, encoding, delimiter)
            asked = {**columns, "encoding": encoding, "delimiter": delimiter, "url": url}
            begin = Progress(len(head), 2, asked=asked) if has_header else Progress(asked=asked)
            work = Import(path, content, begin)
            if work.progress.offset > begin.offset:
                print(_words_of_begin(work), flush=True)
            left = blocks(content, work.progress.line, work.progress.offset, quotes=format.quotes)
            # Without a terminal there is no bar.
            with tqdm(total=path.stat().st_size, initial=file.tell(), unit="B", unit_scale=True, disable=None) as bar:
                _run(work, Ingest(url, token, format), left, lambda: _show(bar, work.progress, file))
    except (OSError, EOFError, zlib.error) as error:
        raise SettingError(f"{path} cannot be read or written beside: {error}") from None
    print(_words(work), flush=True)


def _usage() -> NoReturn:
    raise SettingError("Name a file of readings, CSV or NDJSON: make import FILE=readings.csv")


def _check_encoding(encoding: str) -> None:
    """Raise SettingError for what is no encoding, or one in which lines do not end as they do in ASCII."""
    with suppress(LookupError, UnicodeError):
        if b"\n".decode(encoding) == "\n":
            return
    raise SettingError(f"ENCODING is no encoding that is known, or none that contains ASCII: {encoding!r}")


def _delimiter() -> str:
    """The setting DELIMITER. Raises SettingError for what is not one character, or has a meaning of its own in CSV."""
    # As it stands: settings.text would leave nothing of a tab.
    setting = os.environ.get("DELIMITER", "")
    delimiter = "\t" if setting == r"\t" else setting
    if len(delimiter) > 1 or delimiter in {'"', "\r", "\n"}:
        raise SettingError(rf"DELIMITER must be one character, such as ; or \t for a tab, not {setting!r}")
    return delimiter


def _run(work: Import, ingest: Ingest, left: Iterator[Block], show: Callable[[], None]) -> None:
    """Store what is left of the file, in order, several blocks at a time."""
    waiting: deque[tuple[Block, Future[Outcome]]] = deque()

    def finish() -> None:
        block, outcome = waiting.popleft()
        work.done(block, outcome.result())
        show()

    pool = ThreadPoolExecutor(CONNECTIONS)
    try:
        for block in left:
            waiting.append((block, pool.submit(ingest.store, block)))
            if len(waiting) >= BLOCKS_AHEAD:
                finish()
        while waiting:
            finish()
    except BaseException:
        # Of requests under way nobody hears any more. Their readings come again as duplicates.
        ingest.stopped.set()
        pool.shutdown(wait=False, cancel_futures=True)
        work.keep()
        raise
    work.forget()


def _show(bar: "tqdm[Any]", progress: Progress, file: Content) -> None:
    """Show how much of the file is read and what became of it."""
    bar.set_postfix_str(f"{progress.stored:,} stored, {progress.faulty:,} faulty", refresh=False)
    bar.update(file.tell() - bar.n)


def _words_of_begin(work: Import) -> str:
    # The database may have been emptied, exchanged or restored since: nobody here knows.
    return (
        f"Goes on behind line {work.progress.line - 1:,}, where an import was interrupted. If what that stored is not"
        f" there any more, begin anew: remove {work.place}"
    )


def _words(work: Import) -> str:
    done = work.progress
    words = f"{done.stored:,} readings stored, {done.duplicates:,} were there already, {done.faulty:,} lines are faulty"
    return f"{words}: see {work.faulty.path}" if done.faulty else words


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("Stopped. The same command goes on from here", file=sys.stderr, flush=True)
        # Python would wait for requests under way.
        os._exit(130)
