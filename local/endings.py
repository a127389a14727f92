"""The signals that end a program here: what it began, a PostgreSQL above all, ends with it."""

import signal
from types import FrameType

OF_A_TERMINAL = (signal.SIGHUP, signal.SIGQUIT)
"""That it was closed, and Ctrl-\\."""


def as_ctrl_c() -> None:
    """Have each of them raise KeyboardInterrupt, whose argument is the exit code, as Ctrl-C does."""
    signal.signal(signal.SIGTERM, _leave)
    for number in OF_A_TERMINAL:
        # nohup has it ignore that the terminal is closed.
        if signal.getsignal(number) is not signal.SIG_IGN:
            # As SIGTERM, for which a program may have another handler later.
            signal.signal(number, lambda *_: signal.raise_signal(signal.SIGTERM))


def _leave(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(128 + number)
