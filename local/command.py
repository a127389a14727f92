"""How a command here runs: what ends it, whose its files are, and what the screen shows of their names."""

import io
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

TERMINAL_SIGNALS = (signal.SIGHUP, signal.SIGQUIT)
"""That it was closed, and Ctrl-\\."""


def run(main: Callable[[], None], *, interrupted: int) -> None:
    """Run a command. What it began, a PostgreSQL above all, ends with it.

    Every signal that ends programs is a KeyboardInterrupt, as Ctrl-C is, whose argument is the exit code. That of
    Ctrl-C itself is `interrupted`.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    for number in TERMINAL_SIGNALS:
        # nohup has it ignore that the terminal is closed.
        if signal.getsignal(number) is not signal.SIG_IGN:
            # As SIGTERM, for which a program may have another handler later.
            signal.signal(number, lambda *_: signal.raise_signal(signal.SIGTERM))
    # A mask that keeps files from their own user would keep PostgreSQL from its folder.
    os.umask(os.umask(0) & 0o077)
    show_any_name()
    try:
        main()
    except KeyboardInterrupt as stop:
        sys.exit(stop.args[0] if stop.args else interrupted)


def show_any_name() -> None:
    """Have the screen show what it can of the name of a folder or file, and the rest escaped."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(128 + number)
