"""Logging: lines on standard error, or in the file that LOG_FILE names."""

import logging
import logging.handlers

from shared import settings

FORMAT = "%(asctime)s - %(levelname)s - %(name)s - %(message)s"


def configure() -> None:
    """Set up the root logger from LOG_LEVEL (info) and LOG_FILE (a file instead of standard error).

    A second call in the process changes nothing. functions-framework leaves the root logger at WARNING and without a
    handler, so a function calls this first.
    """
    level = settings.text("LOG_LEVEL", "info").upper()
    if level not in logging.getLevelNamesMapping():
        raise settings.SettingError(f"LOG_LEVEL must be debug, info, warning or error, not {level.lower()!r}")
    handler: logging.Handler = logging.StreamHandler()
    if file := settings.text("LOG_FILE"):
        handler = logging.handlers.RotatingFileHandler(file, maxBytes=10_000_000, backupCount=3)
    logging.basicConfig(level=level, format=FORMAT, handlers=[handler])
