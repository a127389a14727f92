"""Logging: lines for people or for programs, on standard error or in the file that LOG_FILE names."""

import json
import logging
import logging.handlers
from datetime import UTC, datetime
from pathlib import Path

from shared import settings
from shared.masking import masked

TEXT_FORMAT = "%(asctime)s - %(levelname)s - %(name)s - %(message)s"

MOST_LOGGED_CHARACTERS = 1_000
"""Of a target or an id that a client sent, which may have 64 KiB, each byte of it written as six in two places; and of
what an error says.
"""


class JsonFormatter(logging.Formatter):
    """A line of JSON for each record: what happened, and as values of their own the `fields` that it was logged with.

    Without a library: those there are take 10 ms to import, of a start that takes 200.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        known = {
            name: masked(value) if isinstance(value, str) else value
            for name, value in entry.items()
            if value is not None
        }
        return json.dumps(known, default=str, separators=(",", ":"))


class TextFormatter(logging.Formatter):
    """A line for people for each record. More, as a traceback, is indented: what a client sent begins no line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        return "\n  ".join(masked(super().format(record)).splitlines())


def configure(file: Path | None = None) -> None:
    """Set up the root logger from LOG_LEVEL (info), LOG_FORMAT (text) and LOG_FILE (a file instead of standard error).

    `file` takes the place of LOG_FILE. A second call in the process changes nothing. functions-framework leaves the
    root logger at WARNING and without a handler, so a function calls this first. Raises SettingError for settings that
    make no sense, and for a file that cannot be written.
    """
    level = settings.text("LOG_LEVEL", "info").upper()
    if level not in logging.getLevelNamesMapping():
        raise settings.SettingError(f"LOG_LEVEL must be debug, info, warning or error, not {level.lower()!r}")
    formatters = {"text": TextFormatter(TEXT_FORMAT), "json": JsonFormatter()}
    if (kind := settings.text("LOG_FORMAT", "text")) not in formatters:
        raise settings.SettingError(f"LOG_FORMAT must be text or json, not {kind!r}")
    if not logging.getLogger().handlers:
        handler: logging.Handler = logging.StreamHandler()
        if path := file or settings.path("LOG_FILE"):
            handler = _handler(path)
        handler.setFormatter(formatters[kind])
        logging.basicConfig(level=level, handlers=[handler])
    # uvicorn writes its lines its own way, which no program that reads the others understands.
    server = logging.getLogger("uvicorn")
    server.handlers.clear()
    server.propagate = True
    logging.getLogger("uvicorn.access").addFilter(_cut)


def _handler(path: Path) -> logging.Handler:
    try:
        return logging.handlers.RotatingFileHandler(path, maxBytes=10_000_000, backupCount=3)
    except OSError as error:
        raise settings.SettingError(
            f"The log {path} cannot be written ({settings.reason(error)}); choose another LOG_FILE"
        ) from None


def _cut(record: logging.LogRecord) -> bool:
    """Leave the beginning of each value in a record."""
    assert isinstance(record.args, tuple), "as uvicorn has it"
    record.args = tuple(each[:MOST_LOGGED_CHARACTERS] if isinstance(each, str) else each for each in record.args)
    return True
